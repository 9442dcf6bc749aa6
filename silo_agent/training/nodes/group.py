"""The nodes of one launch as the agent knows them: how they end, and the one that is to blame."""

import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

from data_contracts.errors import ConsortiaError, SiloOperatorError
from infra.processes.exit_codes import ORPHANED
from silo_agent.restarts import ProcessDiedError
from silo_agent.training.nodes.meeting_place import (
    BEATS_A_SILENCE,
    Ended,
    MeetingPlace,
    NodesLaunch,
    Pulse,
    node_log,
)
from silo_agent.training.nodes.node_launcher import ALL, StartedNodes
from silo_agent.training.processes.failed_process import FailedProcess, first_of, log_of
from silo_agent.training.processes.machine_launch import Failed
from silo_agent.training.run_files import read_failure

LOOK_SECONDS = 0.3
END_SECONDS = 15.0
SHOWN = 3
"""Of so many nodes that did not come a message says what is known."""

SETTLE_BEATS = 3
"""A rank that lost another may say so before the silence of that one's node is noticed."""


class NotComeError(ProcessDiedError):
    """Nodes were asked for, and none was heard of in time."""


class SomeNotComeError(ProcessDiedError):
    """Nodes were asked for, and only some of them were heard of in time."""


@dataclass(frozen=True)
class Told:
    """An error that is known already; satisfies `Failed`."""

    fault: ConsortiaError

    def error(self) -> ConsortiaError:
        """The error itself."""
        return self.fault


