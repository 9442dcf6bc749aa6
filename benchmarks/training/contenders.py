"""Starts each contender once, in processes of its own, and reads what it measured."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.training.material import RANKS, Material
from silo_agent.training.engine_spec import Device
from silo_agent.training.processes.launch import run_training

HERE = Path(__file__).parent
LIMIT_SECONDS = 1800


@dataclass(frozen=True)
class Run:
    """Tokens that are not padding, and the seconds of the steps in which they were trained."""

    tokens: int
    seconds: float
    places: int = 0

    @property
    def tokens_per_s(self) -> float:
        """Of all ranks together."""
        return self.tokens / self.seconds


Contender = Callable[[Material], Run]


def consortia(material: Material) -> Run:
    """The product's own training, as an agent starts it."""
    job = material.job("consortia")
    shutil.rmtree(job.output_dir, ignore_errors=True)
    result = run_training(job)
    return Run(result.tokens, result.seconds)


def run_script(
    module: str, way: str, material: Material, *, ranks: int = RANKS, device: Device = "cpu"
) -> Run:
    """A script in as many ranks, by torchrun with a file to meet by: no port is opened."""
    with tempfile.TemporaryDirectory(prefix="bench-training-") as name:
        folder, out = Path(name), Path(name) / "out.json"
        command = [
            *(sys.executable, "-m", "torch.distributed.run"),
            *("--nnodes", "1", "--nproc-per-node", str(ranks), "--max-restarts", "0"),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", str(folder / "rendezvous")),
            *("--rdzv-conf", "store_type=file", "--local-addr", "localhost"),
            *("--log-dir", str(folder / "logs")),
            *(str(HERE / f"{module}.py"), str(material.folder), str(out), way),
        ]
        with (folder / "log").open("w+") as log:
            done = subprocess.run(
                command,
                env=os.environ
                | {
                    "DS_ACCELERATOR": device,
                    "OMP_NUM_THREADS": "1",
                    "HF_HUB_OFFLINE": "1",
                    "TOKENIZERS_PARALLELISM": "false",
                    "GLOO_SOCKET_IFNAME": "lo",
                    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
                },
                stdout=log,
                stderr=log,
                timeout=LIMIT_SECONDS,
                check=False,
            )
            if done.returncode:
                log.seek(0)
                sys.stderr.write(log.read()[-4000:])
                raise SystemExit(f"{module} {way} failed")
        found = json.loads(out.read_text())
    return Run(found["tokens"], found["seconds"], found.get("places", 0))


BARE_WHOLE, BARE = "bare DeepSpeed, loss of the model", "bare DeepSpeed"
PADDED, GROUPED = "padded Trainer", "padded Trainer, grouped by length"
OURS = "Consortia"
CONTENDERS: dict[str, Contender] = {
    OURS: consortia,
    BARE: partial(run_script, "bare_deepspeed", "answers"),
    BARE_WHOLE: partial(run_script, "bare_deepspeed", "whole"),
    PADDED: partial(run_script, "padded_trainer", "random"),
    GROUPED: partial(run_script, "padded_trainer", "grouped"),
}
