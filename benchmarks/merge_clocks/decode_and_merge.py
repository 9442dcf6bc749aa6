"""Clock (a): from our spooled files to the merged adapter, in a process of its own.

`--unmeasured` leaves out the error against the true weighted sum, which the peers do not compute
either. The plain average is compared with the float64 mean, as the peers are. The rule `read` does
no more than read every tensor through the gate, on as many threads: nothing that starts from files
can be quicker. Prints one line of JSON.
"""

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from aggregator.merge.adapter_merge import AdapterMerge, merge_adapters, merge_on_threads
from aggregator.merge.merge_inputs import MergeInputs
from benchmarks.merge_clocks.samples import adapter_files, inputs_of
from benchmarks.peers.adapters import TOLERANCE, silo_weight
from data_contracts.adapters.adapter_format import open_adapter
from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.records.adapter_layout import AdapterTarget
from infra.processes.worker_threads import default_workers

READ = "read"
CHECKED_MODULES = (0, 77, 127)


def main() -> None:
    """Merge the files of --directory RUNS times; the median counts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--silos", type=int, required=True)
    parser.add_argument("--rule", required=True)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--unmeasured", action="store_true")
    options = parser.parse_args()
    files = adapter_files(options.directory, options.silos)
    if options.rule == READ:
        seconds = [_timed_read(inputs_of(files, "average")) for _ in range(options.runs)]
        _print(files, seconds, {})
        return
    inputs = inputs_of(files, options.rule)
    run = partial(merge_on_threads, measured=not options.unmeasured)
    seconds, merged = [], None
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        for number in range(options.runs):
            into = Path(name) / f"{number}.safetensors"
            began = time.perf_counter()
            merged = merge_adapters(inputs, into, merge_modules=run)
            seconds.append(time.perf_counter() - began)
        peak = {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
        if options.rule == "average":
            _check_average(inputs, into)
    _print(files, seconds, peak | _errors(merged))


def _print(
    files: list[tuple[Path, ArtifactRef]], seconds: list[float], others: dict[str, float]
) -> None:
    median = statistics.median(seconds)
    megabytes = sum(ref.size for _, ref in files) / 1e6
    figures = {"seconds": median, "mb_per_s": megabytes / median}
    sys.stdout.write(json.dumps(figures | others) + "\n")


def _timed_read(inputs: MergeInputs) -> float:
    """Seconds to read every tensor of every file once, checked by the gate."""
    began = time.perf_counter()
    with ThreadPoolExecutor(default_workers()) as pool:
        for _ in pool.map(partial(_read, inputs), inputs.layout.targets):
            pass
    return time.perf_counter() - began


def _read(inputs: MergeInputs, target: AdapterTarget) -> None:
    for adapter in inputs.locals:
        adapter.source.module(target)


def _check_average(inputs: MergeInputs, into: Path) -> None:
    """The mean of factors in float64, as the peers are checked."""
    merged = open_adapter(into, inputs.layout)
    weights = np.array([silo_weight(silo) for silo in range(len(inputs.locals))], dtype=np.float64)
    for index in CHECKED_MODULES:
        target = inputs.layout.targets[index]
        for position in (0, 1):
            factors = [adapter.source.module(target)[position] for adapter in inputs.locals]
            expected = np.tensordot(weights / weights.sum(), np.stack(factors), axes=1)
            worst = float(np.abs(merged.module(target)[position] - expected).max())
            if worst > TOLERANCE:
                raise SystemExit(f"average differs from the float64 mean by {worst}")


def _errors(merged: AdapterMerge | None) -> dict[str, float]:
    if merged is None or merged.exactness.error != merged.exactness.error:
        return {}
    return {"error": merged.exactness.error}


if __name__ == "__main__":
    main()
