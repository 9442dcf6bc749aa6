"""What it takes to have a silo's part out of a run again, exactly: by training and merging again.

Pure. From the rounds of the feed to the adapter without the part that is gone on from, the rounds
that have to be had again, what they cost, and why it cannot be had where it cannot. A round whose
blobs are gone is no hindrance, since its plan says all that is needed; only what is started from
has to be there still, and where it is not, an earlier start is taken, at last the seed.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from aggregator.unlearning.past_round import PastRound, Work, line_of, with_part_of
from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.records.membership import Membership


@dataclass(frozen=True)
class Asked:
    """What is to be unlearned, and what the federation is like now.

    `revoked` already, by digest. `is_kept` says whether storage still has a blob.
    `from_seed`: start at the seed although a later start could be had. `other_seeds`: train with
    other numbers than the old rounds did.
    """

    silo: str
    run: str
    membership: Membership
    model_digest: str
    is_kept: Callable[[ArtifactRef], bool]
    revoked: Collection[str] = ()
    from_seed: bool = False
    other_seeds: bool = False


@dataclass(frozen=True)
class RoundAgain:
    """A round that is had again: by whom, and what their part in it had cost."""

    past: PastRound
    silos: tuple[str, ...]
    cost: Work


@dataclass(frozen=True)
class ErasurePlan:
    """`first`: the first round of the run in which it counted; None: its part is in nothing that is
    in force. `revoked`: digests with its part that no erasure has revoked yet, in all runs.
    `again` begins with the round whose start is gone on from."""

    asked: Asked
    counted_in: tuple[PastRound, ...]
    first: PastRound | None
    revoked: tuple[str, ...]
    again: tuple[RoundAgain, ...]

    @property
    def start(self) -> ArtifactRef | None:
        """The adapter that is gone on from; None for the seed."""
        return self.again[0].past.record.starting_adapter if self.again else None

    @property
    def start_round(self) -> int:
        """The last round before those that are had again; 0 for the seed."""
        return self.again[0].past.record.round - 1 if self.start is not None else 0

    @property
    def trainings(self) -> int:
        """Local trainings that are needed, one for each silo and round."""
        return sum(len(each.silos) for each in self.again)

    @property
    def cost(self) -> Work:
        """What they had cost when they were done first."""
        return sum((each.cost for each in self.again), Work())

    @property
    def has_other_seeds(self) -> bool:
        """A second masked sum of one training would give away what the silo sent, so no silo opens
        one: in confidential mode the others train with other numbers."""
        masked = any(each.past.record.masking is not None for each in self.again)
        return self.asked.other_seeds or masked


def erasure_plan(history: Sequence[PastRound], asked: Asked) -> ErasurePlan:
    """The plan for a silo of the federation whose rounds are `history`."""
    line = line_of(history, asked.run)
    with_part = with_part_of(history, asked.silo)
    revoked = tuple(sorted(with_part.keys() - set(asked.revoked)))
    counted_in = tuple(past for past in line if asked.silo in past.counted and past.made)
    first = next((n for n, past in enumerate(line) if past.published in with_part), None)
    start = None if first is None else _start(line, first, asked)
    again = () if start is None else tuple(_again(past, asked) for past in line[start:])
    return ErasurePlan(
        asked=asked,
        counted_in=counted_in,
        first=None if first is None else line[first],
        revoked=revoked if again else (),
        again=again,
    )


def _start(line: Sequence[PastRound], first: int, asked: Asked) -> int:
    """The round to begin with: the first with the part, or the newest before it whose start can be
    had. The first round of all starts from the seed, which is always there."""
    if asked.from_seed:
        return 0
    can = (n for n in range(first, 0, -1) if _can_start(line[n], asked))
    return next(can, 0)


def _can_start(past: PastRound, asked: Asked) -> bool:
    return past.starts.isdisjoint(asked.revoked) and all(map(asked.is_kept, past.record.starts))


def _again(past: PastRound, asked: Asked) -> RoundAgain:
    silos = remaining(past, asked.silo, asked.membership)
    cost = sum((past.counted[silo] for silo in silos if silo in past.counted), Work())
    return RoundAgain(past, silos, cost)


def remaining(past: PastRound, silo: str, membership: Membership) -> tuple[str, ...]:
    """Who is asked again: the cohort of then without the silo, as far as they are members."""
    members = set(membership.silos_of_round(past.record.round))
    return tuple(sorted((set(past.record.cohort) - {silo}) & members))
