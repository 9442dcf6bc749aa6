"""Pads: a known stream, the same in any pieces, gone from every sum and present in every file."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations, pairwise

import numpy as np
import pytest
from Crypto.Cipher import AES

from data_contracts.errors import FederationOperatorError, UntrustedInputError
from data_contracts.masking import pads
from data_contracts.masking.mask_group import mask_group
from data_contracts.masking.pads import (
    MOST_ENTRIES,
    PIECE_ENTRIES,
    Pad,
    UInt32Array,
    add_pads,
    keystream,
    pads_of,
)
from data_contracts.masking.rebuilt_seeds import RebuiltSeeds, pads_left, rebuilt_seeds
from tests.data_contracts.masking.mask_samples import (
    BINDING,
    OTHER_BINDING,
    Silos,
    names_of,
    payloads_of,
    silos_of,
)

KEY = bytes(range(32))
CHI_SQUARE_255 = 377.2
"""The 1 - 10^-6 quantile at 255 degrees of freedom: a uniform stream is above once in 10^6."""


def test_a_pad_is_the_stream_of_another_implementation_of_aes() -> None:
    for first in (0, 1, 3, 4, PIECE_ENTRIES - 3, 7 * PIECE_ENTRIES + 5, MOST_ENTRIES - 200):
        block, skipped = divmod(first, 4)
        other = AES.new(KEY, AES.MODE_CTR, nonce=b"", initial_value=block)
        other.encrypt(bytes(4 * skipped))
        expected = np.frombuffer(other.encrypt(bytes(4 * 200)), dtype="<u4")
        assert np.array_equal(keystream(KEY, first, 200), expected)


def test_the_last_entries_are_there_and_none_behind_them() -> None:
    last = keystream(KEY, MOST_ENTRIES - 20, 20)
    assert not np.array_equal(last[-16:], keystream(KEY, 0, 16))
    values = np.zeros(20, dtype="<u4")
    for call in (
        lambda: keystream(KEY, MOST_ENTRIES - 20, 21),
        lambda: keystream(KEY, -1, 1),
        lambda: add_pads(values, MOST_ENTRIES - 19, [Pad(KEY)]),
        lambda: add_pads(values, 2 * MOST_ENTRIES, [Pad(KEY)]),
    ):
        with pytest.raises(FederationOperatorError, match="for which a pad looks random"):
            call()
    assert not values.any()


def some_pads() -> tuple[Pad, ...]:
    silos = silos_of(4)
    return pads_of(silos.secrets["silo-01"], silos.group, "silo-01", silos.group.silos)


def test_pads_do_not_depend_on_pieces_order_or_threads() -> None:
    entries = 2 * PIECE_ENTRIES + 1234
    values = payloads_of(("silo-01",), entries)["silo-01"]
    whole = values.copy()
    add_pads(whole, 0, some_pads())
    rng = np.random.default_rng(3)
    for workers in (1, 4):
        cuts = sorted({0, entries, 1, 17, *rng.integers(0, entries, 12).tolist()})
        ranges = list(pairwise(cuts))
        rng.shuffle(ranges)
        found = values.copy()
        views = [(found[start:end], start, some_pads()) for start, end in ranges]
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda call: add_pads(*call), views))
        assert np.array_equal(found, whole)


def test_what_one_adds_the_other_subtracts_and_a_pad_is_its_opposites_opposite() -> None:
    first, second = (
        pads_of(silos_of(2).secrets[s], silos_of(2).group, s, names_of(2)) for s in names_of(2)
    )
    assert first[1] == second[1].opposite
    assert (first[1].is_subtracted, second[1].is_subtracted) == (False, True)
    assert first[0] != second[0]
    values = np.arange(100, dtype="<u4")
    add_pads(values, 5, [*first, *(pad.opposite for pad in first)])
    assert np.array_equal(values, np.arange(100))


def test_a_silo_has_no_pad_with_one_that_shared_nothing() -> None:
    silos = silos_of(5)
    assert len(pads_of(silos.secrets["silo-00"], silos.group, "silo-00", names_of(3))) == 3
    with pytest.raises(UntrustedInputError, match="silo-99"):
        pads_of(silos.secrets["silo-00"], silos.group, "silo-00", ("silo-99",))


def unmasked(silos: Silos, sharing: tuple[str, ...], survivors: tuple[str, ...]) -> None:
    """The whole way, and the sum held against that of the plain numbers, bit for bit."""
    plain = payloads_of(silos.group.silos, 500, seed=len(survivors))
    files = {silo: silos.masked(silo, sharing, plain[silo]) for silo in survivors}
    handed_out = [
        share
        for silo in survivors
        for share in silos.held(silo, sharing).settled(silos.group, survivors).handed_out()
    ]
    shown = {silo: silos.shown[silo] for silo in sharing}
    seeds = rebuilt_seeds(handed_out, silos.group, shown, survivors)
    total = summed(files)
    expected = summed({silo: plain[silo] for silo in survivors})
    assert not np.array_equal(total, expected)
    add_pads(total, 0, pads_left(silos.group, seeds))
    assert np.array_equal(total, expected)


def summed(files: dict[str, UInt32Array]) -> UInt32Array:
    total: UInt32Array = np.zeros(500, dtype="<u4")
    for values in files.values():
        total += values
    return total


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6])
def test_every_set_of_drop_outs_leaves_the_plain_sum_bit_for_bit(count: int) -> None:
    """Those who never shared, and those who shared and sent nothing, in every combination."""
    silos, names = silos_of(count), names_of(count)
    threshold, tried = silos.group.threshold, 0
    for sharing_count in range(threshold, count + 1):
        for sharing in combinations(names, sharing_count):
            for survivors_count in range(threshold, sharing_count + 1):
                for survivors in combinations(sharing, survivors_count):
                    unmasked(silos, sharing, survivors)
                    tried += 1
    spare = count - threshold
    assert tried == {0: 1, 1: 1 + 2 * count}[spare]


@pytest.mark.parametrize("count", [4, 6])
def test_a_lower_threshold_bears_more_drop_outs(count: int) -> None:
    """n/2 + 1 in place of the safe threshold: two at a time among six, one among four."""
    silos, names = silos_of(count, threshold=count // 2 + 1), names_of(count)
    for sharing in ((names), names[1:]):
        for survivors in combinations(sharing, silos.group.threshold):
            unmasked(silos, sharing, survivors)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6])
def test_one_drop_out_too_many_ends_in_an_error(count: int) -> None:
    silos, names = silos_of(count), names_of(count)
    survivors = names[: silos.group.threshold - 1]
    for silo in survivors:
        with pytest.raises(UntrustedInputError, match="at least"):
            silos.held(silo, names).settled(silos.group, survivors)
    # Were they to hand out what they hold all the same, it would rebuild nothing.
    larger = names[: silos.group.threshold]
    handed_out = [
        share
        for silo in survivors
        for share in silos.held(silo, names).settled(silos.group, larger).handed_out()
    ]
    with pytest.raises(FederationOperatorError, match=f"found {len(survivors)}"):
        rebuilt_seeds(handed_out, silos.group, silos.shown, larger)


@pytest.mark.parametrize(("unshared", "unsent"), [(0, 0), (0, 16), (9, 7), (16, 0), (3, 1)])
def test_fifty_silos(unshared: int, unsent: int) -> None:
    silos, names = silos_of(50), names_of(50)
    order = np.random.default_rng(unshared).permutation(50)
    sharing = tuple(sorted(names[i] for i in order[unshared:]))
    survivors = tuple(sorted(names[i] for i in order[unshared + unsent :]))
    plain = payloads_of(survivors, 300)
    total: UInt32Array = np.zeros(300, dtype="<u4")
    for silo in survivors:
        total += silos.masked(silo, sharing, plain[silo])
    secrets, gone = silos.secrets, set(sharing) - set(survivors)
    seeds = RebuiltSeeds(
        {s: secrets[s].self_seed for s in survivors}, {s: secrets[s].mask_seed for s in gone}
    )
    add_pads(total, 0, pads_left(silos.group, seeds))
    assert np.array_equal(total, np.sum(list(plain.values()), axis=0, dtype=np.uint32))


def test_a_survivor_that_shared_nothing_is_named() -> None:
    silos = silos_of(4)
    shown = {silo: silos.shown[silo] for silo in names_of(3)}
    with pytest.raises(UntrustedInputError, match="found silo-03"):
        rebuilt_seeds([], silos.group, shown, names_of(4))


def chi_square(values: UInt32Array) -> float:
    """Over the 256 values of a byte."""
    data = values.view(np.uint8)
    counts, expected = np.bincount(data, minlength=256), len(data) / 256
    return float(((counts - expected) ** 2 / expected).sum())


def small_numbers(entries: int) -> UInt32Array:
    """As a payload has them: small whole numbers around zero."""
    drawn = np.random.default_rng(5).normal(0, 1e5, entries)
    return drawn.astype(np.int32).view(np.uint32)


def test_masked_bytes_look_uniform_and_unmasked_ones_do_not() -> None:
    """Three files at a false-alarm rate of 10^-6 each; every run draws other secrets."""
    silos, plain = silos_of(3), small_numbers(200_000)
    assert chi_square(plain) > 100 * CHI_SQUARE_255
    for silo in names_of(3):
        assert chi_square(silos.masked(silo, names_of(3), plain)) < CHI_SQUARE_255


def test_one_payload_in_two_attempts_gives_two_unrelated_files() -> None:
    """With the same secrets, which no silo uses twice, and with others."""
    plain, names = small_numbers(200_000), names_of(3)
    first, second = silos_of(3), silos_of(3, OTHER_BINDING)
    own = first.secrets["silo-01"]
    again = plain.copy()
    keys = [first.secrets[s].advertised(OTHER_BINDING, s) for s in names]
    add_pads(again, 0, pads_of(own, mask_group(OTHER_BINDING, 3, keys), "silo-01", names))
    for other in (again, second.masked("silo-01", names, plain)):
        assert chi_square(first.masked("silo-01", names, plain) - other) < CHI_SQUARE_255
    same = first.masked("silo-01", names, plain) - first.masked("silo-01", names, plain)
    assert chi_square(same) > 1e6


def test_no_file_of_less_than_all_pads_is_told_from_chance() -> None:
    """What a coordinator sees that rebuilt every other silo's seeds, but not the self pad."""
    silos, plain, names = silos_of(3), small_numbers(200_000), names_of(3)
    masked = silos.masked("silo-01", names, plain)
    pads_with_others = pads_of(silos.secrets["silo-01"], silos.group, "silo-01", names)[1:]
    add_pads(masked, 0, [pad.opposite for pad in pads_with_others])
    assert chi_square(masked) < CHI_SQUARE_255


def test_memory_for_a_long_payload_is_that_of_a_piece() -> None:
    values = np.zeros(24 * PIECE_ENTRIES, dtype="<u4")
    tracemalloc.start()
    add_pads(values, 0, some_pads())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * 4 * PIECE_ENTRIES < values.nbytes / 10


def test_what_is_bound_to_an_attempt_differs_in_another() -> None:
    silos = silos_of(3)
    own = silos.secrets["silo-00"]
    keys = {pad.key for pad in pads_of(own, silos.group, "silo-00", names_of(3))}
    assert len(keys) == 3
    assert pads.self_pad(own.self_seed, OTHER_BINDING, "silo-00").key not in keys
    assert pads.self_pad(own.self_seed, BINDING, "silo-00").key in keys
    assert own.rounding_key(BINDING, "silo-00") not in keys
