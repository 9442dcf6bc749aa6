"""Which coalitions to measure, in which order, and what is known of them after a kill.

Guaranteed: the coalitions of leave-one-out come first, then the starting adapter, then the rest;
they are measured in small batches, and every batch is on disk before the next one begins, so that
a computation that was stopped goes on where it was. What was measured for other inputs, and what
is damaged, is not found and is measured again.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from aggregator.contribution.coalitions import Coalition, all_coalitions, leave_one_out_coalitions
from aggregator.contribution.values import Contribution, SequenceLosses, leave_one_out, shapley
from infra.disk.durable_files import write_durably

BATCH_COALITIONS = 16
"""Merged, measured and remembered together: the model is loaded once for all of them, and no more
adapters than these have to be on disk at a time."""

Method = Literal["shapley", "leave-one-out"]
Losses = dict[Coalition, SequenceLosses]
MeasureBatch = Callable[[Sequence[Coalition]], Mapping[Coalition, SequenceLosses]]
OnMeasured = Callable[[int, int], None]


@dataclass(frozen=True)
class ContributionPlan:
    """The coalitions of one computation, in the order in which they are measured.

    `bound_to` is a digest of all that decides the losses besides the coalition: the round's plan,
    the admitted adapters, the public set and how much of it is used.
    """

    method: Method
    coalitions: tuple[Coalition, ...]
    bound_to: str

    def key(self, coalition: Coalition) -> str:
        """SHA-256 of the coalition and of what its losses are bound to, in hex."""
        return hashlib.sha256(json.dumps(self._identity(coalition)).encode()).hexdigest()

    def values(self, losses: Mapping[Coalition, SequenceLosses]) -> list[Contribution]:
        """What the method makes of the losses; raises ValueError when a coalition is missing."""
        known = {
            coalition: losses[coalition] for coalition in self.coalitions if coalition in losses
        }
        return shapley(known) if self.method == "shapley" else leave_one_out(known)

    def _identity(self, coalition: Coalition) -> list[object]:
        return [self.bound_to, sorted(coalition)]


def contribution_plan(silos: Sequence[str], method: Method, bound_to: str) -> ContributionPlan:
    """The coalitions of `silos` for a method, each once, the starting adapter among them.

    Raises FederationOperatorError for exact Shapley values of more than ten silos.
    """
    if method == "shapley":
        coalitions = all_coalitions(silos)
    else:
        coalitions = [*leave_one_out_coalitions(silos), frozenset[str]()]
    return ContributionPlan(method, tuple(dict.fromkeys(coalitions)), bound_to)


class LossJournal:
    """The losses of every measured coalition, one small JSON file each, absent or complete."""

    def __init__(self, directory: Path, plan: ContributionPlan) -> None:
        self._directory = directory
        self._plan = plan

    def add(self, coalition: Coalition, losses: SequenceLosses) -> None:
        """Remember the losses of a coalition; durable when this returns."""
        entry = {
            "coalition": sorted(coalition),
            "nats": losses.nats.tolist(),
            "tokens": losses.tokens.tolist(),
        }
        write_durably(self._path(coalition), json.dumps(entry).encode())

    def known(self) -> Losses:
        """The losses of the plan's coalitions that are on disk and whole, in the plan's order."""
        found = ((coalition, self._read(coalition)) for coalition in self._plan.coalitions)
        return {coalition: losses for coalition, losses in found if losses is not None}

    def _read(self, coalition: Coalition) -> SequenceLosses | None:
        try:
            entry = json.loads(self._path(coalition).read_bytes())
            nats, tokens = (np.array(entry[name], dtype=np.float64) for name in ("nats", "tokens"))
            return SequenceLosses(nats, tokens)
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None

    def _path(self, coalition: Coalition) -> Path:
        return self._directory / f"{self._plan.key(coalition)}.json"


def batches(coalitions: Sequence[Coalition]) -> list[Sequence[Coalition]]:
    """`coalitions` in their order, a few at a time."""
    starts = range(0, len(coalitions), BATCH_COALITIONS)
    return [coalitions[first : first + BATCH_COALITIONS] for first in starts]


def measured(
    plan: ContributionPlan,
    journal: LossJournal,
    measure: MeasureBatch,
    on_measured: OnMeasured | None = None,
) -> Losses:
    """The losses of every coalition of the plan, those in the journal not measured again.

    `measure` merges and evaluates a few coalitions; `on_measured` gets how many are known and how
    many there are. Raises what `measure` raises, with everything before it kept.
    """
    losses = journal.known()
    missing = [coalition for coalition in plan.coalitions if coalition not in losses]
    for batch in batches(missing):
        found = measure(batch)
        for coalition in batch:
            losses[coalition] = found[coalition]
            journal.add(coalition, found[coalition])
        if on_measured:
            on_measured(len(losses), len(plan.coalitions))
    return losses
