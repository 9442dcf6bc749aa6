"""Files that are absent or complete, and files that get a second name."""

from pathlib import Path

import pytest

from data_contracts.errors import ConsortiaError
from infra.disk.durable_files import aside, keep_durably, private_file, write_durably


def test_a_kept_file_is_the_same_file_and_outlives_the_first_name(tmp_path: Path) -> None:
    source, kept = tmp_path / "work" / "adapter", tmp_path / "outbox" / "blob"
    write_durably(source, b"trained")
    keep_durably(source, kept)
    assert kept.samefile(source)
    write_durably(source, b"trained again")
    assert kept.read_bytes() == b"trained"
    source.unlink()
    assert kept.read_bytes() == b"trained"


def test_keeping_twice_leaves_nothing_beside(tmp_path: Path) -> None:
    source, kept = tmp_path / "adapter", tmp_path / "outbox" / "blob"
    write_durably(source, b"trained")
    keep_durably(source, kept)
    keep_durably(source, kept)
    write_durably(source, b"another")
    keep_durably(source, kept)
    assert kept.read_bytes() == b"another"
    assert [path.name for path in kept.parent.iterdir()] == ["blob"]


def test_across_file_systems_the_file_is_copied(tmp_path: Path) -> None:
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system")
    source = elsewhere / f"{tmp_path.name}-adapter"
    source.write_bytes(b"trained")
    try:
        keep_durably(source, tmp_path / "blob")
    finally:
        source.unlink()
    assert (tmp_path / "blob").read_bytes() == b"trained"
    assert (tmp_path / "blob").stat().st_mode & 0o777 == 0o600


def test_a_place_that_cannot_be_written_says_how_much_room_is_needed(tmp_path: Path) -> None:
    source = tmp_path / "adapter"
    write_durably(source, b"trained")
    with pytest.raises(ConsortiaError, match="expected a writable disk with 7 free bytes"):
        keep_durably(source, source / "below-a-file" / "blob")
    assert source.read_bytes() == b"trained"


def test_a_private_file_is_its_owner_s_alone_and_never_written_over(tmp_path: Path) -> None:
    with private_file(tmp_path / "key") as file:
        file.write(b"secret")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError), private_file(tmp_path / "key") as file:
        file.write(b"another")
    assert (tmp_path / "key").read_bytes() == b"secret"


@pytest.mark.parametrize("is_synced", [True, False])
def test_what_fails_aside_leaves_the_place_as_it_was(tmp_path: Path, is_synced: bool) -> None:
    place = tmp_path / "file"
    write_durably(place, b"before")
    with (
        pytest.raises(ConsortiaError, match="expected a writable disk with 5 free bytes"),
        aside(place, 5, is_synced=is_synced) as temporary,
    ):
        temporary.write_bytes(b"half")
        raise OSError("no space left on device")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert place.read_bytes() == b"before"
