"""Memberships and feed as years, a thief or a dishonest storage could leave them."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
import rfc8785

from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.dsse import key_id
from data_contracts.protocol.envelope import Verified, seal
from data_contracts.protocol.membership_chain import CoordinatorTrust, earlier_after
from data_contracts.protocol.payload import canonical_bytes
from data_contracts.protocol.records import Abort, Erasure, Membership, RoundPlan
from data_contracts.protocol.records.membership import EarlierMembership, Member, Revocation
from data_contracts.protocol.trusted_feed import FedAttempt, FeedPosition, TrustedFeed
from infra.signing_keys import SigningKey
from tests.data_contracts.test_envelope import envelope_of
from tests.infra.record_samples import (
    COORDINATOR,
    FIRST,
    HOUR,
    NOW,
    ROOT,
    SILO,
    STRANGER,
    abort,
    membership,
    new_key,
    plan,
)

NEW = new_key()
OLD_KEY, NEW_KEY = COORDINATOR.public_key_hex, NEW.public_key_hex

Entry = Verified[RoundPlan] | Verified[Abort] | Verified[Erasure]


def feed_of(*entries: Entry, pinned: Verified[Membership] = FIRST) -> TrustedFeed:
    feed = TrustedFeed(pinned)
    for entry in entries:
        assert feed.add_entry([entry.envelope]) is not None
    return feed


def rule_of(action: Any, *arguments: Any) -> str:
    with pytest.raises(UntrustedInputError) as caught:
        action(*arguments)
    return caught.value.rule


def rotated(after: Entry, **changes: Any) -> Verified[Membership]:
    """Membership 2: another coordinator key from the entry after `after` on."""
    return membership(2, FIRST, after, **{"coordinator_key": NEW_KEY} | changes)


def revoking(after: Entry, **named: str) -> Verified[Membership]:
    """As `rotated`, and somebody else may have the old key."""
    last = Revocation(
        public_key=OLD_KEY,
        last_feed_number=after.record.feed_number,
        plan_digest=after.digest,
        **named,
    )
    return rotated(after, revokes=(last,))


class TestFeed:
    def test_plans_and_aborts_in_order(self) -> None:
        first = plan(1, None)
        ended = abort(2, first.digest)
        again = plan(3, ended.digest)
        feed = feed_of(first)
        assert feed.attempt == FedAttempt(first)
        assert feed.add_entry([ended.envelope]) == ended
        assert feed.attempt == FedAttempt(first, ended)
        assert feed.add_entry([again.envelope]) == again
        assert feed.head == FeedPosition(3, again.digest)
        assert feed.attempt == FedAttempt(again)

    def test_nothing_or_a_strangers_plan_is_no_entry(self) -> None:
        feed = feed_of()
        assert feed.add_entry([]) is None
        assert feed.add_entry([plan(1, None, STRANGER).envelope, b"junk"]) is None
        assert feed.head == FeedPosition()

    def test_a_strangers_plan_beside_the_coordinators_changes_nothing(self) -> None:
        feed, genuine = feed_of(), plan(1, None)
        assert feed.add_entry([plan(1, None, STRANGER).envelope, genuine.envelope]) == genuine

    def test_two_entries_for_one_number_halt(self) -> None:
        first = plan(1, None)
        two = [plan(2, first.digest).envelope, abort(2, first.digest).envelope]
        assert rule_of(feed_of(first).add_entry, two) == "feed.equivocation"

    def test_a_broken_chain_halts(self) -> None:
        first = plan(1, None)
        for feed, entry in (
            (feed_of(first), plan(2, "9" * 64)),
            (feed_of(), plan(1, "9" * 64)),
            (feed_of(), abort(1, "9" * 64)),
        ):
            assert rule_of(feed.add_entry, [entry.envelope]) == "feed.chain"

    def test_an_entry_under_another_number_halts(self) -> None:
        assert rule_of(feed_of().add_entry, [plan(2, None).envelope]) == "feed.number"

    @pytest.mark.parametrize(
        ("place", "goes_back"),
        [((1, 1), True), ((2, 1), True), ((2, 2), True), ((2, 3), False), ((3, 1), False)],
    )
    def test_a_plan_of_a_round_that_was_reached_before_is_known_to_go_back(
        self, place: tuple[int, int], goes_back: bool
    ) -> None:
        first = plan(1, None)
        second = plan(2, first.digest, round=2, attempt=2)
        third = plan(3, second.digest, round=place[0], attempt=place[1])
        feed = feed_of(first, second, third)
        assert feed.attempt is not None and feed.attempt.goes_back is goes_back

    def test_who_went_back_cannot_go_on_from_there(self) -> None:
        """The height of a run is the highest plan, not the one before."""
        first = plan(1, None, round=5)
        back = plan(2, first.digest, round=1)
        on = plan(3, back.digest, round=2)
        feed = feed_of(first, back, on)
        assert feed.attempt is not None and feed.attempt.goes_back

    def test_another_run_begins_at_its_first_round(self) -> None:
        first = plan(1, None, round=5)
        other = plan(2, first.digest, run="run-b", round=1)
        feed = feed_of(first, other)
        assert feed.attempt is not None and not feed.attempt.goes_back

    def test_a_plan_that_became_void_is_no_height(self) -> None:
        """A thief's round 50 keeps nobody from round 2."""
        first = plan(1, None)
        thief = plan(2, first.digest, round=50)
        newest = revoking(first)
        feed = feed_of(first, thief)
        feed.add_membership(newest.envelope)
        again = plan(2, first.digest, NEW, newest, round=2)
        assert feed.add_entry([again.envelope]) == again
        assert feed.attempt is not None and not feed.attempt.goes_back

    def test_a_void_plan_is_not_the_newest_of_its_run(self) -> None:
        """The entry at which the new membership begins is known, of another run."""
        first = plan(1, None, run="run-b")
        thief = plan(2, first.digest)
        feed = feed_of(first, thief)
        feed.add_membership(revoking(first).envelope)
        assert feed.attempt_of_run("run-a") is None
        assert feed.attempt_of_run("run-b") == FedAttempt(first)

    def test_what_a_later_release_signed_is_not_passed_over(self) -> None:
        """It counts for whoever can read it: reading on without it would fork the feed."""
        later = RoundPlan.payload_type().replace("v2", "v3")
        signed = envelope_of(canonical_bytes(plan(1, None).record), later, COORDINATOR)
        assert rule_of(feed_of().add_entry, [signed]) == "envelope.newer"

    def test_an_entry_of_another_federation_is_none(self) -> None:
        feed, foreign = feed_of(), plan(1, None, federation="another")
        assert rule_of(feed.next_entry, foreign.envelope) == "feed.federation"
        assert feed.add_entry([foreign.envelope]) is None

    def test_what_would_be_next_has_its_number(self) -> None:
        assert rule_of(feed_of().next_entry, plan(2, None).envelope) == "feed.number"

    def test_what_is_named_by_digest_was_signed_by_a_coordinator_all_the_same(self) -> None:
        """A key that counts elsewhere is none of this federation's."""
        elsewhere = membership(coordinator_key=STRANGER.public_key_hex)
        foreign = plan(1, None, STRANGER, elsewhere)
        ended = abort(2, foreign.digest, key=STRANGER)
        feed_of(foreign, ended, pinned=elsewhere)
        for entry in (foreign, ended):
            feed = TrustedFeed(FIRST)
            feed.add_membership(rotated(entry).envelope)
            assert feed.lacks_head
            assert rule_of(feed.add_head, entry.envelope) == "envelope.signature"

    def test_the_newest_plan_of_each_run_is_kept(self) -> None:
        first = plan(1, None)
        other = plan(2, first.digest, run="run-b")
        feed = feed_of(first, other)
        assert feed.attempt is not None and feed.attempt.plan == other
        kept = feed.attempt_of_run("run-a")
        assert kept is not None and kept.plan == first
        assert feed.attempt_of_run("run-c") is None


