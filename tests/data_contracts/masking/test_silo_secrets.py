"""Secrets of an attempt: drawn, kept in one value, and what follows from them for one purpose."""

import itertools
from collections.abc import Callable
from itertools import combinations
from typing import get_args

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from data_contracts.errors import FederationOperatorError, SiloOperatorError, UntrustedInputError
from data_contracts.masking.derivation import (
    Purpose,
    commitment,
    derived_key,
    described,
    exchanged,
    public_bytes,
)
from data_contracts.masking.mask_group import mask_group
from data_contracts.masking.silo_secrets import AdvertisedKeys, SiloSecrets, mask_key
from data_contracts.protocol.records.masking_terms import MOST_MASKED_SILOS, least_threshold
from tests.data_contracts.masking.mask_samples import BINDING, OTHER_BINDING, names_of, silos_of

SMALL_ORDER = tuple(
    bytes.fromhex(key)
    for key in (
        "00" * 32,
        "01" + "00" * 31,
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
)
"""Every key of small order, in each of its spellings (RFC 7748; Bernstein's list)."""


def test_secrets_are_kept_and_read_as_they_were() -> None:
    secrets = SiloSecrets.drawn()
    assert SiloSecrets.from_bytes(secrets.to_bytes()) == secrets
    assert (len(secrets.mask_seed), len(secrets.self_seed), len(secrets.sealing_key)) == (
        16,
        16,
        32,
    )


def test_no_two_draws_are_alike_and_none_is_shown() -> None:
    first, second = SiloSecrets.drawn(), SiloSecrets.drawn()
    assert not {first.mask_seed, first.self_seed} & {second.mask_seed, second.self_seed}
    assert first.sealing_key != second.sealing_key
    for secret in (first.mask_seed, first.self_seed, first.sealing_key):
        assert repr(secret)[2:-1] not in repr(first)


@pytest.mark.parametrize("change", [lambda raw: raw[:-1], lambda raw: raw + b"x", lambda raw: b""])
def test_a_file_that_is_another_is_said(change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(SiloOperatorError, match="leaves this attempt") as told:
        SiloSecrets.from_bytes(change(SiloSecrets.drawn().to_bytes()))
    assert "secrets of a confidential round: expected a file of" in str(told.value)


def test_a_key_follows_from_its_seed_its_silo_and_its_attempt() -> None:
    seed = bytes(16)
    key = public_bytes(mask_key(seed, BINDING, "silo-00"))
    assert public_bytes(mask_key(seed, BINDING, "silo-00")) == key
    others = [
        mask_key(b"\x01" + seed[1:], BINDING, "silo-00"),
        mask_key(seed, OTHER_BINDING, "silo-00"),
        mask_key(seed, BINDING, "silo-01"),
    ]
    assert key not in {public_bytes(other) for other in others}


def test_what_is_derived_differs_with_purpose_binding_and_every_cut_of_the_fields() -> None:
    told = [
        described("share", BINDING, b"ab", b"c"),
        described("share", BINDING, b"a", b"bc"),
        described("share", BINDING, b"abc"),
        described("share", BINDING, b"abc", b""),
        described("sealing", BINDING, b"ab", b"c"),
        described("share", OTHER_BINDING, b"ab", b"c"),
    ]
    assert len(set(told)) == len(told)
    keys = [derived_key(bytes(16), purpose, BINDING) for purpose in get_args(Purpose)]
    assert len(set(keys)) == len(keys)
    assert commitment("share", BINDING, b"x") != commitment("self seed", BINDING, b"x")


def test_a_binding_may_be_long() -> None:
    assert derived_key(bytes(16), "self pad", b"x" * 5000) != derived_key(
        bytes(16), "self pad", b"x" * 5001
    )


def in_a_second_spelling(key: bytes) -> bytes:
    """The highest bit counts for nothing (RFC 7748, section 5)."""
    return key[:31] + bytes([key[31] | 0x80])


OTHER = public_bytes(X25519PrivateKey.generate())


@pytest.mark.parametrize(
    "key",
    [*SMALL_ORDER, b"", OTHER[:31], OTHER + b"\0", in_a_second_spelling(OTHER)],
    ids=itertools.count(),
)
def test_a_key_of_small_order_or_another_length_is_refused_by_name(key: bytes) -> None:
    with pytest.raises(UntrustedInputError, match="public key of silo-07") as told:
        exchanged(X25519PrivateKey.generate(), key, "silo-07")
    assert told.value.rule == "masking.bad_key"


@pytest.mark.parametrize("which", ["mask_key", "sealing_key"])
@pytest.mark.parametrize("key", SMALL_ORDER, ids=itertools.count())
def test_nobody_forms_a_group_with_such_a_key(which: str, key: bytes) -> None:
    keys = list(silos_of(3).group.members)
    both = {"mask_key": keys[1].mask_key, "sealing_key": keys[1].sealing_key, which: key}
    keys[1] = AdvertisedKeys(keys[1].silo, **both)
    with pytest.raises(UntrustedInputError, match="public key of silo-01"):
        mask_group(BINDING, 3, keys)


def test_a_group_is_in_the_order_of_ids_and_knows_its_own_only() -> None:
    group = silos_of(4).group
    assert group.silos == names_of(4)
    assert [group.place_of(silo) for silo in group.silos] == [1, 2, 3, 4]
    with pytest.raises(UntrustedInputError, match=r"found silo-77") as told:
        group.keys_of("silo-77")
    assert told.value.rule == "masking.no_member"


def test_a_key_that_two_have_is_refused() -> None:
    first, second, third = silos_of(3).group.members
    for stolen in (first.mask_key, first.sealing_key):
        for keys in (
            AdvertisedKeys("silo-01", stolen, second.sealing_key),
            AdvertisedKeys("silo-01", second.mask_key, stolen),
        ):
            with pytest.raises(UntrustedInputError, match="one key twice") as told:
                mask_group(BINDING, 3, [first, keys, third])
            assert told.value.rule == "masking.same_key"
    with pytest.raises(UntrustedInputError, match="each silo once"):
        mask_group(
            BINDING, 3, [first, AdvertisedKeys("silo-00", second.mask_key, bytes(32)), third]
        )


@pytest.mark.parametrize(("count", "threshold"), [(3, 1), (4, 2), (4, 5), (5, 0), (6, 3)])
def test_a_threshold_that_protects_nobody_is_refused(count: int, threshold: int) -> None:
    with pytest.raises(FederationOperatorError, match="threshold above half"):
        mask_group(BINDING, threshold, silos_of(count).group.members)


@pytest.mark.parametrize("count", [0, 1, MOST_MASKED_SILOS + 1])
def test_a_group_that_is_too_small_or_too_large_is_refused(count: int) -> None:
    secrets = [SiloSecrets.drawn() for _ in range(count)]
    keys = [own.advertised(BINDING, f"silo-{n:02d}") for n, own in enumerate(secrets)]
    with pytest.raises(FederationOperatorError, match=f"2 to 50 silos.*found {count} with keys"):
        mask_group(BINDING, count, keys)


@pytest.mark.parametrize("count", range(2, MOST_MASKED_SILOS + 1))
def test_two_sets_at_the_least_threshold_share_more_than_a_third(count: int) -> None:
    threshold = least_threshold(count)
    assert count // 2 < threshold <= count
    common = 2 * threshold - count
    assert 3 * common > count
    if count <= 6:
        sets = [set(chosen) for chosen in combinations(range(count), threshold)]
        assert min(len(a & b) for a in sets for b in sets) >= common
