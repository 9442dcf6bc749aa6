"""A backup is read back as it was written, or refused with nothing left behind."""

import io
import json
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from data_contracts.errors import ConsortiaError
from data_contracts.protocol.artifact import digest_of_bytes
from infra.backup.backup_file import unpack_backup, write_backup
from infra.backup.home_restore import Home, restore_home
from infra.backup.manifest import Manifest, Owner, manifest_of
from infra.backup.sealed_file import CHUNK_BYTES, MAGIC, TAG_BYTES

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
OWNER = Owner("oncology", "north")
FILES = {"feed/feed.json": b"{}", "keys/signing-key.pem": b"secret", "STOP": b""}
PASSPHRASE = "correct horse battery"


def written(folder: Path, files: dict[str, bytes], passphrase: str | None = None) -> Path:
    """A backup of `files` in `folder`."""
    home, out = folder / "home", folder / f"backup-{len(list(folder.iterdir()))}"
    for name, data in files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(data)
    opened = [(name, (home / name).open("rb")) for name in files]
    manifest = manifest_of(OWNER, NOW, opened)
    write_backup(out, manifest, [file for _, file in opened], passphrase)
    for _, file in opened:
        file.close()
    return out


def restored(file: Path, into: Path, passphrase: str | None = None, role: Any = "silo") -> Manifest:
    """Into a new directory, without a look at what it is."""
    home = Home(into, role, None, lambda unpacked, manifest: None, {})
    return restore_home(file, home, NOW, passphrase).manifest


def require_refused(file: Path, folder: Path, found: str, passphrase: str | None = None) -> None:
    before = sorted(folder.rglob("*"))
    with pytest.raises(ConsortiaError, match=found):
        restored(file, folder / "new", passphrase)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_what_was_written_is_read_back(tmp_path: Path, passphrase: str | None) -> None:
    large = bytes(range(256)) * 1024
    file = written(tmp_path, {**FILES, "large": large}, passphrase)
    assert file.stat().st_mode & 0o777 == 0o600
    manifest = restored(file, tmp_path / "new", passphrase)
    assert manifest.silo == "north" and manifest.made_at == NOW
    for name, data in {**FILES, "large": large}.items():
        path = tmp_path / "new" / name
        assert path.read_bytes() == data and path.stat().st_mode & 0o777 == 0o600


def test_a_plain_one_is_a_tar_that_says_nothing_of_time_or_machine(tmp_path: Path) -> None:
    one, other = written(tmp_path, FILES), written(tmp_path, FILES)
    assert one.read_bytes() == other.read_bytes()
    with tarfile.open(one) as archive:
        first, *others = archive.getnames()
        assert first.startswith("manifest-") and others == list(FILES)
        assert {(m.mtime, m.uid, m.mode) for m in archive} == {(0, 0, 0o600)}


def test_nothing_is_written_over(tmp_path: Path) -> None:
    out = written(tmp_path, FILES)
    before = out.read_bytes()
    with out.open("rb") as file, pytest.raises(ConsortiaError, match="no file of that name yet"):
        write_backup(out, manifest_of(OWNER, NOW, [("a", file)]), [file], None)
    assert out.read_bytes() == before


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_a_changed_byte_anywhere_is_refused(tmp_path: Path, passphrase: str | None) -> None:
    file = written(tmp_path, {"a": b"some bytes"}, passphrase)
    whole, damaged = file.read_bytes(), tmp_path / "damaged"
    places = range(0, len(whole), 7 if passphrase is None else 311)
    for place in places:
        damaged.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        require_refused(damaged, tmp_path, "found", passphrase)


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_a_file_that_is_cut_off_or_goes_on_is_refused(
    tmp_path: Path, passphrase: str | None
) -> None:
    file = written(tmp_path, {"a": b"x" * (2 * CHUNK_BYTES)}, passphrase)
    whole, damaged = file.read_bytes(), tmp_path / "damaged"
    chunk = len(MAGIC) + 23 + CHUNK_BYTES + TAG_BYTES
    for length in (0, 5, 60, 512, 1600, chunk, chunk + 1, len(whole) - 512, len(whole) - 1):
        damaged.write_bytes(whole[:length])
        require_refused(damaged, tmp_path, "found", passphrase)
    damaged.write_bytes(whole + b"\0" * 512)
    require_refused(damaged, tmp_path, "found", passphrase)


def test_chunks_in_another_order_are_refused(tmp_path: Path) -> None:
    file = written(tmp_path, {"a": b"x" * (3 * CHUNK_BYTES)}, PASSPHRASE)
    whole, start, size = file.read_bytes(), len(MAGIC) + 23, CHUNK_BYTES + TAG_BYTES
    first, second = whole[start : start + size], whole[start + size : start + 2 * size]
    file.write_bytes(whole[:start] + second + first + whole[start + 2 * size :])
    require_refused(file, tmp_path, "changed or cut off", PASSPHRASE)


