"""Seconds of one merge on threads and on a local Dask cluster, and whether the bytes agree.

16 silos of the 17-million-parameter adapter of the merge benchmark, default rule, two workers each
way. On Dask the time is given twice: with starting the processes, Prefect's flow run and closing,
and from the first slice to the last, which is what a cluster that is already there costs.
"""

import json
import os
import platform
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from rich.console import Console

from aggregator.merge.adapter_merge import ModuleMerger, merge_adapters, merge_on_threads
from aggregator.merge.merge_inputs import MergeInputs
from benchmarks.merge_clocks.samples import adapter_files, inputs_of
from infra.stack.local_stack import ensure_auth_string, start_prefect_server

SILOS, WORKERS = 16, 2
OUTPUT = Path(".consortia/bench/dask_merge.json")


def measure(inputs: MergeInputs, into: Path, merger: ModuleMerger) -> dict[str, float | str]:
    """Merge once; seconds in all, seconds from the first module to the last, digest."""
    moments: list[float] = []
    began = time.perf_counter()
    merged = merge_adapters(
        inputs, into, None, lambda done, total: moments.append(time.perf_counter()), merger
    )
    return {
        "seconds": round(time.perf_counter() - began, 2),
        "first_to_last_module": round(moments[-1] - moments[0], 2),
        "digest": merged.adapter.digest,
    }


def measure_both(silos: int) -> dict[str, dict[str, float | str]]:
    """Threads, then Dask; Prefect reads its settings on import, so it is imported last."""
    from flows.round.distributed_merge import merge_on_dask

    mergers: dict[str, ModuleMerger] = {
        "threads": partial(merge_on_threads, workers=WORKERS),
        "dask": merge_on_dask(workers=WORKERS),
    }
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        files = adapter_files(directory, silos)
        inputs = inputs_of(files, "stack_truncate")
        return {kind: measure(inputs, directory / kind, mergers[kind]) for kind in mergers}


def main() -> None:
    """Print a line for threads and one for Dask, and write the JSON file."""
    console = Console()
    silos = int(sys.argv[1]) if len(sys.argv) > 1 else SILOS
    console.print(f"{silos} silos, {WORKERS} workers, {platform.machine()}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as name:
        state = Path(name)
        server = start_prefect_server(state, 0, ensure_auth_string(state / "prefect-auth"))
        os.environ.update(server.env)
        try:
            results = measure_both(silos)
        finally:
            server.stop()
    for kind, result in results.items():
        console.print(
            f"{kind}: {result['seconds']} s, {result['first_to_last_module']} s from the first "
            f"module to the last, {result['digest']}"
        )
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(results, indent=1) + "\n")
    console.print(f"written {OUTPUT}")


if __name__ == "__main__":
    main()