class NodeGroup:
    """The nodes of one launch, as they are known here; satisfies `Processes`."""

    def __init__(
        self, place: MeetingPlace, launch: NodesLaunch, started: StartedNodes, start_seconds: float
    ) -> None:
        self._place, self._launch, self._started = place, launch, started
        self._pulses = [Pulse(place.node(number)) for number in range(launch.nodes)]
        self._began, self._looked = time.monotonic(), float("-inf")
        self._start_seconds = start_seconds
        self._ended: dict[int, Ended] = {}
        self._lost: dict[int, str] = {}
        self._failing_since: float | None = None
        self._code: int | None = None

    @property
    def pid(self) -> int:
        """This process; of ranks on other machines the memory is not seen."""
        return os.getpid()

    def exit_code(self) -> int | None:
        """None while all goes well, 0 when every node ended well, 1 when it is known who failed."""
        now = time.monotonic()
        if self._code is None and now - self._looked >= LOOK_SECONDS:
            self._look()
            self._looked, self._code = now, self._decided(now)
        return self._code

    def failed(self, code: int, job: Path | None = None) -> Failed:
        """Who is to blame: what a person can mend, a rank that was killed, a lost node, a rank.

        Where all that came are silent with their job, the job is.
        """
        told = self._told() or self._deaf()
        if told is None and self._went_with_all():
            told = self._lost_all()
        if told is not None:
            return Told(told)
        failed = self._failed_ranks(job)
        if failed is not None and failed.code < 0:
            return failed
        if (lost := self._lost_node()) is not None:
            return Told(lost)
        return failed or Told(self._late() or self._lost_all() or self._unknown(code))

    def wait_for_end(self) -> None:
        """Give nodes that have come the time to end their ranks; the launcher is not asked."""
        deadline = time.monotonic() + END_SECONDS
        while time.monotonic() < deadline:
            self._note_ended()
            if ALL in self._lost or all(map(self._is_over, self._came())):
                return
            time.sleep(LOOK_SECONDS)

    def hosts(self) -> list[str]:
        """The hosts that ended, in the order of their numbers."""
        return [ended.host for _, ended in sorted(self._ended.items())]

    def missing(self) -> list[int]:
        """Nodes that were never heard of."""
        return [number for number, pulse in enumerate(self._pulses) if not pulse.words]

    def _came(self) -> list[int]:
        return [number for number, pulse in enumerate(self._pulses) if pulse.words]

    def _is_over(self, number: int) -> bool:
        has_said = number in self._ended or self._place.failure(number).exists()
        return has_said or number in self._lost

    def _note_ended(self) -> None:
        for number in range(self._launch.nodes):
            ended = self._ended.get(number) or self._place.ended(number)
            if ended is not None:
                self._ended[number] = ended

    def _look(self) -> None:
        self._note_ended()
        if len(self._ended) == self._launch.nodes:
            return
        self._note_silent(self._launch.quiet_seconds)
        # The first that was noticed stays the first.
        gone = {n: words for n, words in self._started.lost().items() if n not in self._ended}
        self._lost |= {n: words for n, words in gone.items() if n not in self._lost}

    def _note_silent(self, seconds: float) -> None:
        for number, pulse in enumerate(self._pulses):
            silence = pulse.seconds_quiet()
            is_open = pulse.words and number not in self._ended and number not in self._lost
            if is_open and silence > seconds:
                self._lost[number] = f"nothing for {silence:.1f} s"

    def _decided(self, now: float) -> int | None:
        codes = [ended.code for ended in self._ended.values()]
        if len(codes) == self._launch.nodes and not any(codes):
            return 0
        ranks = [code for ended in self._ended.values() for code in ended.ranks.values()]
        was_killed = any(code < 0 and code != -signal.SIGTERM for code in ranks)
        faults = (self._told(), self._lost_node(), self._late())
        if was_killed or any(fault is not None for fault in faults):
            return 1
        return self._settled(now) if any(codes) or ALL in self._lost else None

    def _settled(self, now: float) -> int | None:
        """1 when a node that is silent by now is known: it may be what the others failed for."""
        self._failing_since = self._failing_since or now
        if len(self._ended) < self._launch.nodes:
            beat = self._launch.quiet_seconds / BEATS_A_SILENCE
            if now - self._failing_since < SETTLE_BEATS * beat:
                return None
            self._note_silent((SETTLE_BEATS - 1) * beat)
        return 1

    def _told(self) -> ConsortiaError | None:
        for number in range(self._launch.nodes):
            if (failure := read_failure(self._place.failure(number))) is not None:
                return failure
        return None

    def _lost_node(self) -> SiloOperatorError | None:
        for number in self._lost:
            if number != ALL:
                return self._lost_error(number, f"training node {self._name(number)}")
        return None

    def _went_with_all(self) -> bool:
        """Whether the job as a whole is lost, and no node that came outlived it."""
        return ALL in self._lost and not self._ended and self._lost.keys() >= set(self._came())

    def _deaf(self) -> SiloOperatorError | None:
        quiet = f"{self._launch.quiet_seconds:.0f} s"
        for number, ended in sorted(self._ended.items()):
            if ended.code == ORPHANED:
                return ProcessDiedError(
                    f"training node {self._name(number)}",
                    expected=f"to hear of the agent within {quiet}",
                    found=f"it heard nothing of the agent for {quiet}",
                    action="see how the file system with the home is mounted there; the next "
                    "attempt goes on from the last checkpoint",
                )
        return None

    def _lost_all(self) -> SiloOperatorError | None:
        return self._lost_error(ALL, "training nodes") if ALL in self._lost else None

    def _lost_error(self, number: int, problem: str) -> SiloOperatorError:
        beat = self._launch.quiet_seconds / BEATS_A_SILENCE
        return ProcessDiedError(
            problem,
            expected=f"a sign of life every {beat:.1f} s until the job is done",
            found=self._lost[number],
            action="see whether the machine runs; the next attempt goes on from the last "
            "checkpoint",
        )

    def _late(self) -> SiloOperatorError | None:
        missing = self.missing()
        if not missing or time.monotonic() - self._began <= self._start_seconds:
            return None
        kind = NotComeError if len(missing) == self._launch.nodes else SomeNotComeError
        said = self._started.waiting()
        known = [said[number] for number in (*missing[:SHOWN], ALL) if number in said]
        words = "".join(f"; {each}" for each in known)
        return kind(
            f"training nodes {', '.join(map(str, missing))}",
            expected=f"{self._launch.nodes} nodes within {self._start_seconds:.0f} s",
            found=f"{self._launch.nodes - len(missing)} of them{words}",
            action="see the queue or the machines, or raise start_minutes or check_seconds in "
            "[training.nodes] of silo-agent.toml",
        )

    def _failed_ranks(self, job: Path | None) -> FailedProcess | None:
        """Of all that failed, as on one machine; or what launches the ranks of a node."""
        codes = {rank: code for ended in self._ended.values() for rank, code in ended.ranks.items()}
        if codes:
            nodes = {rank: rank // self._launch.ranks_per_node for rank in codes}
            logs = {rank: log_of(rank, self._log(nodes[rank]), job) for rank in codes}
            rank, failed = first_of(codes, logs)
            return replace(failed, name=f"{failed.name} on node {self._name(nodes[rank])}")
        for number, ended in sorted(self._ended.items()):
            if ended.code:
                name = f"launcher on node {self._name(number)}"
                return FailedProcess(name, ended.code, self._log(number))
        return None

    def _log(self, number: int) -> Path:
        return node_log(self._launch.logs, number)

    def _unknown(self, code: int) -> SiloOperatorError:
        return ProcessDiedError(
            "training nodes",
            expected="to work until the job is done",
            found=f"{len(self._ended)} of {self._launch.nodes} ended before, with code {code}",
            action=f"read the logs in {self._launch.logs}",
        )

    def _name(self, number: int) -> str:
        host = self._ended[number].host if number in self._ended else self._pulses[number].words
        return f"{number} ({host})" if host else str(number)