class TestJoinsAndRotation:
    def test_a_join_counts_from_the_next_plan(self) -> None:
        first = plan(1, None)
        feed = feed_of(first)
        joined = feed.add_membership(membership(2, FIRST, first).envelope)
        assert feed.attempt is not None and feed.attempt.plan == first
        assert feed.membership_of(first) == FIRST
        old, new = plan(2, first.digest), plan(2, first.digest, under=joined)
        assert feed.add_entry([old.envelope]) is None
        assert feed.add_entry([old.envelope, new.envelope]) == new

    def test_a_plan_that_raced_with_a_join_is_given_up_for_the_one_after_it(self) -> None:
        """The coordinator wrote a plan before it saw the membership, and a silo believed it."""
        first = plan(1, None)
        raced = plan(2, first.digest)
        feed = feed_of(first, raced)
        joined = feed.add_membership(membership(2, FIRST, first).envelope)
        assert feed.head == FeedPosition(1, first.digest)
        assert feed.lacks_head
        assert feed.add_head(first.envelope) == first
        new = plan(2, first.digest, under=joined)
        assert feed.add_entry([raced.envelope, new.envelope]) == new

    def test_a_rotated_key_finishes_its_attempt_and_signs_no_other(self) -> None:
        first = plan(1, None)
        feed = feed_of(first)
        feed.add_membership(rotated(first).envelope)
        assert feed.coordinator_trust(first).keys == {OLD_KEY}
        assert feed.coordinator_trust(first).only is None
        assert feed.add_entry([plan(2, first.digest).envelope]) is None
        forged = plan(2, first.digest, COORDINATOR, under=feed.membership)
        assert feed.add_entry([forged.envelope]) is None
        mine = plan(2, first.digest, NEW, under=feed.membership)
        assert feed.add_entry([mine.envelope]) == mine
        assert feed.coordinator_trust(mine).keys == {NEW_KEY}

    @pytest.mark.parametrize(("key", "counts"), [(COORDINATOR, 1), (NEW, 1), (STRANGER, 0)])
    def test_old_and_new_key_may_abort_the_attempt_of_the_old(
        self, key: SigningKey, counts: int
    ) -> None:
        first = plan(1, None)
        feed = feed_of(first)
        feed.add_membership(rotated(first).envelope)
        ended = abort(2, first.digest, key=key)
        assert feed.add_entry([ended.envelope]) == (ended if counts else None)

    def test_a_rotated_key_does_not_abort_a_later_attempt(self) -> None:
        first = plan(1, None)
        feed = feed_of(first)
        feed.add_membership(rotated(first).envelope)
        mine = plan(2, first.digest, NEW, under=feed.membership)
        assert feed.add_entry([mine.envelope]) == mine
        assert feed.add_entry([abort(3, mine.digest).envelope]) is None

    @pytest.mark.parametrize("named", ["an older plan", "nothing known", "one that was aborted"])
    def test_a_rotated_key_aborts_no_attempt_but_its_own(self, named: str) -> None:
        first = plan(1, None)
        second = plan(2, first.digest)
        feed = feed_of(first, second)
        feed.add_membership(rotated(second).envelope)
        if named == "one that was aborted":
            ended = abort(3, second.digest, key=NEW)
            assert feed.add_entry([ended.envelope]) == ended
            stray = abort(4, ended.digest, plan_digest=second.digest)
        else:
            digest = first.digest if named == "an older plan" else "7" * 64
            stray = abort(3, second.digest, plan_digest=digest)
        assert feed.add_entry([stray.envelope]) is None

    def test_contracts_signed_with_a_rotated_key_go_on(self) -> None:
        first = plan(1, None)
        feed = feed_of(first)
        feed.add_membership(rotated(first).envelope)
        assert feed.contract_keys() == {OLD_KEY, NEW_KEY}
        assert feed.report_keys(first) == {OLD_KEY, NEW_KEY}

    def test_who_comes_later_begins_where_the_newest_membership_does(self) -> None:
        first = plan(1, None)
        ended = abort(2, first.digest)
        third = plan(3, ended.digest)
        feed = TrustedFeed(FIRST)
        feed.add_membership(membership(2, FIRST, third).envelope)
        assert feed.head == FeedPosition(3, third.digest) and feed.lacks_head
        assert feed.add_head(third.envelope) == third
        assert feed.attempt is not None and feed.attempt.plan == third
        assert rule_of(feed.add_head, plan(3, "9" * 64).envelope) == "feed.chain"

    def test_an_attempt_that_ended_unseen_is_not_taken_for_the_one_in_force(self) -> None:
        """The silo was off from entry 1 on, and entry 3 ends a plan that it never saw."""
        first = plan(1, None)
        second = plan(2, first.digest)
        ended = abort(3, second.digest)
        feed = feed_of(first)
        feed.add_membership(membership(2, FIRST, ended).envelope)
        assert feed.add_head(ended.envelope) == ended
        assert feed.attempt is None and not feed.lacks_head


