"""What it costs a silo to compress its adapter, and the coordinator to gate and decode it.

One silo plays three rounds of the default rule with its real files: the first without anything
carried, the others with the error and the factors of the round before. Timed is all that
`SentAdapters` does to the trained adapter: reading and checking what was carried, reading start and
local adapter, the files written and synced, the check of what is sent, the state recorded. Then
what the coordinator does to one silo's file: the gate and, as a merge does, every module decoded.
MB/s are of float32 adapter, 67 MB, per second of a core (processor time of the process, the median
of --runs); the seconds are of the clock on the wall.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from aggregator.evidence.sources import remembered
from benchmarks.merge_clocks.samples import bench_layout
from benchmarks.peers.adapters import Adapter, adapter_megabytes, silo_adapter
from data_contracts.adapters.adapter_format import open_adapter
from data_contracts.adapters.block_quantisation import SCHEMES, Scheme
from data_contracts.adapters.quantised_format import check_quantised, open_quantised
from data_contracts.adapters.remembered_start import RememberedStart
from data_contracts.adapters.starting_adapter import AdapterSource, InitialAdapter, tensors_of
from data_contracts.adapters.submission_gate import check_submission
from data_contracts.protocol.artifact import digest_of_bytes
from infra.processes.worker_threads import default_workers
from silo_agent.compression.error_feedback import LocalRound, compress
from silo_agent.compression.residual_state import ErrorFeedback, RoundBefore
from tests.silo_agent.training.tiny_jobs import tiny_recipe

ROUNDS = 3
START, STEP, DRIFT = 1 / 64, 7e-4, 3e-4
"""Size of the values of a start, of a round's local steps, and of the change of the start."""
SILOS = 4
"""Files that the coordinator holds against one start."""

Seconds = dict[str, list[tuple[float, float]]]


def main() -> None:
    """Play the rounds --runs times; the median counts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scheme", choices=sorted(SCHEMES), default="int8")
    options = parser.parse_args()
    seconds: Seconds = {}
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        starts, locals_ = _adapters(Path(name))
        for run in range(options.runs):
            _play(Path(name) / f"{run}", SCHEMES[options.scheme], (starts, locals_), seconds)
    medians = {
        what: tuple(statistics.median(times) for times in zip(*pairs, strict=True))
        for what, pairs in seconds.items()
    }
    for what, (cpu, wall) in medians.items():
        sys.stderr.write(f"{what}: {cpu:.3f} s of processor time, {wall:.3f} s on the wall\n")
    speeds = {f"{what}_mb_per_s": adapter_megabytes() / cpu for what, (cpu, _) in medians.items()}
    walls = {f"{what}_seconds": wall for what, (_, wall) in medians.items()}
    sys.stdout.write(json.dumps(speeds | walls) + "\n")


def _adapters(directory: Path) -> tuple[list[Path | None], list[Path]]:
    """Starts and local adapters of the rounds; the first start is the one that the seed draws."""
    drawn = tensors_of(InitialAdapter(bench_layout()))
    base = {name: tensor * np.float32(START) for name, tensor in silo_adapter(0).items()}
    begun = [drawn, *(_moved(base, 1 + number, DRIFT) for number in range(1, ROUNDS))]
    starts: list[Path | None] = [None]
    locals_ = []
    for number, start in enumerate(begun):
        if number:
            starts.append(directory / f"start-{number}")
            save_file(start, directory / f"start-{number}")
        locals_.append(directory / f"local-{number}")
        save_file(_moved(start, 11 + number, STEP), locals_[-1])
    return starts, locals_


def _moved(adapter: Adapter, seed: int, size: float) -> Adapter:
    steps = silo_adapter(seed)
    return {name: tensor + np.float32(size) * steps[name] for name, tensor in adapter.items()}


def _play(
    home: Path, scheme: Scheme, adapters: tuple[list[Path | None], list[Path]], seconds: Seconds
) -> None:
    """One silo's rounds, then what the coordinator does to the last of them."""
    layout, feedback = bench_layout(), ErrorFeedback(home / "state", "bench")
    before = RoundBefore(submitted=None, merged=False)
    for number, (start, local) in enumerate(zip(*adapters, strict=True), start=1):
        source: AdapterSource = open_adapter(start, layout) if start else InitialAdapter(layout)
        starting = digest_of_bytes(b"start %d" % number) if start else None
        sent = home / f"sent-{number}"
        with _timed(seconds, {1: "first_compress", ROUNDS: "compress"}.get(number, "between")):
            held = RememberedStart(source, default_workers())
            carry, carried = feedback.open(feedback.carried_into(number, layout, starting, before))
            round_ = LocalRound(open_adapter(local, layout), held, scheme, "both")
            files = feedback.files(number, sent, is_rebasing=True)
            compressed = compress(round_, carried, files)
            check_quantised(sent, layout, scheme, held)
            feedback.keep(number, layout, starting, carry, compressed)
        before = RoundBefore(submitted=compressed.sent.digest, merged=True)
    seconds.pop("between")
    with _timed(seconds, "gate", SILOS):
        held = remembered(source)
        for _ in range(SILOS):
            check_submission(open_quantised(sent, layout, scheme, held), source, tiny_recipe())
    with _timed(seconds, "decode", SILOS):
        held = remembered(source)
        opened = [open_quantised(sent, layout, scheme, held) for _ in range(SILOS)]
        for target in layout.targets:
            for file in opened:
                file.module(target)


@contextmanager
def _timed(seconds: Seconds, what: str, times: int = 1) -> Iterator[None]:
    """Processor time of the process, and the clock on the wall, of one of `times`."""
    cpu, wall = time.process_time(), time.perf_counter()
    yield
    spent = (time.process_time() - cpu, time.perf_counter() - wall)
    seconds.setdefault(what, []).append((spent[0] / times, spent[1] / times))


if __name__ == "__main__":
    main()
