"""The loss on held-out records, and how sure the single records make a change of it.

The sums stay in the silo: of them only a mean, a number of records and a standard error leave.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

RecordSums = tuple[tuple[float, int], ...]
"""(summed nats, answer tokens) of each record, in the order in which records are packed first."""


@dataclass(frozen=True)
class HeldoutSums:
    """Sums of what sequences hold, conversation by conversation, and how much of all that is asked
    the first guess has `right`; None where the family of the model does not count that."""

    conversations: RecordSums
    right: float | None = None


class Loss(BaseModel):
    """Mean loss of `nats` per answer token over `tokens` answer tokens of held-out records.

    `records` are the sums that it is the mean of, where they were asked for and are still known.
    Of other families than causal models tokens are what is asked, and `right` the share of it that
    the first guess has right.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    nats: float
    tokens: int
    records: RecordSums = ()
    right: Annotated[float | None, Field(exclude_if=lambda value: value is None)] = None

    @classmethod
    def of(cls, records: RecordSums, right: float | None = None) -> Self:
        """The loss over all of `records`, at least one; so much in all is `right`."""
        tokens = sum(count for _, count in records)
        share = None if right is None else right / tokens
        return cls(nats=mean_loss(records), tokens=tokens, records=records, right=share)

    def without_records(self) -> Self:
        """The same mean, which says nothing of single records."""
        return self.model_copy(update={"records": ()})


def of_records(sums: RecordSums, records: Sequence[int]) -> RecordSums:
    """The sums of conversations, those of one record added up; `records` says which each is of.

    How many records a loss is of, and its standard error, are then those of the data, in however
    many pieces a record was told.
    """
    added: dict[int, tuple[float, int]] = {}
    for (nats, tokens), record in zip(sums, records, strict=True):
        so_far = added.get(record, (0.0, 0))
        added[record] = (so_far[0] + nats, so_far[1] + tokens)
    return tuple(added.values())


def mean_loss(sums: RecordSums) -> float:
    """Nats per answer token over all records, at least one."""
    return sum(nats for nats, _ in sums) / sum(tokens for _, tokens in sums)


def change_error(after: RecordSums, before: RecordSums) -> float | None:
    """Standard error of `mean_loss(after) - mean_loss(before)` in nats per token.

    Both are losses of the same records, so what leaves its mark is how much the change differs
    between records, not how hard they are. The change r = sum d / sum t is a ratio of two sums over
    records, of d nats and t tokens; its error is that of the linearised ratio estimator, with
    records drawn from a large population (Cochran, Sampling Techniques, 3rd edition, 1977, sections
    2.11 and 6.4). None with fewer than two records, which say nothing of their spread. Raises
    ValueError when the sums are of different records.
    """
    tokens = [count for _, count in after]
    if tokens != [count for _, count in before]:
        raise ValueError(
            f"expected sums of the same records, found {len(after)} and {len(before)} records "
            "with different numbers of tokens; measure both on the same held-out file"
        )
    changes = [x - y for (x, _), (y, _) in zip(after, before, strict=True)]
    return _ratio_error(changes, tokens) if len(tokens) > 1 else None


def _ratio_error(values: Sequence[float], sizes: Sequence[int]) -> float:
    ratio = math.fsum(values) / sum(sizes)
    squares = ((d - ratio * t) ** 2 for d, t in zip(values, sizes, strict=True))
    count = len(values)
    return math.sqrt(count / (count - 1) * math.fsum(squares)) / sum(sizes)
