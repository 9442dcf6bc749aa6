"""A registry is handed out only as it was signed, and its manifest says nothing but counts."""

import json
import random
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from data_contracts.dataset.copyright.block_bloom import own_error_rate
from data_contracts.dataset.copyright.registry_builder import RegistryFiles, RegistryTerms
from data_contracts.errors import DataStewardError, UntrustedInputError
from data_contracts.protocol.artifact import artifact_of_bytes, artifact_of_file
from data_contracts.protocol.envelope import seal
from data_contracts.protocol.payload import canonical_bytes
from data_contracts.protocol.records.copyright_registry import CopyrightRegistry
from tests.data_contracts.dataset.copyright.samples import (
    KEY,
    NOW,
    OTHER_SIGNER,
    SIGNER,
    TERMS,
    build,
    load,
    salad,
)


def works(count: int = 40, length: int = 500) -> list[str]:
    rng = random.Random(11)
    return [" ".join(salad(rng, length)) for _ in range(count)]


@pytest.fixture
def files(tmp_path: Path) -> RegistryFiles:
    return build(tmp_path, [*works(), "too short to protect", ""])


def resigned(files: RegistryFiles, **changes: object) -> None:
    """Replace the manifest by one that the rights holder signed with `changes`."""
    manifest = CopyrightRegistry(**{**dict(files.manifest.record), **changes})
    files.manifest_path.write_bytes(seal(manifest, SIGNER).envelope)


def test_what_was_built_is_loaded(files: RegistryFiles) -> None:
    registry = load(files)
    assert registry.manifest == files.manifest.record
    assert registry.digest == files.manifest.digest
    assert files.filter_path.name == "publisher.2026.bloom"
    assert files.manifest_path.name == "publisher.2026.manifest.json"


def test_the_manifest_counts(files: RegistryFiles) -> None:
    manifest = files.manifest.record
    assert (manifest.texts, manifest.texts_without_tile) == (42, 2)
    assert manifest.tiles == 40 * (500 // 13)
    assert (manifest.words_per_tile, manifest.stride) == (13, 13)
    assert manifest.filter == artifact_of_file(files.filter_path)
    assert manifest.filter_bits == 8 * manifest.filter.size
    assert 30 < manifest.filter_bits / manifest.tiles < 50
    assert manifest.error_rate <= TERMS.error_rate
    assert float(manifest.error_rate) >= own_error_rate(load(files).bloom)


def test_repeated_tiles_count_once(tmp_path: Path) -> None:
    text = works(1)[0]
    assert build(tmp_path, [text, text.upper()]).manifest.record.tiles == 500 // 13


def test_the_manifest_names_no_word_and_not_the_key(files: RegistryFiles) -> None:
    payload = canonical_bytes(files.manifest.record)
    assert set(json.loads(payload)) == {
        *("version", "federation", "issued_at", "expires_at", "name", "rights_holder"),
        *("words_per_tile", "stride", "normaliser", "hash_scheme", "texts", "texts_without_tile"),
        *("tiles", "filter_bits", "error_rate", "key_id", "filter"),
    }
    assert KEY not in payload
    assert KEY.hex().encode() not in payload


def test_two_corpora_of_the_same_size_have_manifests_that_differ_in_digest_and_rate_only(
    tmp_path: Path,
) -> None:
    one = build(tmp_path / "a", works()).manifest.record.model_dump(mode="json")
    rest = [text[::-1] for text in works()]
    other = build(tmp_path / "b", rest).manifest.record.model_dump(mode="json")
    assert {name for name in one if one[name] != other[name]} <= {"filter", "error_rate"}
    assert one["filter"]["size"] == other["filter"]["size"]


def test_texts_are_taken_one_by_one(tmp_path: Path) -> None:
    def stream() -> Iterator[str]:
        for number in range(300):
            yield " ".join(f"{number}n{word}" for word in range(1300))

    streamed = build(tmp_path / "a", stream())
    listed = build(tmp_path / "b", list(stream()))
    assert streamed.manifest.record == listed.manifest.record
    assert streamed.manifest.record.tiles == 300 * 100


def test_the_order_of_the_texts_leaves_no_trace(tmp_path: Path) -> None:
    one, other = build(tmp_path / "a", works()), build(tmp_path / "b", works()[::-1])
    assert one.filter_path.read_bytes() == other.filter_path.read_bytes()


def test_a_registry_is_never_overwritten(files: RegistryFiles) -> None:
    before = files.filter_path.read_bytes()
    with pytest.raises(DataStewardError, match="expected no manifest yet; found one"):
        build(files.filter_path.parent, works(2))
    assert files.filter_path.read_bytes() == before


def test_short_texts_alone_make_no_registry(tmp_path: Path) -> None:
    with pytest.raises(DataStewardError, match="expected a text of 13 words; found 2 shorter"):
        build(tmp_path, ["a b c", ""])
    assert list(tmp_path.iterdir()) == []


def test_one_tile_is_enough(tmp_path: Path) -> None:
    files = build(tmp_path, [" ".join(salad(random.Random(1), 13))])
    assert load(files).manifest.tiles == 1


@pytest.mark.parametrize("error_rate", ["0.0001", "0.00001", "0.000000001"])
def test_the_rate_that_was_asked_for_is_kept(tmp_path: Path, error_rate: str) -> None:
    terms = TERMS.model_copy(update={"error_rate": Decimal(error_rate)})
    files = build(tmp_path, works(), terms)
    assert load(files).manifest.error_rate <= Decimal(error_rate)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"error_rate": Decimal("0.1")}, "error_rate must be"),
        ({"error_rate": Decimal("0")}, "error_rate must be"),
        ({"expires_at": NOW}, "expires_at must be later"),
        ({"name": "../../etc"}, "String should match pattern"),
    ],
)
def test_unusable_terms_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RegistryTerms(**{**dict(TERMS), **changes})


