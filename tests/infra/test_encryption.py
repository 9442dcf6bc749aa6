"""Identities on disk, and files that only their holders open: real age, no network."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_contracts.errors import ConsortiaError, StorageError, UntrustedInputError
from data_contracts.protocol.artifact import (
    ArtifactRef,
    artifact_of_bytes,
    artifact_of_file,
    ciphertext_limit,
)
from data_contracts.protocol.recipients import recipient_fault
from infra.command_values import recipient as typed_recipient
from infra.disk.blob_files import receive_blob
from infra.encryption.encrypted_files import encrypt_file, opener, sealed, unsealed
from infra.encryption.identities import (
    destroy_identity,
    ensure_identity,
    identity_files,
    keep_identity,
    load_identities,
    load_identity,
    new_identity,
    rotate_identity,
)

PLAIN = os.urandom(200_000)
ZERO_POINT = "age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq5cu47z"


def encrypted(directory: Path, recipients: list[str]) -> tuple[ArtifactRef, bytes]:
    """Reference and ciphertext of PLAIN."""
    source = directory / "plain"
    source.write_bytes(PLAIN)
    ref = encrypt_file(source, artifact_of_bytes(PLAIN), directory / "ciphertext", recipients)
    return ref, (directory / "ciphertext").read_bytes()


def pieces(data: bytes, size: int = 10_000) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def test_identity_is_kept_for_its_owner_alone_and_says_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "identity.txt"
    identity = ensure_identity(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert ensure_identity(path).recipient == identity.recipient == load_identity(path).recipient
    assert identity.secret not in repr(identity) + str(identity)
    assert identity.secret in path.read_text()
    with pytest.raises(ConsortiaError, match="keep the identity that is there"):
        keep_identity(path, new_identity())
    path.chmod(0o640)
    with pytest.raises(ConsortiaError, match="a file that others can read"):
        load_identity(path)


def test_earlier_identities_stay_named_by_their_public_half(tmp_path: Path) -> None:
    path = tmp_path / "identity.txt"
    first = ensure_identity(path)
    second, third = rotate_identity(path), rotate_identity(path)
    found = load_identities(path)
    assert found[0].recipient == third.recipient == load_identity(path).recipient
    assert {i.recipient for i in found} == {i.recipient for i in (first, second, third)}
    named = {each.name for each in identity_files(path)}
    assert f"identity-{first.recipient[4:20]}.txt" in named
    assert load_identities(tmp_path / "none.txt") == ()


@pytest.mark.parametrize("text", ["", "AGE-SECRET-KEY-1QQQ\n", "two\nlines\n", "# alone\n"])
def test_what_is_no_identity_is_refused_without_a_word_of_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "identity.txt"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConsortiaError, match="found something else") as caught:
        load_identity(path)
    assert "QQQ" not in str(caught.value)


def test_recipients_have_one_spelling_and_no_small_order() -> None:
    good = new_identity().recipient
    assert recipient_fault(good) is None
    assert typed_recipient(f" {good.upper()} ") == good
    wrong = good[:-1] + ("q" if good[-1] != "q" else "p")
    assert "check digits" in str(recipient_fault(wrong))
    assert recipient_fault(ZERO_POINT) == "a point of small order"


def test_every_recipient_opens_in_one_pass_and_nobody_else(tmp_path: Path) -> None:
    one, other = new_identity(), new_identity()
    ref, data = encrypted(tmp_path, [one.recipient, other.recipient])
    assert ref.plain == artifact_of_bytes(PLAIN)
    assert ref.stored == artifact_of_bytes(data)
    assert PLAIN[50_000:50_064] not in data
    for identity in (one, other):
        path = tmp_path / identity.recipient
        receive_blob(pieces(data), ref, path, opener([new_identity(), identity]))
        assert artifact_of_file(path) == ref.plain
    for identities, why in (([new_identity()], "No matching keys"), ([], "no identity here")):
        with pytest.raises(UntrustedInputError, match=why) as caught:
            receive_blob(pieces(data), ref, tmp_path / "wrong", opener(identities))
        assert caught.value.rule == "blob.unopened"
    with pytest.raises(UntrustedInputError, match="has to see that it can be opened here"):
        receive_blob(pieces(data), ref, tmp_path / "wrong")
    assert not list(tmp_path.glob("*wrong*"))


def test_what_lies_there_instead_is_never_a_file(tmp_path: Path) -> None:
    identity = new_identity()
    ref, data = encrypted(tmp_path, [identity.recipient])
    flipped = data[:90_000] + bytes([data[90_000] ^ 1]) + data[90_001:]
    for bad, rule in (
        (flipped, "blob.digest"),
        (data[:-7], "blob.size"),
        (data + b"x", "blob.size"),
    ):
        with pytest.raises(UntrustedInputError) as caught:
            receive_blob(pieces(bad), ref, tmp_path / "bad", opener([identity]))
        assert caught.value.rule == rule
    # Its writer names those very bytes: then it is age that says no.
    for bad in (flipped, data[:-7], data[:70_000], data + b"x", b"age", b""):
        named = ref.model_copy(
            update={"ciphertext": ref.ciphertext.model_copy(update=_named(bad))}  # type: ignore[union-attr]
        )
        with pytest.raises(UntrustedInputError) as caught:
            receive_blob(pieces(bad), named, tmp_path / "bad", opener([identity]))
        assert caught.value.rule == "blob.unopened", len(bad)
    for changed, rule in (({"digest": "0" * 64}, "blob.digest"), ({"size": 9}, "blob.size")):
        with pytest.raises(UntrustedInputError, match="inside") as caught:
            other = ref.model_copy(update=changed)
            receive_blob(pieces(data), other, tmp_path / "bad", opener([identity]))
        assert caught.value.rule == rule
    larger = ref.model_copy(update={"size": len(PLAIN) + 1})
    with pytest.raises(UntrustedInputError, match="200000 bytes inside"):
        receive_blob(pieces(data), larger, tmp_path / "bad", opener([identity]))
    assert not list(tmp_path.glob("*bad*"))


def test_faults_of_storage_and_disk_stay_what_they_are(tmp_path: Path) -> None:
    identity = new_identity()
    ref, data = encrypted(tmp_path, [identity.recipient])
    lost = StorageError("plans", expected="an answer", found="none", action="wait")

    def breaking(after: int) -> Iterator[bytes]:
        yield data[:after]
        raise lost

    for after in (20, 100_000):
        with pytest.raises(StorageError) as caught:
            receive_blob(breaking(after), ref, tmp_path / "cut", opener([identity]))
        assert caught.value is lost
    assert not list(tmp_path.glob("*cut*"))


def test_only_the_bytes_of_the_reference_are_encrypted(tmp_path: Path) -> None:
    source = tmp_path / "plain"
    source.write_bytes(PLAIN[:-1] + b"?")
    with pytest.raises(StorageError, match="nothing was published"):
        into = tmp_path / "ciphertext"
        encrypt_file(source, artifact_of_bytes(PLAIN), into, [new_identity().recipient])
    assert [each.name for each in tmp_path.iterdir()] == ["plain"]


def test_short_text_is_opened_by_its_holder() -> None:
    identity = new_identity()
    assert unsealed(sealed(b"text", identity.recipient), [new_identity(), identity]) == b"text"


def _named(data: bytes) -> dict[str, object]:
    ref = artifact_of_bytes(data)
    return {"digest": ref.digest, "size": ref.size}


def test_a_destroyed_identity_is_overwritten_under_every_name(tmp_path: Path) -> None:
    path, other_name = tmp_path / "identity.txt", tmp_path / "another name"
    secret = ensure_identity(path).secret.encode()
    other_name.hardlink_to(path)
    size = path.stat().st_size
    destroy_identity(path)
    assert not path.exists()
    assert other_name.stat().st_size == size and secret not in other_name.read_bytes()


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 500_000])
def test_a_ciphertext_for_one_stays_within_its_limit(tmp_path: Path, size: int) -> None:
    source = tmp_path / "plain"
    source.write_bytes(bytes(size))
    identity = new_identity()
    into = tmp_path / "ciphertext"
    ref = encrypt_file(source, artifact_of_file(source), into, [identity.recipient])
    assert size < ref.stored.size == into.stat().st_size <= ciphertext_limit(size)
    receive_blob(pieces(into.read_bytes()), ref, tmp_path / "again", opener([identity]))
    assert (tmp_path / "again").read_bytes() == bytes(size)
