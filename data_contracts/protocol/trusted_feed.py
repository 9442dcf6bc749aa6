"""What counts of a federation's memberships and feed, decided without I/O.

In the shape of python-tuf's trusted metadata set: whoever reads storage hands bytes in, in order,
and gets verified records or one error; nothing that was added is ever doubted again, except what a
later membership says does not count. Used by silo and coordinator alike.

- Memberships form one chain, forwards by the signatures of the version before, backwards by digest.
- At every number of the feed exactly one membership governs: the newest that begins before it. A
  plan names that one and is signed with its coordinator's key; its whole attempt is judged by it.
- Rotation: an older key finishes, or aborts, the attempt whose plan it signed, and signs no other.
- A plan whose run had come as far before is an entry like others, known as one that goes back.
- Erasure: what it revokes no plan of a coordinator that is right starts from again; which those are
  is known here, and whoever was not there to read one is told which is missing.
- Revocation: of that key the feed counts up to where the membership begins, and of the last attempt
  there what the membership names. Everything else is nothing, wherever it lies.
"""

from collections.abc import Collection, Iterable
from copy import copy
from dataclasses import replace

from data_contracts.errors import UntrustedInputError, contradiction
from data_contracts.protocol.artifact import digest_of_bytes
from data_contracts.protocol.envelope import (
    Verified,
    claims_kind,
    narrowed,
    unverified_record,
    verify,
)
from data_contracts.protocol.fed_attempt import BEGINNING as BEGINNING
from data_contracts.protocol.fed_attempt import FedAttempt as FedAttempt
from data_contracts.protocol.fed_attempt import FeedPosition as FeedPosition
from data_contracts.protocol.known_erasures import KnownErasures
from data_contracts.protocol.membership_chain import MembershipChain
from data_contracts.protocol.payload import NEWER
from data_contracts.protocol.records import Abort, Erasure, Membership, RoundPlan

FeedEntry = RoundPlan | Abort | Erasure


