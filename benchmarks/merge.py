"""Seconds, megabytes per second and peak memory of the merge, by number of silos.

The adapters have the shape of a rank-16 LoRA on 32 layers of 4096 x 4096 (4 modules a layer, 256
tensors, 17 million parameters); their values are random. Each number of silos runs in a process of
its own, so that peak memory is its own. The median of three runs is reported.
"""

import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from safetensors.numpy import save_file

from aggregator.merge.adapter_merge import merge_adapters
from data_contracts.adapter_format import expected_shapes, open_adapter
from data_contracts.records.round_plan import AdapterSpec, AdapterTarget

SILOS = (4, 16)
RUNS = 3
RANK, WIDTH, LAYERS, MODULES = 16, 4096, 32, 4
OUTPUT = Path(".consortia/bench/merge.json")


def bench_spec() -> AdapterSpec:
    """128 modules of 4096 x 4096 at rank 16."""
    targets = tuple(
        AdapterTarget(module=f"layers.{layer}.m{module}", in_features=WIDTH, out_features=WIDTH)
        for layer in range(LAYERS)
        for module in range(MODULES)
    )
    return AdapterSpec(rank=RANK, alpha=2 * RANK, seed=1, targets=targets)


def measure(silos: int) -> dict[str, float]:
    """Merge `silos` random adapters RUNS times in this process."""
    spec = bench_spec()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        paths = [_write_adapter(directory / f"{n}.safetensors", spec, n) for n in range(silos)]
        seconds = []
        for _ in range(RUNS):
            adapters = [(open_adapter(path, spec), 1000 + n) for n, path in enumerate(paths)]
            began = time.perf_counter()
            merge_adapters(adapters, None, spec, directory / "merged.safetensors")
            seconds.append(time.perf_counter() - began)
        megabytes = sum(path.stat().st_size for path in paths) / 1e6
    median = statistics.median(seconds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": median, "mb_per_s": megabytes / median, "peak_mb": peak}


def main() -> None:
    """Run every size in a process of its own; print a line each and write the JSON file."""
    console = Console()
    console.print(f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}")
    figures: dict[str, float] = {}
    for silos in SILOS:
        command = [sys.executable, "-m", "benchmarks.merge", str(silos)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        result = json.loads(done.stdout.splitlines()[-1])
        console.print(
            f"{silos} silos: {result['seconds']:.2f} s, {result['mb_per_s']:.0f} MB/s, "
            f"peak {result['peak_mb']:.0f} MB"
        )
        figures |= {f"merge_{key}_{silos}": round(value, 3) for key, value in result.items()}
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(figures, indent=1) + "\n")
    console.print(f"written {OUTPUT}")


def _write_adapter(path: Path, spec: AdapterSpec, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    tensors = {
        name: rng.standard_normal(shape, dtype=np.float32)
        for name, shape in expected_shapes(spec).items()
    }
    save_file(tensors, path)
    return path


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.stdout.write(json.dumps(measure(int(sys.argv[1]))) + "\n")
    else:
        main()