def test_the_passphrase_has_to_be_the_right_one(tmp_path: Path) -> None:
    sealed, plain = written(tmp_path, FILES, PASSPHRASE), written(tmp_path, FILES)
    assert b"secret" not in sealed.read_bytes()
    require_refused(sealed, tmp_path, "another passphrase", "another passphrase")
    require_refused(sealed, tmp_path, "an encrypted one and none")
    require_refused(plain, tmp_path, "a passphrase, and a plain file", PASSPHRASE)


def archive(file: Path, manifest: dict[str, Any], *members: tuple[tarfile.TarInfo, bytes]) -> None:
    """Somebody else's tar: any members behind any manifest."""
    text = json.dumps(manifest).encode()
    first = tarfile.TarInfo(f"manifest-{digest_of_bytes(text)}.json")
    with tarfile.open(file, "w", format=tarfile.GNU_FORMAT) as opened:
        for member, data in ((first, text), *members):
            member.mode = 0o600
            member.size = len(data) if member.isreg() else 0
            opened.addfile(member, io.BytesIO(data))


def manifest_fields(tmp_path: Path) -> dict[str, Any]:
    with tarfile.open(written(tmp_path, {"a": b"x"})) as opened:
        member = opened.extractfile(opened.getnames()[0])
        assert member is not None
        return dict(json.loads(member.read()))


def of_type(kind: bytes) -> Callable[[tarfile.TarInfo], None]:
    def change(member: tarfile.TarInfo) -> None:
        member.type, member.linkname = kind, "/etc/passwd"

    return change


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
)
def test_a_member_that_is_no_file_is_refused(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("a")
    of_type(kind)(member)
    archive(tmp_path / "bad", manifest_fields(tmp_path), (member, b""))
    require_refused(tmp_path / "bad", tmp_path, "something else in place of a")


@pytest.mark.parametrize(
    "path", ["../a", "/etc/a", "a/../../b", "./a", "a//b", "a/", "..", "a\nb", "a\0b", "."]
)
def test_a_path_out_of_the_home_is_refused(tmp_path: Path, path: str) -> None:
    fields = manifest_fields(tmp_path)
    fields["files"][0]["path"] = path
    archive(tmp_path / "bad", fields, (tarfile.TarInfo(path), b"x"))
    require_refused(tmp_path / "bad", tmp_path, "leads out of the home directory")


def test_a_path_that_is_a_file_and_a_folder_is_refused(tmp_path: Path) -> None:
    fields = manifest_fields(tmp_path)
    fields["files"] += [{**fields["files"][0], "path": "a/b"}]
    members = [(tarfile.TarInfo(name), b"x") for name in ("a", "a/b")]
    archive(tmp_path / "bad", fields, *members)
    require_refused(tmp_path / "bad", tmp_path, "a path that is there twice")


def test_a_member_that_the_manifest_does_not_name_is_refused(tmp_path: Path) -> None:
    members = [(tarfile.TarInfo(name), b"x") for name in ("a", "b")]
    archive(tmp_path / "bad", manifest_fields(tmp_path), *members)
    require_refused(tmp_path / "bad", tmp_path, "behind the last file")


@pytest.mark.parametrize("later", [{"format": 2, "more": 1}, {"program": "99.1", "more": 1}])
def test_one_of_a_later_version_names_it(tmp_path: Path, later: dict[str, Any]) -> None:
    fields = {**manifest_fields(tmp_path), **later}
    archive(tmp_path / "bad", fields, (tarfile.TarInfo("a"), b"x"))
    require_refused(tmp_path / "bad", tmp_path, f"written by version '{fields['program']}'")


def test_one_of_the_other_side_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, FILES)
    with pytest.raises(ConsortiaError, match="one of north in oncology"):
        restored(file, tmp_path / "new", role="coordinator")
    assert not (tmp_path / "new").exists()


def test_what_is_no_backup_at_all_is_refused(tmp_path: Path) -> None:
    for name, data in {"empty": b"", "text": b"hello" * 1000, "zeros": bytes(20_480)}.items():
        (tmp_path / name).write_bytes(data)
        require_refused(tmp_path / name, tmp_path, "no manifest at its beginning")


def test_unpacking_never_follows_what_lies_there(tmp_path: Path) -> None:
    file, into = written(tmp_path, {"a": b"x"}), tmp_path / "into"
    into.mkdir()
    (into / "a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="exists"):
        unpack_backup(file, "silo", into, None)
    assert not (tmp_path / "elsewhere").exists()