class TestRevocation:
    def setup_method(self) -> None:
        self.first = plan(1, None)
        self.feed = feed_of(self.first)

    def test_what_the_thief_wrote_after_the_named_entry_is_nothing(self) -> None:
        stolen = plan(2, self.first.digest)
        assert self.feed.add_entry([stolen.envelope]) == stolen
        new = self.feed.add_membership(revoking(self.first).envelope)
        assert self.feed.head == FeedPosition(1, self.first.digest)
        mine = plan(2, self.first.digest, NEW, under=new)
        under_new = plan(2, self.first.digest, under=new)
        junk: list[Entry] = [stolen, abort(2, self.first.digest), under_new]
        assert self.feed.add_entry([e.envelope for e in junk]) is None
        assert self.feed.add_entry([e.envelope for e in [*junk, mine]]) == mine

    def test_of_the_last_attempt_only_what_is_named_counts(self) -> None:
        self.feed.add_membership(revoking(self.first, close_digest="5" * 64).envelope)
        trust = self.feed.coordinator_trust(self.first)
        assert trust == CoordinatorTrust(frozenset({OLD_KEY}), frozenset({"5" * 64}))

    def test_nothing_of_the_last_attempt_counts_where_nothing_is_named(self) -> None:
        self.feed.add_membership(revoking(self.first).envelope)
        assert self.feed.coordinator_trust(self.first).only == frozenset()

    def test_the_new_key_ends_the_attempt_of_the_old_and_the_thief_does_not(self) -> None:
        self.feed.add_membership(revoking(self.first).envelope)
        mine = abort(2, self.first.digest, key=NEW)
        stolen = abort(2, self.first.digest, "stolen")
        assert self.feed.add_entry([stolen.envelope, mine.envelope]) == mine

    def test_earlier_attempts_of_the_key_still_count(self) -> None:
        second = plan(2, self.first.digest)
        self.feed.add_entry([second.envelope])
        self.feed.add_membership(revoking(second).envelope)
        assert self.feed.coordinator_trust(self.first).only is None
        assert self.feed.coordinator_trust(second).only == frozenset()

    def test_two_entries_of_the_thief_below_the_named_one_do_not_halt_who_was_away(self) -> None:
        second = plan(2, self.first.digest)
        self.feed.add_membership(revoking(second).envelope)
        assert self.feed.head == FeedPosition(2, second.digest)
        assert self.feed.add_head(second.envelope) == second

    def test_the_root_says_which_of_two_entries_is_the_real_one(self) -> None:
        seen, real = plan(2, self.first.digest), plan(2, self.first.digest, round=7)
        self.feed.add_entry([seen.envelope])
        self.feed.add_membership(revoking(real).envelope)
        assert self.feed.lacks_head and self.feed.add_head(real.envelope) == real

    def test_nothing_is_kept_that_is_not_known_to_lead_to_the_named_entry(self) -> None:
        """Storage showed this silo a branch of the thief's, with a plan below the named number."""
        forged = plan(2, self.first.digest)
        other = plan(2, self.first.digest, round=7)
        later = plan(3, other.digest)
        self.feed.add_entry([forged.envelope])
        self.feed.add_entry([abort(3, forged.digest).envelope])
        self.feed.add_membership(revoking(later).envelope)
        assert self.feed.attempt is None and self.feed.lacks_head
        assert self.feed.add_head(later.envelope) == later

    def test_what_was_revoked_before_stays_revoked_in_every_later_version(self) -> None:
        new = self.feed.add_membership(revoking(self.first).envelope)
        later = membership(3, new, self.first, coordinator_key=NEW_KEY)
        assert TrustedFeed(later).contract_keys() == {NEW_KEY}
        assert OLD_KEY in {entry.public_key for entry in later.record.revoked}

    def test_a_revoked_key_signs_neither_contracts_nor_reports(self) -> None:
        self.feed.add_membership(revoking(self.first).envelope)
        assert self.feed.contract_keys() == {NEW_KEY} == self.feed.report_keys(self.first)

    def test_a_revoked_key_does_not_come_back(self) -> None:
        new = self.feed.add_membership(revoking(self.first).envelope)
        with pytest.raises(ValueError, match="and nobody's"):
            membership(3, new, self.first, coordinator_key=OLD_KEY)
        silo = Member(silo="silo-b", public_key=OLD_KEY)
        with pytest.raises(ValueError, match="and nobody's"):
            membership(3, new, self.first, coordinator_key=NEW_KEY, silos=(silo,))
        forgotten = membership(3, new, self.first, coordinator_key=OLD_KEY, revoked=())
        assert rule_of(self.feed.add_membership, forgotten.envelope) == "membership.revoked"

    def test_a_silos_revoked_key_stops_counting_on_plans_that_name_it(self) -> None:
        assert self.feed.silo_key(self.first, "silo-a") == SILO.public_key_hex
        revoked = Revocation(public_key=SILO.public_key_hex)
        gone = membership(2, FIRST, self.first, silos=(), revokes=(revoked,))
        self.feed.add_membership(gone.envelope)
        assert self.feed.silo_key(self.first, "silo-a") is None

    def test_a_silo_that_left_finishes_its_round(self) -> None:
        self.feed.add_membership(membership(2, FIRST, self.first, silos=()).envelope)
        assert self.feed.silo_key(self.first, "silo-a") == SILO.public_key_hex
        assert self.feed.silo_key(self.first, "silo-x") is None


