"""From masked files to an adapter: the plain sum bit for bit, and what each linear rule merges."""

import tracemalloc
from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from aggregator.merge.adapter_merge import merge_adapters
from aggregator.merge.merge_inputs import LocalAdapter, MergeInputs
from aggregator.unmasking.masked_sum import MaskedSum, masked_sum
from aggregator.unmasking.unmasked_adapter import UnmaskedAdapter, write_unmasked
from data_contracts.adapters.adapter_format import Float32Array, check_adapter, open_adapter
from data_contracts.adapters.core_bases import UnmovedCores, WithBases
from data_contracts.adapters.starting_adapter import AdapterSource, InitialAdapter, tensors_of
from data_contracts.errors import FederationOperatorError, UntrustedInputError, UnusableMergeError
from data_contracts.masking.extra_numbers import ExtraNumber
from data_contracts.masking.fixed_point import FixedPoint
from data_contracts.masking.masked_file import MaskedFile, masked_header, open_masked
from data_contracts.masking.pads import PIECE_ENTRIES, UInt32Array, add_pads, keystream
from data_contracts.masking.payload import Change, Payload
from data_contracts.masking.rebuilt_seeds import RebuiltSeeds
from data_contracts.masking.silo_mask import MaskTerms, OwnPlace
from data_contracts.protocol.artifact import artifact_of_file
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget
from data_contracts.protocol.records.merge_spec import MergeRule, MergeSpec
from data_contracts.protocol.records.sent_layout import exchanged_layout, submitted_layout
from data_contracts.protocol.records.training_recipe import TrainedFactors
from silo_agent.masking.masked_adapter import write_masked
from tests.data_contracts.masking.mask_samples import BINDING, names_of, silos_of
from tests.data_contracts.whole_samples import LAYOUT, InMemory, Tensors, moved, written

COUNT = 5
SILOS, NAMES = silos_of(COUNT), names_of(COUNT)
WEIGHTS = dict(zip(NAMES, (700, 1000, 250, 999, 1), strict=True))
FACTORS = {silo: Fraction(weight, 1000) for silo, weight in WEIGHTS.items()}
POINT = FixedPoint(COUNT, Decimal("0.6"))
LONG = AdapterLayout(
    rank=8,
    alpha=16,
    seed=1,
    targets=(
        AdapterTarget(module="long.up", in_features=50_000, out_features=30_001),
        AdapterTarget(module="short.down", in_features=3, out_features=5),
    ),
)


@dataclass(frozen=True)
class Round:
    """Masked files of the survivors of one round, and what they were made from."""

    payload: Payload
    starting: AdapterSource
    locals: dict[str, Tensors]
    files: dict[str, MaskedFile]
    seeds: RebuiltSeeds

    @property
    def total(self) -> MaskedSum[Payload]:
        survivors = {file: FACTORS[silo] for silo, file in self.files.items()}
        return masked_sum(SILOS.group, self.payload, POINT, survivors, self.seeds)

    def encoded(self, silo: str) -> UInt32Array:
        """What `silo` masked, before it did."""
        own, bits_key = self.locals[silo], SILOS.secrets[silo].rounding_key(BINDING, silo)
        change = Change(self.payload, InMemory(self.payload.layout, own), self.starting, EXTRAS)
        pieces = []
        for first, values in change.pieces(POINT):
            bits = keystream(bits_key, first, len(values))
            pieces.append(POINT.encode(values, FACTORS[silo], bits)[0])
        pieces[-1][-1] = 1
        return np.concatenate(pieces)


EXTRAS = {"squared": 2.5}


def seeds_of(survivors: Iterable[str], gone: Iterable[str] = ()) -> RebuiltSeeds:
    secrets = SILOS.secrets
    return RebuiltSeeds(
        {s: secrets[s].self_seed for s in survivors}, {s: secrets[s].mask_seed for s in gone}
    )


