"""A check of the data in a process of its own, which gives its memory back and may die.

Readers and decoders of other people's files, and libraries that weigh hundreds of megabytes, run
in the child; the agent only reads its lines. A child that dies of what it read, or of memory, is a
check that could not be made: the round is refused, the agent lives.
"""

import logging
import subprocess
import sys
from pathlib import Path

from pydantic import ValidationError

from data_contracts.errors import DataStewardError
from infra.terminal import run_command_line
from silo_agent.data_gate import Progress
from silo_agent.gate_outcome import GateOutcome

log = logging.getLogger("silo-agent")

PROGRESS, OUTCOME = "records ", "outcome "
REPORT_EVERY = 10_000


def check_in_child(home: Path, progress: Progress) -> GateOutcome:
    """Run the check of the silo at `home`; raises DataStewardError when it could not be made."""
    command = [sys.executable, "-m", "silo_agent.check_process", str(home)]
    outcome: GateOutcome | None = None
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8") as child:
        for line in child.stdout or ():
            if line.startswith(PROGRESS):
                progress(int(line.removeprefix(PROGRESS)))
            elif line.startswith(OUTCOME):
                outcome = _outcome(line.removeprefix(OUTCOME))
    if child.returncode == 0 and outcome is not None:
        return outcome
    raise DataStewardError(
        "check of the data",
        expected="an outcome",
        found=f"a process that ended with code {child.returncode}",
        action="run `silo-agent check` and read what it says",
    )


def _outcome(line: str) -> GateOutcome | None:
    try:
        return GateOutcome.model_validate_json(line)
    except ValidationError:
        return None


def main() -> None:
    """The child: progress and outcome as lines on stdout, what is wrong on stderr."""
    from silo_agent.assembly import contract_gate
    from silo_agent.config import load_config

    reported = 0

    def report(records: int) -> None:
        nonlocal reported
        if records - reported >= REPORT_EVERY:
            reported = records
            _say(f"{PROGRESS}{records}")

    outcome = contract_gate(load_config(Path(sys.argv[1]))).check(report)
    _say(OUTCOME + outcome.model_dump_json())


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    run_command_line(main)
