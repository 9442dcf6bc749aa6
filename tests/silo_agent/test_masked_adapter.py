"""The masked file of a silo: the same bytes in a retry, and none for an adapter that is no good."""

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from data_contracts.adapters.starting_adapter import InitialAdapter
from data_contracts.errors import SiloOperatorError, UntrustedInputError
from data_contracts.masking.fixed_point import FixedPoint
from data_contracts.masking.masked_file import HEADER_BYTES, masked_bytes, open_masked
from data_contracts.masking.pads import PIECE_ENTRIES, add_pads, keystream, pads_of
from data_contracts.masking.payload import Change, Payload
from data_contracts.masking.silo_mask import MaskTerms, OwnPlace
from data_contracts.protocol.artifact import artifact_of_file
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget
from silo_agent.masking.masked_adapter import MaskedAdapter, write_masked
from tests.data_contracts.masking.mask_samples import BINDING, names_of, silos_of
from tests.data_contracts.whole_samples import LAYOUT, START, InMemory, moved

SILOS, SILO = silos_of(4), "silo-02"
PLACE = OwnPlace(SILO, SILOS.secrets[SILO], SILOS.group, names_of(4))
TERMS = MaskTerms(FixedPoint(4, Decimal("0.25")), Fraction(3, 4))
LONG = AdapterLayout(
    rank=8,
    alpha=16,
    seed=1,
    targets=tuple(
        AdapterTarget(module=f"layer.{n}", in_features=16_384, out_features=16_384)
        for n in range(48)
    ),
)


def change_of(layout: AdapterLayout = LAYOUT, seed: int = 0) -> Change:
    local = InMemory(layout, moved(seed, layout=layout))
    return Change(Payload(layout, "both"), local, InitialAdapter(layout), {})


def masked(path: Path, change: Change, terms: MaskTerms = TERMS, workers: int = 2) -> MaskedAdapter:
    return write_masked(path, change, PLACE, terms, workers)


def entries_of(path: Path) -> np.ndarray:
    return np.fromfile(path, dtype="<u4", offset=HEADER_BYTES)


def test_under_its_pads_a_file_has_the_encoded_change(tmp_path: Path) -> None:
    change, path = change_of(), tmp_path / "masked"
    done = masked(path, change)
    assert done.sent == artifact_of_file(path)
    assert done.sent.size == masked_bytes(change.payload.entries)
    open_masked(path, BINDING, SILO, change.payload.entries)
    found = entries_of(path)
    add_pads(found, 0, [p.opposite for p in pads_of(PLACE.secrets, PLACE.group, SILO, names_of(4))])
    (_, values), *_ = change.pieces(TERMS.fixed_point)
    outside = int((np.abs(values) > 0.25).sum())
    bits = keystream(PLACE.secrets.rounding_key(BINDING, SILO), 0, len(values))
    expected, clipped = TERMS.fixed_point.encode(values, TERMS.factor, bits)
    assert np.array_equal(found[:-1], expected[:-1])
    assert (found[-1], expected[-1]) == (1, 0)
    assert (done.clipped, done.kept) == (clipped, 1.0) == (outside, 1.0)


def test_bytes_do_not_depend_on_threads_and_a_retry_sends_what_is_there(tmp_path: Path) -> None:
    layout = LONG.model_copy(update={"targets": LONG.targets[:2]})
    done = [masked(tmp_path / f"{n}", change_of(layout), workers=n) for n in (1, 3)]
    assert done[0] == done[1]
    # Another training with the same secrets: both together would show the difference.
    again = masked(tmp_path / "1", change_of(layout, seed=5))
    assert again == MaskedAdapter(done[0].sent)
    assert artifact_of_file(tmp_path / "1") == done[0].sent


def test_a_file_of_something_else_is_not_sent(tmp_path: Path) -> None:
    (tmp_path / "masked").write_bytes(b"half of a file")
    with pytest.raises(UntrustedInputError, match=f"masked file of {SILO}"):
        masked(tmp_path / "masked", change_of())


def test_the_norm_of_the_whole_difference_is_cut_before_single_entries_are(tmp_path: Path) -> None:
    change = change_of()
    norm = change.norm()
    half = MaskTerms(TERMS.fixed_point, TERMS.factor, Decimal(str(norm / 2)))
    done = masked(tmp_path / "half", change, half)
    assert done.kept == pytest.approx(0.5)
    (_, values), *_ = change.pieces(TERMS.fixed_point)
    assert done.clipped == int((np.abs(values) > 0.5).sum())
    loose = MaskTerms(TERMS.fixed_point, TERMS.factor, Decimal(str(norm * 2)))
    assert masked(tmp_path / "loose", change, loose).kept == 1.0


@contextmanager
def nothing_written(folder: Path) -> Iterator[None]:
    yield
    assert list(folder.iterdir()) == []


def test_an_adapter_that_is_no_good_leaves_no_file(tmp_path: Path) -> None:
    layout = LONG.model_copy(update={"targets": LONG.targets[:3]})
    local = moved(layout=layout)
    local[list(local)[-1]].flat[3] = np.nan  # in the last piece
    change = Change(Payload(layout, "both"), InMemory(layout, local), InitialAdapter(layout), {})
    with nothing_written(tmp_path), pytest.raises(SiloOperatorError, match="NaN"):
        masked(tmp_path / "masked", change)
    frozen = Change(Payload(LAYOUT, "b"), InMemory(LAYOUT, moved()), START, {})
    with nothing_written(tmp_path), pytest.raises(SiloOperatorError, match="frozen"):
        masked(tmp_path / "masked", frozen)


def test_a_silo_that_shared_nothing_masks_nothing(tmp_path: Path) -> None:
    alone = OwnPlace(SILO, PLACE.secrets, PLACE.group, ("silo-00", "silo-01", "silo-03"))
    with nothing_written(tmp_path), pytest.raises(ValueError, match=f"expected {SILO} among"):
        write_masked(tmp_path / "masked", change_of(), alone, TERMS, 1)


def test_memory_is_that_of_some_pieces_whatever_the_payload(tmp_path: Path) -> None:
    """Modules are drawn one at a time; four times as many take no more."""
    place = OwnPlace(SILO, SILOS.secrets[SILO], SILOS.group, names_of(4))
    terms, peaks = MaskTerms(FixedPoint(4, Decimal(1)), Fraction(1)), []
    for count in (3, 12, 48):  # the first one warms up
        layout = LONG.model_copy(update={"targets": LONG.targets[:count]})
        start = InitialAdapter(layout)
        change = Change(Payload(layout, "both"), start, start, {})
        tracemalloc.start()
        write_masked(tmp_path / f"{count}", change, place, terms, 2)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Two pieces at work, two that wait and one that is filled: numbers, bits, a pad and entries.
    assert max(peaks) < 5 * (8 + 4 + 4 + 4) * PIECE_ENTRIES
    assert peaks[2] < (tmp_path / "48").stat().st_size / 2