def round_of(
    folder: Path,
    layout: AdapterLayout = LAYOUT,
    trained: TrainedFactors = "both",
    starting: AdapterSource | None = None,
    gone: tuple[str, ...] = ("silo-01",),
) -> Round:
    start = starting or InitialAdapter(layout)
    payload = Payload(layout, trained, (ExtraNumber("squared", Decimal(10)),))
    frozen = {"a": "lora_B", "b": "lora_A"}.get(trained, "no such name")
    before = tensors_of(start)
    locals_, files = {}, {}
    for number, silo in enumerate(NAMES):
        steps = moved(number, layout=layout)
        locals_[silo] = {n: before[n] if frozen in n else steps[n] for n in steps}
        if silo in gone:
            continue
        place = OwnPlace(silo, SILOS.secrets[silo], SILOS.group, NAMES)
        change = Change(payload, InMemory(layout, locals_[silo]), start, EXTRAS)
        path = folder / f"{silo}.masked"
        write_masked(path, change, place, MaskTerms(POINT, FACTORS[silo]), 1)
        files[silo] = open_masked(path, BINDING, silo, payload.entries)
    return Round(payload, start, locals_, files, seeds_of(files, gone))


@pytest.mark.parametrize(
    "layout", [LAYOUT, LAYOUT.cores, LONG], ids=["small", "cores", "two pieces"]
)
@pytest.mark.parametrize("gone", [(), ("silo-00",), ("silo-03",)])
def test_the_sum_is_that_of_what_was_masked_bit_for_bit(
    tmp_path: Path, layout: AdapterLayout, gone: tuple[str, ...]
) -> None:
    played = round_of(tmp_path, layout, gone=gone)
    total, entries = played.total, played.payload.entries
    found = np.concatenate([total.plain(at) for at in range(0, entries, PIECE_ENTRIES)])
    expected = np.zeros(entries, dtype="<u4")
    for silo in played.files:
        expected += played.encoded(silo)
    assert np.array_equal(found, expected)


def test_bytes_do_not_depend_on_threads(tmp_path: Path) -> None:
    played = round_of(tmp_path, LONG)
    done = [
        write_unmasked(tmp_path / f"{n}.out", played.total, played.starting, n) for n in (1, 2, 5)
    ]
    assert len({(d.adapter.digest, d.adapter.size) for d in done}) == 1
    assert artifact_of_file(tmp_path / "5.out") == done[0].adapter


def test_the_file_is_an_adapter_of_the_weighted_mean(tmp_path: Path) -> None:
    played = round_of(tmp_path, LONG)
    done = write_unmasked(tmp_path / "out", played.total, played.starting, 2)
    check_adapter(tmp_path / "out", LONG)
    assert_near(tensors_of(open_adapter(tmp_path / "out", LONG)), mean_of(played), played)
    # Every silo said 2.5 of it; four of them count.
    assert done.extras == pytest.approx({"squared": 2.5}, abs=10 * bound_of(played) / 0.6)
    assert isinstance(done, UnmaskedAdapter)


def mean_of(played: Round) -> Tensors:
    """Of what silos had, cut to the range as it is masked, in float64."""
    start, total = tensors_of(played.starting), sum(FACTORS[s] for s in played.files)
    return {
        name: start[name]
        + sum(
            float(FACTORS[s] / total)
            * np.clip(played.locals[s][name].astype(float) - start[name], -0.6, 0.6)
            for s in played.files
        )
        for name in start
    }


def bound_of(played: Round) -> float:
    total = sum(FACTORS[silo] for silo in played.files)
    return float(POINT.quantum) * len(played.files) / float(total)


def assert_near(found: Tensors, expected: Tensors, played: Round) -> None:
    """Within the bound of the fixed point, and the last bit of float32."""
    assert set(found) == set(expected)
    for name, values in expected.items():
        bound = bound_of(played) + np.abs(values) * 2.0**-23
        assert (np.abs(found[name] - values) <= bound).all()


