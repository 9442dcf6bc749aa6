"""A reader of the log needs no source: numbers have units, shares say of what."""

import re
from datetime import UTC, datetime
from decimal import Decimal

from flows.round import wording
from silo_agent.release import doors
from tests.aggregator.federation_samples import federation

FED = federation()
SILOS = [FED.silo("bank-a"), FED.silo("hospital-b")]
CLOSE = FED.close(SILOS)
CANDIDATE = FED.candidate(CLOSE, discarded_energy=Decimal("0.011964"), error=Decimal("0.109380"))


def test_an_opened_round_says_whom_it_asks_and_until_when() -> None:
    assert wording.opened(FED.plan.record, FED.plan.digest) == (
        f"round 2 attempt 1: plan {FED.plan.digest[:12]} asks 3 silos, adapters are due by "
        "2026-03-02 10:00 UTC, losses by 2026-03-02 11:00 UTC"
    )


def test_a_closed_round_counts_silos_and_an_aborted_one_says_why() -> None:
    text = wording.closed(CLOSE.record, CLOSE.digest)
    assert text.startswith("round 2: 2 silos admitted, 0 refused, 0 rejected, 1 missing")
    abort = FED.abort()
    assert wording.closed(abort.record, abort.digest) == wording.aborted(abort.record)
    assert "by the rule quorum.not_reached: 1 of 2 needed" in wording.aborted(abort.record)


def test_a_merge_says_what_its_shares_are_shares_of() -> None:
    text = wording.merged(FED.plan.record, CANDIDATE.record)
    assert "1.20 % of the weighted sum's squared norm was dropped when it was cut to rank 2" in text
    assert "the distance to what the rule should give is 10.94 % of that one's norm" in text
    assert not re.search(r"0\.\d{6}", text), "no bare share"
    assert "step" not in text
    stepped = CANDIDATE.record.model_copy(update={"step": Decimal("1.234567")})
    assert wording.merged(FED.plan.record, stepped).endswith(f"{text[-20:]}; the step was 1.23")


def test_a_decision_gives_losses_with_units() -> None:
    evaluations = {s.silo: FED.evaluation(s.silo, CANDIDATE) for s in SILOS}
    text = wording.decided(FED.plan.record, FED.decision(CANDIDATE, evaluations).record)
    assert text == (
        "round 2: published by the rule evaluation.not_worse; mean held-out loss of 2 silos, lower "
        "is better: 2.6000 nats per answer token, 2.9000 with the adapter before"
    )
    nobody = wording.decided(FED.plan.record, FED.decision(CANDIDATE, {}).record)
    assert nobody == ("round 2: held by the rule evaluation.quorum; no silo measured the candidate")


def test_instants_are_of_utc() -> None:
    plan = FED.plan.record.model_copy(
        update={"submit_by": datetime(2026, 12, 31, 23, 59, tzinfo=UTC)}
    )
    assert "2026-12-31 23:59 UTC" in wording.opened(plan, FED.plan.digest)


def test_a_refusal_says_what_can_be_done_where_a_machine_gave_out() -> None:
    assert wording.refused("policy.purpose") == "refused by policy.purpose"
    dead = (doors.TRAINING_FAILED, doors.EVALUATION_FAILED, doors.CHECK_FAILED)
    for refusal in dead:
        assert wording.refused(refusal.rule).startswith(f"refused by {refusal.rule}: ")
    assert "silo_adapters" in wording.refused(doors.TRAINING_FAILED.rule)
