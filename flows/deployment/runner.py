"""What Prefect knows of the federation's deployment, and what that means for the operator."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from infra.terminal import command


@dataclass(frozen=True)
class Runner:
    """What Prefect knows of the deployment; `fault` says why it knows nothing."""

    registered: bool = False
    served: bool = False
    next_run: datetime | None = None
    running: str | None = None
    failed: str | None = None
    fault: str | None = None


def runner_lines(home: Path, runner: Runner) -> list[str]:
    """Who makes the next plan and when, or what has to run for that; commands to be pasted."""
    deploy = command("consortia", "deploy", "--home", home)
    if runner.fault is not None:
        return [runner.fault]
    if not runner.registered:
        return ["The deployment is not registered; leave this running in a terminal:", deploy]
    lines = [f"The last flow run failed: {runner.failed}"] if runner.failed else []
    if not runner.served:
        return [*lines, "Nothing serves the deployment; leave this running in a terminal:", deploy]
    if runner.running:
        return [*lines, f"Flow run {runner.running}; it makes the plan in a moment."]
    start = command("consortia", "round", "start", "--home", home)
    if runner.next_run is None:
        return [*lines, "Nothing is scheduled; ask for a round with", start]
    when = f"{runner.next_run:%Y-%m-%d %H:%M} UTC"
    return [*lines, f"The next one is scheduled for {when}; ask for one now with", start]