RULES: tuple[tuple[MergeRule, TrainedFactors, int], ...] = (
    ("average", "both", 1),
    ("frozen_a", "b", 1),
    ("alternating", "b", 1),
    ("alternating", "a", 2),
    ("fedsvd", "b", 1),
    ("shared_a", "both", 1),
    ("fed_sb", "core", 2),
)


@pytest.mark.parametrize(("rule", "trained", "number"), RULES)
def test_a_merge_of_the_one_adapter_is_the_merge_of_all(
    tmp_path: Path, rule: MergeRule, trained: TrainedFactors, number: int
) -> None:
    layout = exchanged_layout(rule, LAYOUT)
    start: AdapterSource = InitialAdapter(layout)
    if number > 1:
        start = InMemory(layout, moved(99, layout=layout))
    sent = submitted_layout(rule, trained, LAYOUT)
    begun = UnmovedCores(start) if trained == "core" else start
    played = round_of(tmp_path, sent, trained, begun)
    write_unmasked(tmp_path / "one", played.total, begun, 2)
    one = [(tmp_path / "one", 1)]
    every = [
        (written(tmp_path / f"{silo}.plain", cut(played, silo)), WEIGHTS[silo])
        for silo in played.files
    ]
    inputs = MergeInputs(layout, MergeSpec(rule=rule, weight_cap_tokens=10**6), number, (), start)

    def opened(path: Path) -> AdapterSource:
        file = open_adapter(path, sent)
        return WithBases(start, file) if trained == "core" else file

    merged = []
    for name, files in (("of one", one), ("of all", every)):
        locals_ = tuple(
            LocalAdapter(opened(path), artifact_of_file(path).digest, weight)
            for path, weight in files
        )
        merge_adapters(replace(inputs, locals=locals_), tmp_path / name)
        merged.append(open_adapter(tmp_path / name, layout))
    for target in layout.targets:
        a, b = (product(source, target) for source in merged)
        assert np.allclose(a, b, atol=1e-6, rtol=1e-5)
        assert np.abs(b - product(start, target)).max() > 0.01


def cut(played: Round, silo: str) -> Tensors:
    """The local adapter with its changes within the range, as it is masked."""
    start = tensors_of(played.starting)
    return {
        name: (start[name] + np.clip(values - start[name], -0.6, 0.6)).astype(np.float32)
        for name, values in played.locals[silo].items()
    }


def product(source: AdapterSource, target: AdapterTarget) -> Float32Array:
    a, b = source.module(target)
    return b @ a


def test_what_is_not_trained_is_the_start_to_the_bit(tmp_path: Path) -> None:
    played = round_of(tmp_path, trained="b")
    write_unmasked(tmp_path / "out", played.total, played.starting, 1)
    found, start = tensors_of(open_adapter(tmp_path / "out", LAYOUT)), tensors_of(played.starting)
    frozen = [name for name in start if "lora_A" in name]
    assert frozen
    assert all(np.array_equal(found[name], start[name]) for name in frozen)


def test_wrong_sets_of_files_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    played = round_of(tmp_path)
    for path in tmp_path.iterdir():
        path.unlink()  # whatever were read would fail otherwise

    def refused(message: str, played: Round, point: FixedPoint = POINT, scale: int = 1) -> None:
        survivors = {file: FACTORS[silo] * scale for silo, file in played.files.items()}
        with pytest.raises(FederationOperatorError, match=message):
            masked_sum(SILOS.group, played.payload, point, survivors, played.seeds)

    fewer = {s: f for s, f in played.files.items() if s != "silo-00"}
    refused("files of silo-00, silo-02", replace(played, files=fewer))
    refused("found none", replace(played, files={}))
    few = replace(played, files=fewer, seeds=seeds_of(fewer, ("silo-00", "silo-01")))
    refused("4 to 5 files, for which the sum is protected and cannot overflow; found 3", few)
    refused("4 to 3 files", played, FixedPoint(3, Decimal(1)))
    refused("factors above 0", played, scale=0)
    refused("factors above 0", played, scale=5000)
    other = replace(played, payload=Payload(LAYOUT, "both"))
    refused(f"files of {other.payload.entries} entries", other)


