"""A check of the data in a process of its own, which gives its memory back and may die.

The detectors, the suite and what they need, hundreds of megabytes, run in the child; the agent only
reads its lines. A child that says what is wrong is a check that could not be made; one that dies of
what it read, or of memory, is no word about the data, and nothing is kept of it: the agent lives.
The kill switch ends the child within a second, and so does the end of the agent. (For the digest of
a Hugging Face set, an image-text folder or a table, and for the training files, the agent itself
reads the data.)
"""

import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from data_contracts.errors import ConsortiaError, DataStewardError, SiloOperatorError
from silo_agent.gate.check_child import FAULT_EXIT_CODE, OUTCOME, PROGRESS
from silo_agent.gate.data_gate import Progress
from silo_agent.gate.outcome import GateOutcome
from silo_agent.restarts import CheckDiedError, described_exit

log = logging.getLogger("silo-agent")

CHILD = "silo_agent.gate.check_child"
WATCH_SECONDS = 0.5


def check_in_child(
    home: Path, progress: Progress, is_stopped: Callable[[], bool] = lambda: False
) -> GateOutcome:
    """Run the check of the silo at `home`.

    Raises DataStewardError when it could not be made, CheckDiedError when its process was killed
    or crashed, SiloOperatorError when the kill switch ended it.
    """
    command = [sys.executable, "-m", CHILD, str(home)]
    outcome: GateOutcome | None = None
    # The child reads its stdin to its end, which comes when this process is no more.
    with (
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        ) as child,
        _ended(child, is_stopped),
    ):
        for line in child.stdout or ():
            if line.startswith(PROGRESS):
                progress(int(line.removeprefix(PROGRESS)))
            elif line.startswith(OUTCOME):
                outcome = _outcome(line.removeprefix(OUTCOME))
        child.wait()
    if child.returncode == 0 and outcome is not None:
        return outcome
    if is_stopped():
        raise SiloOperatorError(
            "check of the data",
            expected="the kill switch to be off",
            found="the silo operator has switched it on",
            action="run `silo-agent run --clear-stop` when the silo may take part again",
        )
    raise _failure(child.returncode)


def _failure(code: int) -> ConsortiaError:
    """Of a child that ended with `code`, negative for a signal, and left no outcome."""
    if code == FAULT_EXIT_CODE:
        return DataStewardError(
            "check of the data",
            expected="an outcome",
            found=f"a process that ended with {described_exit(code)}",
            action="run `silo-agent check` and read what it says",
        )
    return CheckDiedError(
        "process that checks the data",
        expected="an outcome",
        found=described_exit(code),
        action="give the machine more memory, or run `silo-agent check` and read what it says",
    )


@contextmanager
def _ended(child: "subprocess.Popen[str]", is_stopped: Callable[[], bool]) -> Iterator[None]:
    """Kill the child when the kill switch is turned on, and on every way out."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(WATCH_SECONDS):
            if is_stopped():
                child.kill()

    thread = threading.Thread(target=watch, name="check-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        child.kill()


def _outcome(line: str) -> GateOutcome | None:
    try:
        return GateOutcome.model_validate_json(line)
    except ValidationError:
        return None
