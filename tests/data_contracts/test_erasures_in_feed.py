"""What was taken out again, as the feed says it to whoever reads it, and to whoever did not."""

import pytest

from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.known_erasures import KnownErasures, erasure_ref
from data_contracts.protocol.records.plan_terms import ErasureRef
from data_contracts.protocol.trusted_feed import FeedPosition, TrustedFeed
from tests.data_contracts.erasure_samples import WITH_PART, WITHOUT, erasure
from tests.data_contracts.test_trusted_feed import feed_of, revoking, rotated, rule_of
from tests.infra.record_samples import FIRST, STRANGER, abort, plan

FIRST_PLAN = plan(1, None)
ERASED = erasure(2, FIRST_PLAN.digest)


def test_an_erasure_takes_its_place_in_the_feed_and_revokes() -> None:
    feed = feed_of(FIRST_PLAN, ERASED)
    assert feed.head == FeedPosition(2, ERASED.digest)
    assert feed.attempt is not None and feed.attempt.plan == FIRST_PLAN
    assert feed.erasures.revoked == {WITH_PART}
    assert feed.erasures.revoking(WITH_PART) == ERASED
    assert feed.erasures.revoking(WITHOUT) is None
    assert feed.erasures.replay_of("run-b") == ERASED
    assert feed.erasures.replay_of("run-a") is None


def test_a_strangers_erasure_revokes_nothing() -> None:
    feed = feed_of(FIRST_PLAN)
    assert feed.add_entry([erasure(2, FIRST_PLAN.digest, STRANGER).envelope]) is None
    assert feed.erasures.revoked == frozenset()


def test_an_erasure_under_another_membership_is_no_entry() -> None:
    feed = feed_of(FIRST_PLAN)
    feed.add_membership(rotated(FIRST_PLAN).envelope)
    assert feed.add_entry([ERASED.envelope]) is None


def test_an_erasure_that_passes_over_the_one_before_halts() -> None:
    feed = feed_of(FIRST_PLAN, ERASED)
    second = erasure(3, ERASED.digest, silo="silo-c")
    assert rule_of(feed.add_entry, [second.envelope]) == "feed.erasures"
    named = erasure(3, ERASED.digest, silo="silo-c", previous=erasure_ref(ERASED))
    assert feed.add_entry([named.envelope]) == named


def test_whoever_joined_later_is_told_which_erasures_to_fetch() -> None:
    second = erasure(3, ERASED.digest, revoked=(WITHOUT,), previous=erasure_ref(ERASED))
    third = plan(4, second.digest, run="run-b", erasure=erasure_ref(second))
    late = TrustedFeed(FIRST)
    late.restore(FeedPosition(3, second.digest), [], 1)
    assert late.lacks_erasure is None
    late.add_entry([third.envelope])
    for expected in (second, ERASED):
        position = late.lacks_erasure
        assert position is not None
        assert position == FeedPosition(expected.record.feed_number, expected.digest)
        late.add_missed_erasure(position, expected.envelope)
    assert late.lacks_erasure is None
    assert late.erasures.revoked == {WITH_PART, WITHOUT}


def test_another_entry_in_the_place_of_an_erasure_halts() -> None:
    named = ErasureRef(feed_number=1, digest=FIRST_PLAN.digest)
    second = plan(2, FIRST_PLAN.digest, round=2, erasure=named)
    feed = feed_of(FIRST_PLAN, second)
    position = feed.lacks_erasure
    assert position is not None
    with pytest.raises(UntrustedInputError) as caught:
        feed.add_missed_erasure(position, FIRST_PLAN.envelope)
    assert caught.value.rule == "feed.erasures"


def test_an_erasure_after_the_last_entry_of_a_stolen_key_is_nothing() -> None:
    feed = feed_of(FIRST_PLAN, ERASED)
    feed.add_membership(revoking(FIRST_PLAN).envelope)
    assert feed.erasures.revoked == frozenset()


def test_a_membership_that_begins_at_an_erasure_keeps_it_and_needs_no_reading() -> None:
    feed = feed_of(
        FIRST_PLAN, ERASED, ended := abort(3, ERASED.digest, plan_digest=FIRST_PLAN.digest)
    )
    assert feed.attempt is not None and feed.attempt.abort == ended
    feed.add_membership(revoking(ERASED).envelope)
    assert not feed.lacks_head
    assert feed.head == FeedPosition(2, ERASED.digest)
    assert feed.erasures.all == (ERASED,)
    assert feed.attempt is not None and feed.attempt.abort is None


def test_what_a_plan_starts_from_is_all_that_it_names() -> None:
    refs = [ArtifactRef(digest=str(n) * 64, size=n) for n in range(3)]
    record = FIRST_PLAN.record.model_copy(
        update={"starting_adapter": refs[0], "earlier_adapter": refs[1], "server_state": refs[2]}
    )
    assert list(record.starts) == refs
    assert FIRST_PLAN.record.starts == ()


def test_nothing_is_known_at_first() -> None:
    known = KnownErasures()
    assert (known.all, known.newest, known.revoked) == ((), None, frozenset())