def test_a_file_that_became_shorter_leaves_no_adapter(tmp_path: Path) -> None:
    played = round_of(tmp_path, LONG)
    path = played.files["silo-02"].path
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UntrustedInputError, match="masked file of silo-02"):
        write_unmasked(tmp_path / "out", played.total, played.starting, 2)
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".masked"] * 4


@pytest.mark.parametrize("gone", [(), ("silo-01",)])
def test_a_pad_that_is_left_is_found_and_leaves_no_adapter(
    tmp_path: Path, gone: tuple[str, ...]
) -> None:
    played = round_of(tmp_path, LONG, gone=gone)
    whole = played.total
    for at in range(len(whole.pads)):
        less = replace(whole, pads=(*whole.pads[:at], *whole.pads[at + 1 :]))
        with pytest.raises(UnusableMergeError, match="in which no pad is left"):
            write_unmasked(tmp_path / "out", less, played.starting, 2)
    if gone:
        # One that dropped out was forgotten, whose pads the others have in their files.
        survivors = {file: FACTORS[silo] for silo, file in played.files.items()}
        forgotten = seeds_of(played.files)
        total = masked_sum(SILOS.group, played.payload, POINT, survivors, forgotten)
        with pytest.raises(UnusableMergeError, match="ask the silos"):
            write_unmasked(tmp_path / "out", total, played.starting, 1)
    assert {path.suffix for path in tmp_path.iterdir()} == {".masked"}


def test_a_value_that_no_adapter_may_have_leaves_none(tmp_path: Path) -> None:
    start = moved(3)
    start[next(iter(start))].flat[0] = 9999.9
    played = round_of(tmp_path, starting=InMemory(LAYOUT, start))
    far = replace(POINT, largest=Decimal(50_000))
    total = replace(played.total, fixed_point=far)
    with pytest.raises(UnusableMergeError, match="sum of masked adapters at model"):
        write_unmasked(tmp_path / "out", total, played.starting, 1)
    assert not (tmp_path / "out").exists()


def test_memory_is_that_of_some_pieces_for_any_number_of_silos(tmp_path: Path) -> None:
    """Sparse files of zeros but for the last entry: as much work and memory as any others."""
    peaks = []
    for modules, silos in ((4, 4), (12, 4), (12, 5), (40, 5)):
        targets = tuple(
            AdapterTarget(module=f"m{n}", in_features=16_384, out_features=16_384)
            for n in range(modules)
        )
        layout = AdapterLayout(rank=8, alpha=16, seed=1, targets=targets)
        payload, survivors = Payload(layout, "both"), {}
        for silo in NAMES[:silos]:
            path = tmp_path / f"{modules}-{silos}-{silo}"
            header = masked_header(BINDING, silo, payload.entries)
            path.write_bytes(header)
            with path.open("r+b") as file:
                file.truncate(len(header) + 4 * payload.entries)
                last = np.ones(1, dtype="<u4")
                place = OwnPlace(silo, SILOS.secrets[silo], SILOS.group, NAMES[:silos])
                pads = place.mask(MaskTerms(POINT, Fraction(1)), payload).pads
                add_pads(last, payload.entries - 1, pads)
                file.seek(-4, 2)
                file.write(last.tobytes())
            survivors[open_masked(path, BINDING, silo, payload.entries)] = Fraction(1)
        seeds = seeds_of([file.silo for file in survivors])
        total = masked_sum(SILOS.group, payload, POINT, survivors, seeds)
        tracemalloc.start()
        write_unmasked(tmp_path / "out", total, InitialAdapter(layout), 2)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert max(peaks[1:]) < 1.2 * peaks[1]
    assert peaks[-1] < 4 * payload.entries / 2