class TrustedFeed(MembershipChain):
    """Memberships and feed as far as they were added; every method raises UntrustedInputError."""

    def __init__(self, pinned: Verified[Membership]) -> None:
        super().__init__(pinned)
        self._head = _begin_of(pinned)
        self._has_head = self._head.digest is None
        self._attempts: dict[str, FedAttempt] = {}
        self._erasures = KnownErasures()

    def copy(self) -> "TrustedFeed":
        """The state of now, for a reader beside whom others go on adding."""
        twin = copy(self)
        twin._memberships, twin._attempts = list(self._memberships), dict(self._attempts)
        twin._erasures = self._erasures.copy()
        return twin

    def add_membership(self, envelope: bytes) -> Verified[Membership]:
        """As `MembershipChain`; what the feed held beyond its beginning is forgotten.

        Whoever reads storage goes on from `head`.
        """
        new = super().add_membership(envelope)
        self._begin(new)
        return new

    @property
    def head(self) -> FeedPosition:
        """The newest entry."""
        return self._head

    @property
    def attempt(self) -> FedAttempt | None:
        """The newest plan of the feed, and its abort."""
        return max(self._attempts.values(), key=lambda a: a.plan.record.feed_number, default=None)

    def attempt_of_run(self, run: str) -> FedAttempt | None:
        """The newest plan of a run, as far back as this feed was read."""
        return self._attempts.get(run)

    @property
    def attempts(self) -> tuple[FedAttempt, ...]:
        """The newest of every run that was read."""
        return tuple(self._attempts.values())

    @property
    def erasures(self) -> KnownErasures:
        """What was taken out of the federation's adapters, as far as it is known here."""
        return self._erasures.copy()

    @property
    def lacks_erasure(self) -> FeedPosition | None:
        """One that counts and was not read; see `add_missed_erasure`."""
        attempt = self.attempt
        missing = self._erasures.missing(attempt.plan if attempt else None)
        return None if missing is None else FeedPosition(missing.feed_number, missing.digest)

    def add_missed_erasure(self, position: FeedPosition, envelope: bytes) -> None:
        """The erasure that `lacks_erasure` names; an entry of another kind halts."""
        found = narrowed(self.entry_at(position, envelope), Erasure)
        if found is None:
            what = f"feed entry {position.number}"
            raise contradiction(what, "an erasure", "another entry", "feed.erasures")
        self._erasures.add(found)

    @property
    def lacks_head(self) -> bool:
        """Whether the entry at `head` is known by digest only; see `add_head`."""
        return not self._has_head

    def add_entry(self, envelopes: Collection[bytes]) -> Verified[FeedEntry] | None:
        """The entry after `head` out of all that lies in its slot; None when nothing there counts.

        Raises with rule `feed.equivocation`, `feed.number` or `feed.chain`.
        """
        counting = {e.digest: e for e in map(self._judged, envelopes) if e is not None}
        if not counting:
            return None
        number = self._head.number + 1
        if len(counting) > 1:
            found = f"{len(counting)} signed by the coordinator"
            raise contradiction(f"feed entry {number}", "one record", found, "feed.equivocation")
        (entry,) = counting.values()
        self._require_next(entry.record)
        self._head = FeedPosition(number, entry.digest)
        self._take(entry)
        return entry

    def next_entry(self, envelope: bytes) -> Verified[FeedEntry]:
        """What `add_entry` would take in; nothing is kept."""
        entry = self._verified(self._head.number + 1, envelope)
        self._require_next(entry.record)
        return entry

    def add_head(self, envelope: bytes) -> Verified[FeedEntry]:
        """The entry at `head`, which is known by digest.

        Of an abort the plan is not known then: it has ended, and nothing starts from it here.
        """
        entry = self.entry_at(self._head, envelope)
        self._take(entry)
        return entry

    def entry_at(self, position: FeedPosition, envelope: bytes) -> Verified[FeedEntry]:
        """An entry that a later one, or a membership, names by digest; it is not kept.

        Whoever named it has judged it; here only its bytes are read.
        """
        if digest_of_bytes(envelope) != position.digest:
            expected = f"digest {position.digest}"
            raise contradiction(f"feed entry {position.number}", expected, "another", "feed.chain")
        keys = self.coordinator_keys()
        if claims_kind(envelope, Abort):
            return verify(envelope, Abort, keys)
        if claims_kind(envelope, Erasure):
            return verify(envelope, Erasure, keys)
        return verify(envelope, RoundPlan, keys)

    def adopt(self, attempt: FedAttempt) -> None:
        """Keep a run's newest attempt that was found by going back from `head`."""
        self._attempts[attempt.plan.record.run] = attempt

    def restore(
        self,
        head: FeedPosition,
        attempts: Iterable[FedAttempt],
        membership_number: int,
        erasures: Iterable[Verified[Erasure]] = (),
    ) -> None:
        """Go on from what was read when `membership_number` was the newest."""
        self._head, self._has_head = head, True
        self._attempts = {attempt.plan.record.run: attempt for attempt in attempts}
        for erasure in erasures:
            self._erasures.add(erasure)
        for membership in self._memberships:
            if membership.record.number > membership_number:
                self._begin(membership)

    # How it decides

    def _judged(self, envelope: bytes) -> Verified[FeedEntry] | None:
        """An entry that counts after `head`, or None for anything else that lies there.

        Raises where a later release has signed it: it counts, and cannot be passed over.
        """
        try:
            return self._verified(self._head.number + 1, envelope)
        except UntrustedInputError as error:
            if error.rule == NEWER:
                raise
            return None

    def _require_next(self, entry: FeedEntry) -> None:
        number = self._head.number + 1
        if entry.feed_number != number:
            found = f"{entry.feed_number}"
            raise contradiction(f"feed entry {number}", f"number {number}", found, "feed.number")
        if entry.previous_digest != self._head.digest:
            expected = f"previous_digest {self._head.digest}"
            raise contradiction(f"feed entry {number}", expected, "another", "feed.chain")
        if isinstance(entry, Erasure) and not self._erasures.are_gone_on_from_by(entry):
            expected = f"an erasure that names the one before it, {self._erasures.newest}"
            raise contradiction(f"feed entry {number}", expected, "another", "feed.erasures")

    def _verified(self, number: int, envelope: bytes) -> Verified[FeedEntry]:
        entry = self._signed(number, envelope)
        federation = self.membership.record.federation
        if entry.record.federation != federation:
            found = entry.record.federation
            raise contradiction(f"feed entry {number}", federation, found, "feed.federation")
        return entry

    def _signed(self, number: int, envelope: bytes) -> Verified[FeedEntry]:
        governing = self.governing(number)
        if claims_kind(envelope, Abort):
            return verify(envelope, Abort, self._abort_keys(number, envelope))
        keys = self.unrevoked([governing.record.coordinator_key], number)
        entry: Verified[RoundPlan] | Verified[Erasure]
        if claims_kind(envelope, Erasure):
            entry = verify(envelope, Erasure, keys)
        else:
            entry = verify(envelope, RoundPlan, keys)
        named = (entry.record.membership_number, entry.record.membership_digest)
        if named != (governing.record.number, governing.digest):
            raise contradiction(
                f"feed entry {number}",
                f"one under membership {governing.record.number}",
                f"one under membership {entry.record.membership_number}",
                "feed.membership",
            )
        return entry

    def _abort_keys(self, number: int, envelope: bytes) -> frozenset[str]:
        """Of the attempt in force its own key and the one that governs now; of any other plan only
        the one that governs."""
        governing = self.governing(number).record.coordinator_key
        attempt = self.attempt
        named = unverified_record(envelope, Abort).plan_digest
        if attempt is None or attempt.abort is not None or attempt.plan.digest != named:
            return self.unrevoked([governing], number)
        own = self.membership_of(attempt.plan).record.coordinator_key
        return self.unrevoked([own, governing], number)

    def _take(self, entry: Verified[FeedEntry]) -> None:
        self._has_head = True
        plan, abort = narrowed(entry, RoundPlan), narrowed(entry, Abort)
        if (erasure := narrowed(entry, Erasure)) is not None:
            self._erasures.add(erasure)
        if plan is not None:
            before = self._attempts.get(plan.record.run)
            attempt = FedAttempt(plan) if before is None else before.followed_by(plan)
            self._attempts[plan.record.run] = attempt
        if abort is not None:
            current = self._attempts.get(abort.record.run)
            if current is not None and current.plan.digest == abort.record.plan_digest:
                self._attempts[abort.record.run] = replace(current, abort=abort)

    def _begin(self, membership: Verified[Membership]) -> None:
        """Let the feed be what a new membership says of it: nothing that was taken in beyond its
        beginning was taken in under it, and what lies between `head` and there is not needed."""
        begin = _begin_of(membership)
        if self._head == begin:
            return
        known = begin.digest is None or begin.digest in self._known()
        kept = (attempt.up_to(begin) for attempt in self._attempts.values() if known)
        self._attempts = {a.plan.record.run: a for a in kept if a is not None}
        self._erasures.keep_up_to(begin)
        self._head = begin
        self._has_head = begin.digest is None or begin.digest in self._known()

    def _known(self) -> set[str]:
        entries = [e for a in self._attempts.values() for e in (a.plan, a.abort)]
        erased = {erasure.digest for erasure in self._erasures.all}
        return erased | {entry.digest for entry in entries if entry is not None}


def _begin_of(membership: Verified[Membership]) -> FeedPosition:
    return FeedPosition(membership.record.after_feed_number, membership.record.after_feed_digest)
