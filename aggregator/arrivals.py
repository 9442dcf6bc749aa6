"""Adapters are fetched, hashed and gated as they arrive, so that the close has only to judge.

Each is read once more for the sketch of its change, by which copies are found at the close. The
seed of the sketches is this process's own, and nobody else's.

What is remembered is that the version of a blob which a submission names passed the gate; it lasts
as long as the process and is found again from storage. What did not pass is looked at again at the
close: until then its silo may put right what was wrong.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import BoundedSemaphore, Lock

from data_contracts.adapters.change_sketch import Sketch, Sketcher
from data_contracts.adapters.starting_adapter import AdapterSource
from infra.processes.worker_threads import default_workers

Key = tuple[str, str, str]
"""Digests of the plan and of the submission, and the silo."""


@dataclass(frozen=True)
class Arrivals:
    """The blobs of this process that passed the gate, with their versions in the silos' inboxes."""

    _passed: dict[Key, str | None] = field(default_factory=dict)
    _starts: dict[str, Sketcher] = field(default_factory=dict)
    _sketches: dict[Key, Sketch] = field(default_factory=dict)
    _seed: int = field(default_factory=lambda: secrets.randbits(64))
    _reading: Lock = field(default_factory=Lock)
    _keeping: Lock = field(default_factory=Lock)
    _turns: BoundedSemaphore = field(
        default_factory=lambda: BoundedSemaphore(max(2, default_workers()))
    )

    def start(self, plan_digest: str, read: Callable[[], AdapterSource]) -> Sketcher:
        """What sketches the changes of a plan's starting adapter, which `read` gives.

        That of the last plan is kept.
        """
        with self._reading:
            if plan_digest not in self._starts:
                found = Sketcher(read(), self._seed)
                self._starts.clear()
                self._starts[plan_digest] = found
            return self._starts[plan_digest]

    def keep_sketch(self, key: Key, sketch: Sketch) -> None:
        """The sketch of a submission that passes the gate; those of other plans go."""
        # The submissions of a plan are gated several at a time.
        with self._keeping:
            for other in [other for other in self._sketches if other[0] != key[0]]:
                del self._sketches[other]
            self._sketches[key] = sketch

    def sketch(self, key: Key) -> Sketch | None:
        """The sketch of a submission that passed the gate in this process."""
        return self._sketches.get(key)

    def gated(
        self, key: Key, gate: Callable[[], tuple[str | None, str | None]]
    ) -> tuple[str | None, str | None]:
        """Fault and version of one submission: as `gate` finds them, once if there is no fault.

        As many submissions at a time as there are cores.
        """
        if key in self._passed:
            return None, self._passed[key]
        with self._turns:
            fault, version = gate()
        if fault is None:
            self._passed[key] = version
        return fault, version
