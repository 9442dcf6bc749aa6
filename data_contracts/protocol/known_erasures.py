"""The erasures of a feed as far as somebody knows them, and what they revoke. No I/O.

Whoever reads the feed entry by entry learns them in their place. A silo that joined later, or was
away while a membership began, has not read all entries: each plan names the newest erasure
and each erasure the one before, so that it can fetch just those.
"""

from dataclasses import dataclass, field

from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.fed_attempt import FeedPosition
from data_contracts.protocol.records import Erasure, RoundPlan
from data_contracts.protocol.records.plan_terms import ErasureRef


def erasure_ref(erasure: Verified[Erasure]) -> ErasureRef:
    """As plans and later erasures name it."""
    return ErasureRef(feed_number=erasure.record.feed_number, digest=erasure.digest)


@dataclass
class KnownErasures:
    """By digest; only what the feed, or an entry of it that counts, names is added."""

    _known: dict[str, Verified[Erasure]] = field(default_factory=dict)

    def copy(self) -> "KnownErasures":
        """The state of now."""
        return KnownErasures(dict(self._known))

    @property
    def all(self) -> tuple[Verified[Erasure], ...]:
        """In the order of the feed."""
        return tuple(sorted(self._known.values(), key=lambda e: e.record.feed_number))

    @property
    def newest(self) -> ErasureRef | None:
        """The last of them; None without any."""
        return erasure_ref(self.all[-1]) if self._known else None

    @property
    def revoked(self) -> frozenset[str]:
        """Digests that no plan starts from again."""
        return frozenset(d for erasure in self._known.values() for d in erasure.record.revoked)

    def add(self, erasure: Verified[Erasure]) -> None:
        """Once it counts."""
        self._known[erasure.digest] = erasure

    def missing(self, plan: Verified[RoundPlan] | None) -> ErasureRef | None:
        """One that is named by the newest plan, or by an erasure that is known, and not known."""
        named = [None if plan is None else plan.record.erasure]
        named += [erasure.record.previous for erasure in self.all]
        return next(
            (ref for ref in named if ref is not None and ref.digest not in self._known), None
        )

    def are_gone_on_from_by(self, entry: Erasure) -> bool:
        """Whether an erasure names the newest before it; who knows none yet cannot tell."""
        return not self._known or entry.previous == self.newest

    def keep_up_to(self, end: FeedPosition) -> None:
        """Forget those that are no part of a feed that ends at `end`."""
        known = self._known.items()
        self._known = {d: e for d, e in known if end.includes(e.record.feed_number, d)}

    def replay_of(self, run: str) -> Verified[Erasure] | None:
        """The erasure for which a run repeats rounds; None for any other run."""
        return next((e for e in reversed(self.all) if e.record.replay_run == run), None)

    def revoking(self, digest: str) -> Verified[Erasure] | None:
        """The erasure by which an adapter is revoked, if it is."""
        return next((e for e in self.all if digest in e.record.revoked), None)
