"""Masked sums of the adapters that `make bench-merge` merges, in a process of its own.

Seconds are of one core: CPU time of the process, all threads together. Masking: from a silo's
adapter file and the seed of its start to its masked file on disk, with one thread; and, as the peer
does it, from arrays in memory to arrays in memory. Unmasking: from the survivors' masked files,
with the shares that they hand out, to the adapter file that a merge takes. Beside it the plain
average of the same adapters, from their files to the merged one, without its error. Every drop-out
shared its seeds out before. Prints one line of JSON.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np

from aggregator.merge.adapter_merge import merge_adapters, merge_on_threads
from aggregator.unmasking.masked_sum import masked_sum
from aggregator.unmasking.unmasked_adapter import write_unmasked
from benchmarks.merge_clocks.samples import adapter_files, bench_layout, inputs_of
from benchmarks.peers.adapters import ExpectedMean, silo_adapter, silo_weight
from data_contracts.adapters.adapter_format import open_adapter
from data_contracts.adapters.remembered_start import RememberedStart
from data_contracts.adapters.starting_adapter import InitialAdapter, tensors_of
from data_contracts.masking.fixed_point import FixedPoint
from data_contracts.masking.held_shares import HeldShares
from data_contracts.masking.mask_group import MaskGroup, mask_group
from data_contracts.masking.masked_file import open_masked
from data_contracts.masking.pads import UInt32Array
from data_contracts.masking.payload import Change, Payload
from data_contracts.masking.rebuilt_seeds import rebuilt_seeds
from data_contracts.masking.shares import Share, ShareCommitments, share_out
from data_contracts.masking.silo_mask import MaskTerms, OwnPlace
from data_contracts.masking.silo_secrets import SiloSecrets
from infra.processes.worker_threads import default_workers
from silo_agent.masking.masked_adapter import write_masked

BINDING = b"bench"
LARGEST = Decimal(8)
"""As Flower's default: the values are standard normal."""
RUNS = 3


@dataclass(frozen=True)
class Federation:
    """Silos with secrets that they shared out, and what each holds."""

    group: MaskGroup
    secrets: dict[str, SiloSecrets]
    shown: dict[str, ShareCommitments]
    held: dict[str, HeldShares]
    payload: Payload
    point: FixedPoint

    def factor(self, silo: str) -> Fraction:
        """As the peers weight the silos, over the greatest."""
        weights = [silo_weight(number) for number in range(len(self.group.silos))]
        return Fraction(weights[self.group.place_of(silo) - 1], max(weights))


