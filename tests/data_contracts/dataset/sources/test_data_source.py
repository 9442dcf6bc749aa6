"""What a source may say, and files that are not where or what it says."""

import os
import pickle
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from data_contracts.dataset.forms import FORMS
from data_contracts.dataset.sources.data_source import (
    FIELD_TYPES,
    DataSource,
    DataUnavailableError,
    FieldMapping,
    SourceFormat,
    forms_of,
    possible_fields,
    required_fields,
)
from data_contracts.dataset.sources.reading import count_hint, source_files
from tests.data_contracts.dataset.sources.source_samples import (
    CANARY,
    records,
    renamed,
    rows_of,
    unavailable,
    write_jsonl,
)

NOBODY = 65534
FILES: tuple[SourceFormat, ...] = ("jsonl", "csv", "parquet")
FOLDERS: tuple[SourceFormat, ...] = ("huggingface", "image-text")


@contextmanager
def unprivileged() -> Iterator[None]:
    """Root may read everything; the block runs as a user who may not."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"path": "/etc/passwd"},
        {"path": "../x"},
        {"path": "a/../../x"},
        {"path": ""},
        {"path": "."},
        {"path": "a\0b"},
        {"path": "x", "fields": renamed()[:-1]},
        {"path": "x", "fields": (*renamed(), FieldMapping(field="id", column="other"))},
        {"path": "x", "fields": (*renamed(), FieldMapping(field="image", column="image"))},
        {"path": "x", "fields": (*renamed(), FieldMapping(field="weather", column="weather"))},
        {"path": "x", "unknown": 1},
        {"path": "x", "format": "xlsx"},
        {"path": "x", "form": "image-text"},
        {"path": "x", "form": "poem"},
        {"path": "x", "form": "chat", "fields": renamed()},
        {"path": "x", "form": "chat", "format": "image-text"},
    ],
)
def test_sources_that_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected|permitted|should be"):
        DataSource.model_validate({"format": "jsonl", **wrong})


def test_fields_of_each_format() -> None:
    assert required_fields("csv") == ("id", "subject", "prompt", "answer", "source")
    assert required_fields("image-text") == ("answer", "image")
    for name, form in FORMS.items():
        assert set(form.fields) <= set(FIELD_TYPES), name
    assert required_fields("csv", FORMS["text"]) == ("id", "subject", "text", "source")
    assert forms_of("image-text") == ("image-text",)
    assert forms_of("csv") == ("instruction", "chat", "classification", "text")
    assert "image" not in possible_fields("parquet")
    assert "prompt" not in possible_fields("image-text")


@pytest.mark.parametrize("kind", [*FILES, *FOLDERS])
def test_paths_that_lead_nowhere_or_outside(tmp_path: Path, kind: SourceFormat) -> None:
    root = tmp_path / "root"
    root.mkdir()
    outside = tmp_path / "outside"
    outside.mkdir() if kind in FOLDERS else outside.touch()
    (root / "link").symlink_to(outside)
    (root / "loop").symlink_to("loop")
    (root / "folder").mkdir()
    (root / "file").touch()
    os.mkfifo(root / "pipe")
    cases = {"no": "no such file", "link": "outside the data root", "loop": "cannot be read"}
    cases["file/below"] = "cannot be read"
    cases["pipe"] = cases["file" if kind in FOLDERS else "folder"] = "not a f"
    for path, reason in cases.items():
        source = DataSource(format=kind, path=path)
        with unavailable(reason):
            rows_of(source, root)
        with unavailable(reason):
            source_files(source, root)
        assert count_hint(source, root) is None


def test_a_link_inside_the_data_root_is_followed(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "real.jsonl", records(2))
    (tmp_path / "link.jsonl").symlink_to("real.jsonl")
    source = DataSource(format="jsonl", path="link.jsonl")
    assert len(rows_of(source, tmp_path)) == 2
    assert source_files(source, tmp_path) == (tmp_path.resolve() / "real.jsonl",)


@pytest.mark.parametrize("kind", [*FILES, *FOLDERS])
def test_what_may_not_be_read(kind: SourceFormat) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        data = root / "data"
        data.mkdir() if kind in FOLDERS else data.write_text(CANARY)
        source = DataSource(format=kind, path="data")
        with suppress(DataUnavailableError):
            rows_of(source, root)  # Loads the reader, which that user need not be able to read.
        data.chmod(0)
        with unprivileged(), unavailable("Permission denied"):
            rows_of(source, root)
        data.chmod(0o700)


def test_the_error_names_file_and_row_and_survives_pickling() -> None:
    error = DataUnavailableError("sets/a.csv", "damaged", row=7)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - made in the line above
    assert (again.file, again.reason, again.row) == ("sets/a.csv", "damaged", 7)
    assert str(again) == str(error)
    assert str(error).startswith("data set sets/a.csv, row 7: expected")
