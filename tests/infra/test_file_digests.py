"""A file is read once while it looks unchanged, and refused while somebody writes it."""

import hashlib
import json
import os
import threading
from pathlib import Path

import pytest

from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.artifact import artifact_of_file
from infra.disk.file_digests import MAX_CACHE_BYTES, FileDigests


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "records.jsonl"
    path.write_bytes(b"one\ntwo\n")
    return path


def forged(cache: Path, file: Path, **changes: object) -> None:
    """Change what the cache says of `file`; only a digest that was not computed shows a hit."""
    entries = json.loads(cache.read_text())
    entries[str(file.resolve())].update({"sha256": "0" * 64, **changes})
    cache.write_text(json.dumps(entries))


def remembered(file: Path, cache: Path) -> None:
    digests = FileDigests(cache)
    digests.artifact(file)
    digests.save()


def test_the_digest_is_the_file_s(file: Path) -> None:
    artifact = FileDigests(None).artifact(file)
    assert artifact.digest == hashlib.sha256(b"one\ntwo\n").hexdigest()
    assert artifact.size == 8


def test_what_was_saved_is_not_read_again(file: Path, tmp_path: Path) -> None:
    cache = tmp_path / "state" / "digests.json"
    remembered(file, cache)
    forged(cache, file)
    assert FileDigests(cache).artifact(file).digest == "0" * 64


@pytest.mark.parametrize(
    "changes",
    [{"size": 7}, {"mtime_ns": 1}, {"size": None}, {"sha256": "0" * 63}, {"sha256": 5}],
)
def test_a_cache_entry_that_does_not_fit_the_file_is_made_anew(
    file: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    cache = tmp_path / "digests.json"
    remembered(file, cache)
    forged(cache, file, **changes)
    assert FileDigests(cache).artifact(file) == artifact_of_file(file)


def test_a_changed_file_is_read_again(file: Path) -> None:
    digests = FileDigests(None)
    before = digests.artifact(file)
    file.write_bytes(b"one\ntwo!")
    os.utime(file, ns=(1, 1))
    assert digests.artifact(file) == artifact_of_file(file)
    assert digests.artifact(file) != before


@pytest.mark.parametrize("damage", ["", "{", "[]", "[" * 100_000, '{"x": 1}', "\udcff"])
def test_a_damaged_cache_is_an_empty_one(file: Path, tmp_path: Path, damage: str) -> None:
    cache = tmp_path / "digests.json"
    cache.write_text(damage, errors="surrogateescape")
    assert FileDigests(cache).artifact(file) == artifact_of_file(file)


def test_a_cache_too_large_to_be_ours_is_not_read(file: Path, tmp_path: Path) -> None:
    cache = tmp_path / "digests.json"
    remembered(file, cache)
    forged(cache, file)
    with cache.open("ab") as grown:
        grown.truncate(MAX_CACHE_BYTES + 1)
    assert FileDigests(cache).artifact(file) == artifact_of_file(file)


def test_nothing_is_written_before_save_or_without_news(file: Path, tmp_path: Path) -> None:
    cache = tmp_path / "digests.json"
    digests = FileDigests(cache)
    digests.save()
    digests.artifact(file)
    assert not cache.exists()
    digests.save()
    os.utime(cache, ns=(1, 1))
    again = FileDigests(cache)
    again.artifact(file)
    again.save()
    assert cache.stat().st_mtime_ns == 1
    assert {path.name for path in tmp_path.iterdir()} == {cache.name, file.name}
    memory = FileDigests(None)
    memory.artifact(file)
    memory.save()
    assert {path.name for path in tmp_path.iterdir()} == {cache.name, file.name}


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    """Through a pipe, so that the change falls between opening and the last byte."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def write() -> None:
        with pipe.open("wb") as writer:
            writer.write(b"bytes")
            os.utime(pipe, ns=(1, 1))

    writing = threading.Thread(target=write)
    writing.start()
    with pytest.raises(SiloOperatorError, match="stays as it is while it is read"):
        FileDigests(None).artifact(pipe)
    writing.join()
