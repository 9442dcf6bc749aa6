"""What a round costs a FLARE silo besides its training steps: server and client of its simulator.

`overhead.py FOLDER ROUNDS` prints the rounds as JSON. The silo keeps its model in memory and asks
for tasks every 0.2 s instead of every 2 s; as in `round.py` both favour FLARE, and so does what the
simulator leaves out, TLS and the parent process of each site.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from round import CHUNK_BYTES, HERE, TASK_REQUEST_SECONDS

ROUNDS_SECONDS = 1500.0


def main(folder: Path, rounds: int) -> None:
    """Run the simulation in a process of its own and print its figures."""
    found = folder / "overhead.json"
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, __file__, str(folder), str(rounds), name]
        environment = os.environ | {
            "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}",
            "NVFLARE_TENSOR_DOWNLOAD_CHUNK_SIZE": str(CHUNK_BYTES),
            "HF_HUB_OFFLINE": "1",
        }
        with (Path(name) / "log").open("wb") as log:
            subprocess.run(
                command,
                env=environment,
                stdout=log,
                stderr=log,
                timeout=ROUNDS_SECONDS,
                check=False,
            )
        if not found.exists():
            sys.stderr.write((Path(name) / "log").read_text()[-4000:])
            raise SystemExit("the server left no figures")
        sys.stdout.write(json.dumps(json.loads(found.read_text())) + "\n")
        found.unlink()


def simulate(folder: str, rounds: int, workspace: str) -> None:
    """One server and one client."""
    from learning import TimedRounds, TrainingExecutor
    from nvflare.job_config.api import FedJob

    job = FedJob(name="learning", min_clients=1)
    job.to_server(TimedRounds(rounds, folder))
    job.to_server({"server": {"task_request_interval": TASK_REQUEST_SECONDS}})
    job.to_clients(TrainingExecutor(folder), tasks=["train"])
    job.simulator_run(f"{workspace}/workspace", n_clients=1, threads=1)


if __name__ == "__main__":
    if len(sys.argv) > 3:
        simulate(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    else:
        main(Path(sys.argv[1]), int(sys.argv[2]))
