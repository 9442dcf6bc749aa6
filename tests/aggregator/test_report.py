"""The report is a function of the evidence: each outcome, late arrivals, shares and summaries."""

from dataclasses import replace
from decimal import Decimal

import pytest

from aggregator.attempt import SiloRecords
from aggregator.report.round_report import build_report
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.envelope import seal, verify
from data_contracts.protocol.payload import table_bytes
from data_contracts.protocol.records import RoundReport
from tests.aggregator.federation_samples import (
    COHORT,
    Federation,
    adapter_ref,
    allowing,
    federation,
    key,
    minutes,
)

NOW = minutes(126)


def test_a_published_round_is_summed_up_silo_by_silo() -> None:
    fed = federation()
    silos = [fed.silo("bank-a"), fed.silo("hospital-b")]
    refused = SiloRecords("hospital-c", refusal=fed.refusal("hospital-c"))
    report = build_report(fed.finished([*silos, refused]), NOW)
    assert (report.outcome, report.rule) == ("published", "evaluation.not_worse")
    assert report.published_adapter == report.candidate_adapter == adapter_ref("candidate")
    assert report.discarded_energy == Decimal("0.0123")
    assert [(s.silo, s.outcome, s.rule) for s in report.silos] == [
        ("bank-a", "admitted", None),
        ("hospital-b", "admitted", None),
        ("hospital-c", "refused", "policy.purpose"),
    ]
    first, _, last = report.silos
    assert (first.weight_share, first.tokens, first.contract_passed) == (Decimal("0.5"), 5000, True)
    assert first.losses is not None
    assert (first.losses.starting, first.losses.candidate) == (Decimal("2.9"), Decimal("2.6"))
    assert (last.weight_share, last.tokens) == (Decimal(0), 0)
    assert last.contract_passed is None
    assert last.losses is None
    kinds = [(ref.kind, ref.silo) for ref in report.evidence]
    assert kinds[:5] == [
        ("membership", None),
        ("round-plan", None),
        ("close", None),
        ("candidate", None),
        ("decision", None),
    ]
    assert ("refusal", "hospital-c") in kinds


def test_a_held_candidate_leaves_the_starting_adapter_in_force() -> None:
    fed = federation()
    evidence = fed.finished([fed.silo(s) for s in COHORT], candidate_loss=Decimal("3.5"))
    report = build_report(evidence, NOW)
    assert (report.outcome, report.rule) == ("held", "evaluation.mean_worse")
    assert report.published_adapter == adapter_ref("start")


def test_an_abort_before_the_close_still_says_what_each_silo_did() -> None:
    fed = federation()
    failed = fed.verdict("hospital-b", passed=False)
    silos = [fed.silo("bank-a"), SiloRecords("hospital-b", verdict=failed)]
    report = build_report(fed.attempt(silos, abort=fed.abort()), NOW)
    assert (report.outcome, report.rule) == ("aborted", "quorum.not_reached")
    assert [(s.outcome, s.rule) for s in report.silos] == [
        ("rejected", "attempt.aborted"),
        ("refused", "verdict.failed"),
        ("missing", None),
    ]
    assert all(s.weight_share == 0 for s in report.silos)
    assert report.published_adapter == adapter_ref("start")
    assert report.candidate_adapter is None


def test_an_abort_after_the_close_keeps_the_close_s_outcomes() -> None:
    fed = federation()
    silos = [fed.silo(s) for s in COHORT]
    evidence = fed.attempt(silos, close=fed.close(silos), abort=fed.abort())
    assert {s.outcome for s in build_report(evidence, NOW).silos} == {"admitted"}


def test_an_open_attempt_has_no_report() -> None:
    fed = federation()
    with pytest.raises(FederationOperatorError, match="was decided or aborted; found an attempt"):
        build_report(fed.attempt([fed.silo("bank-a")]), NOW)


def test_records_that_arrive_after_close_and_decision_change_nothing() -> None:
    fed = federation()
    silos = [fed.silo("bank-a"), fed.silo("hospital-b")]
    evidence = fed.finished(silos)
    assert evidence.candidate is not None
    late = fed.silo("hospital-c")
    assert late.submission is not None
    candidate = evidence.candidate
    late_to_close = replace(evidence.of("bank-a"), refusal=fed.refusal("bank-a"))
    late_at_all = replace(
        late,
        verdict=fed.verdict("hospital-c", passed=False),
        evaluation=fed.evaluation("hospital-c", candidate),
    )
    silos_then = {**evidence.silos, "bank-a": late_to_close, "hospital-c": late_at_all}
    grown = replace(evidence, silos=silos_then)
    assert build_report(grown, NOW) == build_report(evidence, NOW)


def test_weight_shares_follow_the_capped_tokens() -> None:
    fed = federation()
    silos = []
    for silo, tokens in zip(COHORT, (1000, 2000, 10 * 8 * 128), strict=True):
        verdict = fed.verdict(silo)
        silos.append(fed.silo(silo, submission=fed.submission(silo, verdict, tokens=tokens)))
    report = build_report(fed.finished(silos), NOW)
    shares = [s.weight_share for s in report.silos]
    assert shares == [Decimal("0.090909"), Decimal("0.181818"), Decimal("0.727273")]


def partly(fed: Federation) -> RoundReport:
    """A report of a round in which one silo did 4 of 10 steps and one refused."""
    half = fed.submission("hospital-b", fed.verdict("hospital-b"), steps=4, tokens=2000)
    silos = [
        fed.silo("bank-a"),
        fed.silo("hospital-b", submission=half),
        SiloRecords("hospital-c", refusal=fed.refusal("hospital-c")),
    ]
    return build_report(fed.finished(silos), NOW)


def test_steps_that_were_done_are_told_where_silos_may_do_fewer() -> None:
    fed = allowing(4)
    report = partly(fed)
    assert [(s.silo, s.steps, s.tokens) for s in report.silos] == [
        ("bank-a", 10, 5000),
        ("hospital-b", 4, 2000),
        ("hospital-c", None, 0),
    ]
    assert [s.weight_share for s in report.silos] == [Decimal("0.714286"), Decimal("0.285714"), 0]
    again = verify(
        seal(report, key("coordinator")).envelope, RoundReport, {key("coordinator").public_key_hex}
    )
    assert again.record == report


def test_a_plan_that_asks_for_every_step_has_a_report_that_earlier_releases_read() -> None:
    fed = federation()
    report = build_report(fed.finished([fed.silo(silo) for silo in COHORT]), NOW)
    assert [silo.steps for silo in report.silos] == [None, None, None]
    assert b'"steps"' not in (table_bytes(report) or b"")


def test_a_verdict_on_another_contract_is_not_shown_as_this_contract_s() -> None:
    fed = federation()
    other = fed.verdict("bank-a", contract_digest="0" * 64)
    silos = [
        fed.silo("bank-a", verdict=other, submission=fed.submission("bank-a", other)),
        fed.silo("hospital-b"),
        fed.silo("hospital-c"),
    ]
    summary = build_report(fed.finished(silos), NOW).silos[0]
    assert (summary.outcome, summary.rule) == ("rejected", "verdict.other_contract")
    assert summary.contract_passed is None
