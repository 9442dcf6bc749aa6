"""Whom a round waits for, and what ends it from outside."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from aggregator.attempt import Attempt, SiloRecords
from aggregator.decisions.interruption import interruption_of
from aggregator.decisions.stage import owing_answer, owing_evaluation
from data_contracts.protocol.envelope import Verified, seal
from data_contracts.protocol.records import Close
from data_contracts.protocol.records.close import Admitted
from data_contracts.protocol.records.evidence_ref import LOCAL_ADAPTER, EvidenceRef
from data_contracts.protocol.records.membership import Revocation
from data_contracts.protocol.trusted_feed import TrustedFeed
from tests.aggregator.federation_samples import COHORT, adapter_ref, federation
from tests.data_contracts.test_trusted_feed import feed_of, revoking
from tests.infra.record_samples import COORDINATOR, FIRST, NOW, SILO, abort, membership, plan

FED = federation()
NAME = COHORT[0]
CANDIDATE = FED.candidate(FED.close([FED.silo(silo) for silo in COHORT]))


def own() -> SiloRecords:
    return FED.silo(NAME)


OWES_NOTHING: list[tuple[str, Callable[[], SiloRecords]]] = [
    ("refused after the close", lambda: replace(own(), late_refusal=FED.refusal(NAME))),
    ("no verdict", lambda: replace(own(), verdict=None)),
    ("failed", lambda: replace(own(), verdict=FED.verdict(NAME, passed=False))),
    ("lets no losses out", lambda: replace(own(), verdict=FED.verdict(NAME, evaluates=False))),
    ("has evaluated", lambda: replace(own(), evaluation=FED.evaluation(NAME, CANDIDATE))),
    ("refused", lambda: replace(own(), refusal=FED.refusal(NAME))),
    ("signs twice", lambda: replace(own(), equivocated=True)),
]


@pytest.mark.parametrize(("_why", "records"), OWES_NOTHING, ids=[why for why, _ in OWES_NOTHING])
def test_nobody_waits_for_the_losses_of_a_silo_that_will_not_send_them(
    _why: str, records: Callable[[], SiloRecords]
) -> None:
    assert NAME in owing_evaluation(FED.attempt([own()]))
    assert NAME not in owing_evaluation(FED.attempt([records()]))


def test_nobody_waits_for_an_answer_that_is_there_or_will_not_come() -> None:
    waiting = replace(own(), submission=None)
    assert NAME in owing_answer(FED.attempt([waiting]))
    for records in (
        own(),
        replace(waiting, equivocated=True),
        replace(waiting, refusal=FED.refusal(NAME)),
        replace(waiting, verdict=FED.verdict(NAME, passed=False)),
    ):
        assert NAME not in owing_answer(FED.attempt([records]))


PLAN = plan(1, None)


def closed(*held: EvidenceRef) -> Verified[Close]:
    """silo-a is admitted, on records that nobody looks at here."""
    adapter = adapter_ref("x")
    refs = [
        EvidenceRef(kind=LOCAL_ADAPTER, silo="silo-a", digest=digest)
        for digest in ("1" * 64, "2" * 64, adapter.digest)
    ]
    admitted = Admitted(
        silo="silo-a",
        submission_digest="1" * 64,
        verdict_digest="2" * 64,
        adapter=adapter,
        weight=1,
    )
    record = Close.on(
        PLAN,
        NOW,
        admitted=(admitted,),
        rejected=(),
        refused=(),
        missing=(),
        held=(*refs, *held),
    )
    return seal(record, COORDINATOR)


def ended_by(feed: TrustedFeed, attempt: Attempt) -> str | None:
    found = interruption_of(feed, attempt)
    return found.rule if found else None


def test_a_round_whose_coordinator_s_key_is_revoked_ends() -> None:
    feed = feed_of(PLAN)
    attempt = Attempt(FIRST, PLAN, {})
    assert ended_by(feed, attempt) is None
    feed.add_membership(revoking(PLAN).envelope)
    assert ended_by(feed, attempt) == "coordinator.revoked"
    over = replace(attempt, abort=abort(2, PLAN.digest))
    assert ended_by(feed, over) is None
    close = FED.close([FED.silo(silo) for silo in COHORT])
    decided = FED.decision(FED.candidate(close), {})
    assert ended_by(feed, replace(attempt, decision=decided)) is None


def test_a_round_whose_admitted_silo_s_key_is_revoked_ends() -> None:
    feed = feed_of(PLAN)
    open_, attempt = Attempt(FIRST, PLAN, {}), Attempt(FIRST, PLAN, {}, close=closed())
    assert ended_by(feed, attempt) is None
    gone = Revocation(public_key=SILO.public_key_hex, last_feed_number=1)
    feed.add_membership(membership(2, FIRST, PLAN, silos=(), revokes=(gone,)).envelope)
    assert ended_by(feed, attempt) == "silo.revoked"
    assert ended_by(feed, open_) is None, "before the close the silo is only left out"


def test_a_round_of_which_something_was_erased_ends() -> None:
    verdict = FED.verdict(NAME)
    held = EvidenceRef(kind="verdict", silo="silo-a", digest=verdict.digest)
    attempt = Attempt(FIRST, PLAN, {}, close=closed(held))
    assert ended_by(feed_of(PLAN), attempt) == "evidence.erased"
    there = {"silo-a": SiloRecords("silo-a", verdict=verdict)}
    assert ended_by(feed_of(PLAN), replace(attempt, silos=there)) is None
