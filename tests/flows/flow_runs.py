"""What Prefect shows of a federation's flow runs."""

import subprocess
import sys
import time
from pathlib import Path

_RUNS = """\
import sys
from pathlib import Path
from aggregator.settings.federation import load_settings
from flows.deployment.prefect_settings import use_prefect_of
home = Path(sys.argv[1])
use_prefect_of(load_settings(home))
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    for run in client.read_flow_runs():
        if "until_round" in run.parameters and run.deployment_id is not None:
            if Path(run.parameters["home"]).resolve() == home.resolve():
                ended = run.state is not None and run.state.is_final()
                print(f"{run.state_name}/{ended}/{bool(run.start_time)}/{run.name}")
"""


def left_running(home: Path, seconds: float = 60) -> list[str]:
    """Flow runs of this federation that were started and do not end within some seconds."""
    deadline = time.monotonic() + seconds
    while (left := _unfinished(home)) and time.monotonic() < deadline:
        time.sleep(1)
    return left


def scheduled(home: Path) -> list[str]:
    """Flow runs of this federation that Prefect will start when their time comes."""
    return ["/".join(run) for run in _flow_runs(home) if run[0] == "Scheduled"]


def _unfinished(home: Path) -> list[str]:
    return ["/".join(run) for run in _flow_runs(home) if run[1:3] == ["False", "True"]]


def _flow_runs(home: Path) -> list[list[str]]:
    """Of each its state, whether that is final, whether it was started, and its name."""
    done = subprocess.run(
        [sys.executable, "-c", _RUNS, str(home)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [line.split("/") for line in done.stdout.splitlines() if line.count("/") == 3]