class TestRestart:
    def restored(self, feed: TrustedFeed, *newer: Verified[Membership]) -> TrustedFeed:
        again = TrustedFeed(FIRST)
        for later in (*feed.memberships[1:], *newer):
            again.add_membership(later.envelope)
        again.restore(feed.head, feed.attempts, feed.membership.record.number)
        return again

    def test_a_restart_goes_on_where_it_was(self) -> None:
        first = plan(1, None)
        feed = feed_of(first)
        feed.add_membership(rotated(first).envelope)
        ended = abort(2, first.digest, key=NEW)
        feed.add_entry([ended.envelope])
        again = self.restored(feed)
        assert (again.head, again.attempt) == (feed.head, feed.attempt)

    def test_a_membership_that_came_meanwhile_counts(self) -> None:
        first = plan(1, None)
        feed = feed_of(first, plan(2, first.digest))
        again = self.restored(feed, revoking(first))
        assert again.head == FeedPosition(1, first.digest)
        assert again.attempt is None and again.lacks_head


ELSEWHERE = {
    "previous_digest": "9" * 64,
    "earlier": (EarlierMembership(digest="9" * 64, after_feed_number=0),),
}


class TestMemberships:
    roots = (new_key(), new_key(), new_key())

    def version(
        self,
        number: int,
        previous: Verified[Membership] | None,
        signers: Sequence[SigningKey],
        roots: Sequence[SigningKey] | None = None,
        **changes: Any,
    ) -> Verified[Membership]:
        keys = tuple(key.public_key_hex for key in roots or self.roots)
        before = previous.record.root_keys if previous else ()
        retired = tuple(key for key in before if key not in keys)
        fields = {"root_keys": keys, "root_threshold": 2, "retired_root_keys": retired}
        return membership(number, previous, None, *signers, **fields | changes)

    def first(self) -> Verified[Membership]:
        return self.version(1, None, self.roots[:2])

    def refused(self, pinned: Verified[Membership], later: bytes) -> str:
        return rule_of(TrustedFeed(pinned).add_membership, later)

    def test_root_keys_rotate_step_by_step(self) -> None:
        one = self.first()
        new = (*self.roots[1:], new_key())
        two = self.version(2, one, (*self.roots[:2], new[1]), new)
        three = self.version(3, two, new[:2], new)
        feed = TrustedFeed(one)
        assert [feed.add_membership(v.envelope) for v in (two, three)] == [two, three]
        assert feed.memberships == (one, two, three)

    def test_older_versions_follow_from_any_newer_one(self) -> None:
        one = self.first()
        new = (*self.roots[1:], new_key())
        two = self.version(2, one, (*self.roots[:2], new[1]), new)
        three = self.version(3, two, new[:2], new)
        feed = TrustedFeed(three)
        assert rule_of(feed.add_earlier_membership, one.envelope) == "membership.chain"
        feed.add_earlier_membership(two.envelope)
        feed.add_earlier_membership(one.envelope)
        assert feed.memberships == (one, two, three)
        assert rule_of(feed.add_earlier_membership, one.envelope) == "membership.chain"

    def test_a_lost_root_key_is_replaced_by_the_others(self) -> None:
        one = self.first()
        new = (*self.roots[:2], new_key())
        two = self.version(2, one, self.roots[:2], new)
        assert TrustedFeed(one).add_membership(two.envelope) == two

    def test_a_rollback_is_refused(self) -> None:
        one = self.first()
        two = self.version(2, one, self.roots[:2])
        assert self.refused(two, one.envelope) == "membership.number"
        assert self.refused(two, two.envelope) == "membership.number"

    @pytest.mark.parametrize(
        ("number", "changes", "rule"),
        [
            (2, {"federation": "other"}, "membership.federation"),
            (2, ELSEWHERE, "membership.chain"),
            (2, {"retired_root_keys": (SILO.public_key_hex,)}, "membership.roots"),
        ],
    )
    def test_what_does_not_follow_is_refused(
        self, number: int, changes: dict[str, Any], rule: str
    ) -> None:
        one = self.first()
        later = self.version(number, one, self.roots[:2], **changes)
        assert self.refused(one, later.envelope) == rule

    def test_a_version_vouches_for_every_earlier_one(self) -> None:
        one = self.first()
        two = self.version(2, one, self.roots[:2])
        three = self.version(3, two, self.roots[:2])
        four = self.version(4, three, self.roots[:2])
        assert [four.record.vouches_for(v.digest) for v in (one, two, three, four)] == [1, 1, 1, 0]
        forged = (
            *three.record.earlier[:1],
            three.record.earlier[1].model_copy(update={"digest": "8" * 64}),
        )
        own = four.record.earlier[:1]
        other = self.version(4, three, self.roots[:2], earlier=(*own, *forged))
        assert self.refused(three, other.envelope) == "membership.chain"

    def test_a_beginning_before_that_of_the_version_before_is_refused(self) -> None:
        first = plan(1, None)
        two = membership(2, FIRST, first)
        three = membership(3, two, None)
        feed = TrustedFeed(FIRST)
        feed.add_membership(two.envelope)
        assert rule_of(feed.add_membership, three.envelope) == "membership.feed"

    def test_too_few_signatures_are_refused(self) -> None:
        one = self.first()
        single = self.version(2, one, self.roots[:1])
        assert self.refused(one, single.envelope) == "envelope.signature"

    def test_lowering_the_threshold_needs_the_old_threshold(self) -> None:
        one = self.first()
        lower = self.version(2, one, self.roots[:1], root_threshold=1)
        assert self.refused(one, lower.envelope) == "envelope.signature"

    def test_the_new_roots_must_sign_too_and_are_not_enough(self) -> None:
        one = self.first()
        taken = (new_key(), new_key())
        for signers in (self.roots[:2], taken):
            version = self.version(2, one, signers, taken)
            assert self.refused(one, version.envelope) == "envelope.signature"

    def test_a_signer_of_neither_version_spoils_the_envelope(self) -> None:
        one = self.first()
        extra = self.version(2, one, (*self.roots[:2], STRANGER))
        assert self.refused(one, extra.envelope) == "envelope.signature"

    def test_one_key_under_two_ids_counts_once(self) -> None:
        one = self.first()
        twice = json.loads(self.version(2, one, self.roots[:1]).envelope)
        again = {**twice["signatures"][0], "keyid": key_id(self.roots[1].public_key_hex)}
        twice["signatures"] = sorted([*twice["signatures"], again], key=lambda s: s["keyid"])
        assert self.refused(one, rfc8785.dumps(twice)) == "envelope.signature"

    def test_an_expired_membership_is_not_relied_upon(self) -> None:
        feed = TrustedFeed(FIRST)
        feed.require_current(NOW + 23 * HOUR)
        assert rule_of(feed.require_current, NOW + 25 * HOUR) == "membership.expired"

    def test_another_federations_membership_is_no_successor(self) -> None:
        place = {"number": 2, "previous_digest": FIRST.digest, "earlier": earlier_after(FIRST)}
        fields = dict(FIRST.record) | place
        other = seal(Membership(**fields | {"federation": "other"}), ROOT)
        assert self.refused(FIRST, other.envelope) == "membership.federation"


def test_a_report_is_signed_by_who_planned_or_came_later() -> None:
    first = plan(1, None)
    newest = rotated(first)
    feed = feed_of(first)
    feed.add_membership(newest.envelope)
    second = plan(2, first.digest, NEW, newest)
    assert feed.report_keys(first) == {OLD_KEY, NEW_KEY}
    assert feed.report_keys(second) == {NEW_KEY}


def test_a_revoked_key_counts_up_to_its_last_entry() -> None:
    first = plan(1, None)
    feed = feed_of(first)
    feed.add_membership(revoking(first).envelope)
    assert feed.unrevoked([OLD_KEY], 1) == {OLD_KEY}
    assert feed.unrevoked([OLD_KEY], 2) == feed.unrevoked([OLD_KEY]) == frozenset()


def test_a_membership_names_a_thousand_earlier_ones_at_most() -> None:
    entry = EarlierMembership(digest="1" * 64, after_feed_number=0)
    old = FIRST.record.model_copy(update={"earlier": (entry,) * 1000})
    named = earlier_after(Verified(old, "2" * 64, b""))
    assert [len(named), named[0].digest, named[1]] == [1000, "2" * 64, entry]
