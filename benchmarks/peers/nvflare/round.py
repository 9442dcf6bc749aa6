"""Clock (c) for FLARE: its server and one process per client over its TCP transport on loopback.

FLARE's own simulator starts these processes and connects them with the cell network that real
deployments use, and results travel as downloads, as they do there. What it leaves out favours
FLARE: TLS, and the parent process of each site. The intervals at which clients ask for tasks are
shortened for the same reason. The first round warms up; the median of the others is reported.
Peak memory is that of the server's process. With `--quantised` FLARE's own filters send float16,
half the bytes; its 8- and 4-bit filters need a GPU.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from safetensors.numpy import load_file

sys.path.append(str(Path(__file__).resolve().parents[1]))
from adapters import TOLERANCE, adapter_megabytes, expected_mean

HERE = Path(__file__).resolve().parent
LIMIT_SECONDS = 500.0
HALF_TOLERANCE = 1e-2
"""float16 keeps eleven bits of values of up to five."""
CHUNK_BYTES = 8 * 1024 * 1024
"""A tenth faster than FLARE's default of 2 MB; 0 (tensors in the message) is three times slower."""
TASK_REQUEST_SECONDS = 0.2
"""How long a client waits before it asks for a task again; FLARE's default is 2 s."""


def main() -> None:
    """Run the simulation in a process of its own, check the result, print one line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--silos", type=int, required=True)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--quantised", action="store_true")
    parser.add_argument("--simulate-in", type=Path)
    options = parser.parse_args()
    if options.simulate_in:
        _simulate(options)
        return
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        command = [sys.executable, __file__, "--silos", str(options.silos)]
        command += ["--runs", str(options.runs), "--simulate-in", name]
        command += ["--quantised"] if options.quantised else []
        environment = os.environ | {
            "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}",
            "NVFLARE_TENSOR_DOWNLOAD_CHUNK_SIZE": str(CHUNK_BYTES),
            "OMP_NUM_THREADS": "1",  # more processes than cores: PyTorch's threads would only wait
        }
        with (directory / "log").open("wb") as log:
            subprocess.run(
                command, env=environment, stdout=log, stderr=log, timeout=LIMIT_SECONDS, check=False
            )
        if not (directory / "server.json").exists():
            sys.stderr.write((directory / "log").read_text()[-4000:])
            raise SystemExit("the server left no figures")
        _report(directory, options.silos, HALF_TOLERANCE if options.quantised else TOLERANCE)


def _simulate(options: argparse.Namespace) -> None:
    from exchange import MemoryExecutor, TimedFedAvg
    from nvflare.app_opt.pt.quantization.dequantizer import ModelDequantizer
    from nvflare.app_opt.pt.quantization.quantizer import ModelQuantizer
    from nvflare.job_config.api import FedJob, FilterType

    silos, rounds, directory = options.silos, options.runs + 1, options.simulate_in
    job = FedJob(name="exchange", min_clients=silos)
    job.to_server(TimedFedAvg(silos, rounds, str(directory)))
    job.to_server({"server": {"task_request_interval": TASK_REQUEST_SECONDS}})
    job.to_clients(MemoryExecutor(), tasks=["train"])
    if options.quantised:
        quantizer = ModelQuantizer(quantization_type="float16")
        job.to_clients(quantizer, tasks=["train"], filter_type=FilterType.TASK_RESULT)
        job.to_server(ModelDequantizer(), tasks=["train"], filter_type=FilterType.TASK_RESULT)
    job.simulator_run(str(directory / "workspace"), n_clients=silos, threads=silos)


def _report(directory: Path, silos: int, tolerance: float) -> None:
    expected_mean(silos).check(load_file(directory / "merged.safetensors"), tolerance)
    server = json.loads((directory / "server.json").read_text())
    seconds = statistics.median(server["seconds"][1:])
    figures = {
        "seconds": seconds,
        "mb_per_s": silos * adapter_megabytes() / seconds,
        "peak_mb": server["peak_mb"],
    }
    sys.stdout.write(json.dumps({key: round(value, 3) for key, value in figures.items()}) + "\n")


if __name__ == "__main__":
    main()