def test_a_full_disk_or_no_directory_is_an_error_with_an_action(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataStewardError, match="expected a writable disk"):
        build(tmp_path / "file", works(1))


@pytest.mark.parametrize("place", [0, 500, -1])
def test_a_tampered_filter_is_refused(files: RegistryFiles, place: int) -> None:
    data = bytearray(files.filter_path.read_bytes())
    data[place] ^= 1
    files.filter_path.write_bytes(data)
    with pytest.raises(UntrustedInputError, match=r"expected SHA-256 .*fetch the filter") as caught:
        load(files)
    assert caught.value.rule == "registry.filter_digest"


@pytest.mark.parametrize(("cut", "more"), [(0, b"x"), (1, b""), (64, b"")])
def test_a_filter_of_another_size_is_refused(files: RegistryFiles, cut: int, more: bytes) -> None:
    data = files.filter_path.read_bytes()
    files.filter_path.write_bytes(data[: len(data) - cut] + more)
    with pytest.raises(UntrustedInputError, match=rf"expected {len(data)} bytes") as caught:
        load(files)
    assert caught.value.rule == "registry.filter_size"


def test_a_tampered_manifest_is_refused(files: RegistryFiles) -> None:
    envelope = files.manifest_path.read_bytes()
    forged = files.manifest.record.model_copy(update={"tiles": 1})
    swapped = json.loads(seal(forged, OTHER_SIGNER).envelope)["payload"]
    original = json.loads(envelope)["payload"]
    files.manifest_path.write_bytes(envelope.replace(original.encode(), swapped.encode()))
    with pytest.raises(UntrustedInputError, match="valid signature") as caught:
        load(files)
    assert caught.value.rule == "envelope.signature"


def test_a_manifest_by_another_signer_is_refused(files: RegistryFiles) -> None:
    with pytest.raises(UntrustedInputError, match="signature of copyright-registry"):
        load(files, signer=OTHER_SIGNER)


def test_an_oversized_manifest_is_refused(files: RegistryFiles) -> None:
    files.manifest_path.write_bytes(b" " * (512 * 1024 + 1))
    with pytest.raises(UntrustedInputError) as caught:
        load(files)
    assert caught.value.rule == "envelope.size"


def test_another_key_is_refused(files: RegistryFiles) -> None:
    with pytest.raises(
        DataStewardError, match=r"expected key id .*ask the rights holder"
    ) as caught:
        load(files, key=b"other" * 8)
    assert "other" not in str(caught.value)


def test_an_expired_registry_is_refused(files: RegistryFiles) -> None:
    assert load(files, now=TERMS.expires_at - timedelta(seconds=1)).manifest.tiles > 0
    with pytest.raises(DataStewardError, match="found one that expired at 2026-05-31"):
        load(files, now=TERMS.expires_at)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normaliser": "nfkc-casefold-words-0"}, "normaliser .* expected nfkc-casefold-words-1"),
        ({"hash_scheme": "md5"}, "hash scheme .* expected multilinear64-siphash24-1; found md5"),
        ({"words_per_tile": 8}, "words per tile .* expected 13; found 8"),
        ({"stride": 1}, "stride .* expected 13; found 1"),
    ],
)
def test_a_registry_of_another_version_is_refused(
    files: RegistryFiles, changes: dict[str, object], message: str
) -> None:
    resigned(files, **changes)
    with pytest.raises(DataStewardError, match=message):
        load(files)


def test_a_filter_that_finds_everything_is_refused(files: RegistryFiles) -> None:
    full = np.full(files.manifest.record.filter_bits // 64, 2**64 - 1, dtype="<u8").tobytes()
    files.filter_path.write_bytes(full)
    resigned(files, filter=artifact_of_bytes(full))
    with pytest.raises(UntrustedInputError, match=r"found 1\.0000") as caught:
        load(files)
    assert caught.value.rule == "registry.error_rate"
    resigned(files, filter=artifact_of_bytes(full), error_rate=Decimal("1"))
    with pytest.raises(UntrustedInputError, match=r"at most 0\.0001;"):
        load(files)


@pytest.mark.parametrize("bits", [512, 8 * 64 * 16 + 8])
def test_bits_that_are_not_those_of_the_file_are_refused(files: RegistryFiles, bits: int) -> None:
    resigned(files, filter_bits=bits)
    with pytest.raises(UntrustedInputError) as caught:
        load(files)
    assert caught.value.rule == "registry.filter_bits"


def test_a_huge_size_in_the_manifest_costs_nothing(files: RegistryFiles) -> None:
    digest = files.manifest.record.filter.digest
    resigned(files, filter={"digest": digest, "size": 2**53 - 1})
    with pytest.raises(UntrustedInputError, match=f"expected {2**53 - 1} bytes"):
        load(files)


@pytest.mark.parametrize("missing", ["manifest_path", "filter_path"])
def test_a_missing_file_is_an_error_with_an_action(files: RegistryFiles, missing: str) -> None:
    path: Path = getattr(files, missing)
    path.unlink()
    with pytest.raises(DataStewardError, match=r"No such file.*copy manifest and filter"):
        load(files)
