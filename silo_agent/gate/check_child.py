"""The process that looks at the data: progress and outcome as lines on stdout, what is wrong on
stderr."""

import os
import sys
import threading
from pathlib import Path

from data_contracts.errors import ConsortiaError
from infra.terminal import say_fault
from silo_agent.config import load_config
from silo_agent.gate.contract_gate import contract_gate

PROGRESS, OUTCOME = "records ", "outcome "
REPORT_EVERY = 4_000
ORPHANED_EXIT_CODE = 86
FAULT_EXIT_CODE = 3
"""Of a child that said what a person can mend; one that met what nobody foresaw ends with 1."""


def main() -> None:
    """Check the data of the silo whose home is the first argument."""
    threading.Thread(target=_end_with_agent, name="agent-watch", daemon=True).start()
    reported = 0

    def report(records: int) -> None:
        nonlocal reported
        if records - reported >= REPORT_EVERY:
            reported = records
            _say(f"{PROGRESS}{records}")

    outcome = contract_gate(load_config(Path(sys.argv[1]))).check(report)
    _say(OUTCOME + outcome.model_dump_json())


def _end_with_agent() -> None:
    """Leave at once when the agent closes its end, however it ended."""
    sys.stdin.read()
    os._exit(ORPHANED_EXIT_CODE)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        main()
    except ConsortiaError as error:
        say_fault(error)
        sys.exit(FAULT_EXIT_CODE)