def main() -> None:
    """Mask once for each silo, then unmask with each number of drop-outs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--silos", type=int, required=True)
    parser.add_argument("--threshold", type=int, required=True)
    parser.add_argument("--dropped", type=int, nargs="*", default=[])
    options = parser.parse_args()
    adapters = [path for path, _ in adapter_files(options.directory, options.silos)]
    silos = federation(options.silos, options.threshold)
    with tempfile.TemporaryDirectory(dir=options.directory.parent) as name:
        folder = Path(name)
        seconds = [
            _timed(partial(mask, silos, silo, adapter, folder / silo))[0]
            for silo, adapter in zip(silos.group.silos, adapters, strict=True)
        ]
        figures = {
            "mask_seconds": statistics.median(seconds),
            "mask_arrays_seconds": statistics.median(
                _timed(in_memory(silos, silo, adapter))[0]
                for silo, adapter in zip(silos.group.silos, adapters, strict=True)
            ),
            "bytes_per_silo": (folder / silos.group.silos[0]).stat().st_size,
        }
        for dropped in (0, *options.dropped):
            survivors = silos.group.silos[: options.silos - dropped]
            timed = [_timed(partial(unmask, silos, survivors, folder)) for _ in range(RUNS)]
            for what, values in zip(("", "wall_"), zip(*timed, strict=True), strict=True):
                figures[f"unmask_{what}seconds_dropped_{dropped}"] = statistics.median(values)
            check(folder / "sum", len(survivors))
        inputs = inputs_of(adapter_files(options.directory, options.silos), "average")
        plain = partial(merge_on_threads, measured=False)
        timed = [
            _timed(partial(merge_adapters, inputs, folder / f"plain-{n}", merge_modules=plain))
            for n in range(RUNS)
        ]
        for what, values in zip(("", "wall_"), zip(*timed, strict=True), strict=True):
            figures[f"plain_average_{what}seconds"] = statistics.median(values)
    sys.stdout.write(json.dumps(figures) + "\n")


def federation(count: int, threshold: int) -> Federation:
    """Secrets, keys and shares of all silos."""
    names = [f"silo-{number:02d}" for number in range(count)]
    secrets = {silo: SiloSecrets.drawn() for silo in names}
    group = mask_group(BINDING, threshold, [secrets[s].advertised(BINDING, s) for s in names])
    shared = {silo: share_out(secrets[silo], group, silo) for silo in names}
    held = {
        holder: HeldShares.of(holder, [pairs[holder] for pairs, _ in shared.values()])
        for holder in names
    }
    shown = {silo: commitments for silo, (_, commitments) in shared.items()}
    payload = Payload(bench_layout(), "both")
    return Federation(group, secrets, shown, held, payload, FixedPoint(count, LARGEST))


def mask(silos: Federation, silo: str, adapter: Path, into: Path) -> None:
    """One silo's part, on one thread."""
    layout = silos.payload.layout
    change = Change(silos.payload, open_adapter(adapter, layout), InitialAdapter(layout), {})
    place = OwnPlace(silo, silos.secrets[silo], silos.group, silos.group.silos)
    write_masked(into, change, place, MaskTerms(silos.point, silos.factor(silo)), 1)


def in_memory(silos: Federation, silo: str, adapter: Path) -> Callable[[], object]:
    """The same, of arrays that are in memory before it begins, as its masked arrays are then."""
    layout = silos.payload.layout
    every = len(layout.targets)
    local = RememberedStart(open_adapter(adapter, layout), every)
    start = RememberedStart(InitialAdapter(layout), every)
    for source in (local, start):
        for target in layout.targets:
            source.module(target)

    def masked() -> list[UInt32Array]:
        place = OwnPlace(silo, silos.secrets[silo], silos.group, silos.group.silos)
        own = place.mask(MaskTerms(silos.point, silos.factor(silo)), silos.payload)
        pieces = Change(silos.payload, local, start, {}).pieces(silos.point)
        return [own.masked(*piece)[0] for piece in pieces]

    return masked


def unmask(silos: Federation, survivors: tuple[str, ...], folder: Path) -> None:
    """The coordinator's part: gate, seeds, sum, adapter."""
    shares = _handed_out(silos, survivors)
    count = silos.payload.entries
    files = {
        open_masked(folder / silo, BINDING, silo, count): silos.factor(silo) for silo in survivors
    }
    seeds = rebuilt_seeds(shares, silos.group, silos.shown, survivors)
    total = masked_sum(silos.group, silos.payload, silos.point, files, seeds)
    start = InitialAdapter(silos.payload.layout)
    write_unmasked(folder / "sum", total, start, default_workers())


def _handed_out(silos: Federation, survivors: tuple[str, ...]) -> list[Share]:
    return [
        share
        for silo in survivors
        for share in silos.held[silo].settled(silos.group, survivors).handed_out()
    ]


def check(adapter: Path, survivors: int) -> None:
    """Against the float64 mean of the survivors' values, as the peers are checked."""
    expected = ExpectedMean()
    for silo in range(survivors):
        expected.add(silo, silo_adapter(silo))
    found = tensors_of(open_adapter(adapter, bench_layout()))
    # Names of the peers' tensors are those of the layout.
    expected.check({name: np.asarray(values) for name, values in found.items()})


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """CPU seconds and seconds by the clock."""
    began, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - began, time.perf_counter() - wall


if __name__ == "__main__":
    main()
