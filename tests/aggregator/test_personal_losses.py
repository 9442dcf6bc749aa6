"""Losses of adapters that institutions keep: told beside the others, and computed again."""

from decimal import Decimal

from aggregator.attempt import Attempt, SiloRecords
from aggregator.audit.report_audit import audit, holds
from aggregator.report.bundle import Bundle, bundle_of
from aggregator.report.compliance_page.loss_change import LossRow, loss_row, spreads
from data_contracts.protocol.envelope import seal
from data_contracts.protocol.payload import canonical_bytes
from data_contracts.protocol.records import Evaluation
from tests.aggregator.federation_samples import COHORT, adapter_ref, federation, key

FED = federation()
TOLD = {"bank-a": Decimal("2.1"), "hospital-b": Decimal("2.5")}


def evidence(told: dict[str, Decimal]) -> Attempt:
    """A whole attempt; the silos in `told` have adapters of their own."""
    close = FED.close([FED.silo(silo) for silo in COHORT])
    candidate = FED.candidate(close, adapter=adapter_ref("new"))
    evaluations = {
        silo: FED.evaluation(silo, candidate, personal_loss=told.get(silo)) for silo in COHORT
    }
    return FED.attempt(
        [FED.silo(silo) for silo in COHORT],
        close=close,
        candidate=candidate,
        evaluations=evaluations,
        decision=FED.decision(candidate, evaluations),
    )


def evaluation_of(silo: SiloRecords) -> Evaluation:
    assert silo.evaluation is not None
    return silo.evaluation.record


def test_what_is_not_told_is_no_part_of_what_is_signed() -> None:
    """So releases before there was the field read such a record, and theirs verify here."""
    told, untold = evidence(TOLD), evidence({})
    assert b"personal" not in canonical_bytes(evaluation_of(untold.of("bank-a")))
    assert b"personal_loss" in canonical_bytes(evaluation_of(told.of("bank-a")))
    report = FED.report(untold)
    assert "personal" not in report.record.model_dump_json()
    assert "Its own adapter" not in FED.page(untold)


def test_the_report_tells_them_and_is_computed_again() -> None:
    found = evidence(TOLD)
    report = FED.report(found)
    assert holds(audit(bundle_of(report, found), FED.membership))
    losses = {silo.silo: silo.losses for silo in report.record.silos}
    first = losses["bank-a"]
    assert first is not None and first.personal == Decimal("2.1")
    forged_losses = first.model_copy(update={"personal": Decimal("1.1")})
    silos = tuple(
        silo.model_copy(update={"losses": forged_losses}) if silo.silo == "bank-a" else silo
        for silo in report.record.silos
    )
    forged = seal(report.record.model_copy(update={"silos": silos}), key("coordinator"))
    bundle = Bundle(forged.envelope, bundle_of(report, found).evidence)
    assert not holds(audit(bundle, FED.membership))


def test_the_page_shows_median_and_worst_of_those_that_told() -> None:
    found = evidence(TOLD)
    page = FED.page(found)
    assert f"After the round, at 2 of {len(COHORT)} institutions" in page
    row = next(
        line for line in page.splitlines() if line.startswith("<tr><td>Its own adapter</td>")
    )
    assert "2.3000" in row and "2.5000" in row


def rows(*values: tuple[str, str | None, str | None]) -> list[LossRow]:
    """Of losses: candidate, personal, own data only."""
    close = FED.close([FED.silo(silo) for silo in COHORT])
    candidate = FED.candidate(close, adapter=adapter_ref("new"))
    made = []
    for everybody, personal, alone in values:
        changes = {
            "candidate_loss": Decimal(everybody),
            "personal_loss": None if personal is None else Decimal(personal),
            "silo_only_loss": None if alone is None else Decimal(alone),
        }
        made.append(loss_row("x", FED.evaluation("bank-a", candidate, **changes).record))
    return made


def test_all_spreads_are_over_the_same_institutions() -> None:
    found = {
        s.name: (s.institutions, s.median, s.worst)
        for s in spreads(rows(("3", "1", "2"), ("5", "2", "4"), ("9", None, "1")))
    }
    assert found == {
        "The adapter for all": (2, Decimal(4), Decimal(5)),
        "Its own adapter": (2, Decimal("1.5"), Decimal(2)),
        "Own data only": (2, Decimal(3), Decimal(4)),
    }
    assert [s.name for s in spreads(rows(("3", "1", None)))] == [
        "The adapter for all",
        "Its own adapter",
    ]
    assert spreads(rows(("3", None, "2"))) == ()
