"""Folders of images with metadata in LAION's columns, in all three forms of metadata."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_contracts.dataset.examples import Example
from data_contracts.dataset.sources.data_source import DataSource, FieldMapping
from data_contracts.dataset.sources.reading import count_hint, source_files
from tests.data_contracts.dataset.sources.source_samples import (
    CANARY,
    ids_of,
    reasons_of,
    rows_of,
    unavailable,
    write_csv,
    write_images,
    write_jsonl,
    write_parquet,
)

SOURCE = DataSource(format="image-text", path="pairs")
WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], None]] = {
    "parquet": write_parquet,
    "csv": write_csv,
    "jsonl": write_jsonl,
}


def laion(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "file_name": name,
        "URL": f"https://example.org/{name}",
        "TEXT": f"{CANARY} caption of {name}",
        "WIDTH": 8,
        "HEIGHT": 8,
        "LICENSE": "CC-BY-4.0",
        "NSFW": "UNLIKELY",
        "similarity": 0.31,
        "punsafe": 0.002,
        "pwatermark": 0.1,
        "hash": 123,
        **changes,
    }


@pytest.mark.parametrize("kind", list(WRITERS))
def test_pairs_in_laions_columns(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "pairs"
    write_images(folder, ["a.png", "deep/b.png"])
    rows = [laion("a.png"), laion("deep/b.png", LICENSE=None, URL=None)]
    WRITERS[kind](folder / f"metadata.{kind}", rows)
    first, second = rows_of(SOURCE, tmp_path)
    assert first == Example(
        1, "https://example.org/a.png", "a.png", "", f"{CANARY} caption of a.png", "CC-BY-4.0",
        "https://example.org/a.png", image=folder.resolve() / "a.png", nsfw="UNLIKELY",
        similarity=0.31, punsafe=0.002, pwatermark=0.1,
    )  # fmt: skip
    assert isinstance(second, Example)
    assert (second.id, second.subject, second.source) == ("deep/b.png",) * 3
    assert second.licence == "NOASSERTION"
    assert count_hint(SOURCE, tmp_path) == 2
    names = [str(path.relative_to(folder.resolve())) for path in source_files(SOURCE, tmp_path)]
    assert names == ["a.png", "deep/b.png", f"metadata.{kind}"]


@pytest.mark.parametrize("kind", list(WRITERS))
def test_images_that_are_not_in_the_folder(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "pairs"
    write_images(folder, ["a.png", "../outside.png", "sub/c.png"])
    (folder / "link.png").symlink_to("../outside.png")
    (folder / "inner.png").symlink_to("a.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "out").symlink_to("..")
    names = ["a.png", "../outside.png", str(folder / "a.png"), "link.png", "out/outside.png"]
    names += ["loop.png", "none.png", "sub", "", "x" * 5000, "inner.png"]
    WRITERS[kind](folder / f"metadata.{kind}", [laion(name) for name in names])
    rows = rows_of(SOURCE, tmp_path)
    prefix = "field image (column file_name) "
    refused = [(row, reason.removeprefix(prefix)) for row, reason in reasons_of(rows)]
    name_refused = "is not the name of a file inside the folder"
    assert refused == [
        (2, name_refused),
        (3, name_refused),
        (4, "lies outside the folder"),
        (5, "lies outside the folder"),
        (6, "names no file"),
        (7, "names no file"),
        (8, "names no file"),
        (9, name_refused),
        (10, "names no file"),
    ]
    assert len(ids_of(rows)) == 2
    assert len(source_files(SOURCE, tmp_path)) == 2


def test_a_caption_that_is_not_there(tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    write_images(folder, ["a.png"])
    write_jsonl(folder / "metadata.jsonl", [laion("a.png", TEXT=None), laion("a.png", NSFW=7)])
    assert reasons_of(rows_of(SOURCE, tmp_path)) == [
        (1, "field answer (column TEXT) missing"),
        (2, "field nsfw (column NSFW) is not text"),
    ]


def test_columns_that_the_contract_names(tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    write_images(folder, ["a.png"])
    write_csv(folder / "metadata.csv", [{"picture": "a.png", "words": "w", "person": "p"}])
    columns = {"image": "picture", "answer": "words", "subject": "person"}
    fields = tuple(FieldMapping(field=field, column=name) for field, name in columns.items())
    source = DataSource(format="image-text", path="pairs", fields=fields)
    (record,) = rows_of(source, tmp_path)
    assert isinstance(record, Example)
    assert (record.id, record.subject, record.answer) == ("a.png", "p", "w")
    with unavailable("column file_name missing (field image)"):
        rows_of(SOURCE, tmp_path)


def test_one_metadata_file_and_no_more(tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    folder.mkdir()
    with unavailable("0 metadata files, where one is expected of metadata.parquet, metadata.csv"):
        rows_of(SOURCE, tmp_path)
    write_jsonl(folder / "metadata.jsonl", [])
    assert rows_of(SOURCE, tmp_path) == []
    write_csv(folder / "metadata.csv", [laion("a.png")])
    with unavailable("2 metadata files"):
        source_files(SOURCE, tmp_path)
