"""For which records a personal adapter acts: decided by the prompt alone, without torch.

A prompt is measured by its likeness: the cosine of the last hidden state at its last token, without
the personal adapter, with the mean of those of the silo's own training prompts. The threshold is
chosen on records of the silo that nothing was trained on here: the lowest of their likenesses at
which the mix is within `TOLERANCE` of the best one. So the personal adapter acts on all text like
the silo's own, but for what it makes worse there, and on no other; one of no use acts nowhere.
"""

import math
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from silo_agent.training.job_value import JobValue
from silo_agent.training.loss import RecordSums

TOLERANCE = 0.005
"""Nats per answer token that it may cost on those records to take more of them."""
REACH = 2.0
"""Where all of them are taken, prompts are taken that are so many times as far from the centre (1 -
likeness) as the farthest of them and of the training prompts: some records do not show how far the
silo's own text goes."""
MARGIN = 1e-5
"""Below a likeness that was measured, so that rounding on another machine does not decide."""


class PromptGate(JobValue):
    """The personal adapter acts where the likeness of a prompt to `centre` is at least `threshold`.

    `threshold` None: nowhere, because it was of no use on the records that it was chosen on.
    """

    centre: tuple[float, ...]
    threshold: float | None

    def takes(self, likeness: float) -> bool:
        """Whether the personal adapter acts on a prompt with this likeness."""
        return self.threshold is not None and likeness >= self.threshold


class Measured(NamedTuple):
    """Records in one order: losses of their answers without and with the personal adapter, and the
    likenesses of their prompts."""

    without: RecordSums
    with_it: RecordSums
    likenesses: Sequence[float]

    def mixed(self, gate: PromptGate) -> RecordSums:
        """Of each record the sums of the adapter that the gate takes."""
        return tuple(
            own if gate.takes(likeness) else other
            for other, own, likeness in zip(
                self.without, self.with_it, self.likenesses, strict=True
            )
        )

    def share(self, gate: PromptGate) -> float:
        """Of records for which the gate takes the personal adapter."""
        return sum(map(gate.takes, self.likenesses)) / len(self.likenesses)


def chosen_gate(
    centre: Sequence[float], measured: Measured, trained_on: Sequence[float] = ()
) -> PromptGate:
    """The widest gate whose mix is within `TOLERANCE` of the best mix that any gate makes.

    Never and always are such mixes too, so it is about as good as the better of both adapters.
    `trained_on` are likenesses of training prompts.
    """
    changes = (own - other for (other, _), (own, _) in zip(*measured[:2], strict=True))
    by_likeness = sorted(zip(measured.likenesses, changes, strict=True), reverse=True)
    mixes: list[tuple[float | None, float]] = [(None, 0.0)]
    for likeness_, records in groupby(by_likeness, key=itemgetter(0)):
        change = mixes[-1][1] + sum(each for _, each in records)
        mixes.append((likeness_ - MARGIN, change))
    allowed = min(change for _, change in mixes)
    allowed += TOLERANCE * sum(tokens for _, tokens in measured.without)
    threshold = [threshold for threshold, change in mixes if change <= allowed][-1]
    if threshold is not None and threshold == mixes[-1][0]:
        threshold = 1 - REACH * (1 - min([threshold, *trained_on]))
    return PromptGate(centre=tuple(centre), threshold=threshold)


def likeness(state: Sequence[float], centre: Sequence[float]) -> float:
    """Cosine of two vectors of the same length; 0 where one of them is zero."""
    sizes = math.hypot(*state) * math.hypot(*centre)
    return math.fsum(x * y for x, y in zip(state, centre, strict=True)) / sizes if sizes else 0.0
