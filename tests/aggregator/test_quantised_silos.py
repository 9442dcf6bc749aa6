"""A round in which a silo holds its base weights quantised: records, report, page, card, audit."""

import pytest

from aggregator.attempt import SiloRecords
from aggregator.audit.report_audit import audit
from aggregator.feed.reading import read_federation, read_report
from aggregator.report.bundle import Bundle, bundle_of
from aggregator.report.files import read_bundle
from data_contracts.protocol.envelope import seal
from data_contracts.protocol.payload import canonical_bytes, table_bytes
from silo_agent.config import TrainingSection
from tests.aggregator.federation_samples import COHORT, Federation, federation, key
from tests.aggregator.test_model_card import card
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import Behaviour

SENTENCE = "says that it held the base model's frozen weights rounded to {} bits each"


def one_quantised(fed: Federation, base_weights: str = "4-bit") -> list[SiloRecords]:
    verdict = fed.verdict("bank-a")
    small = fed.submission("bank-a", verdict, base_weights=base_weights)
    rest = [fed.silo(silo) for silo in COHORT if silo != "bank-a"]
    return [fed.silo("bank-a", submission=small), *rest]


def failed(fed: Federation, bundle: Bundle) -> list[str]:
    return [claim.name for claim in audit(bundle, fed.membership) if claim.outcome == "fail"]


def test_a_round_with_a_quantised_silo_is_merged_told_and_audited(
    make_federation: MakeFederation,
) -> None:
    played = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST, c=Behaviour.HONEST)
    played.silos["silo-b"].training = TrainingSection(base_weights="8-bit", zero_stage=1)
    plan = played.open()
    played.play(plan)
    c = played.coordinator()
    report = read_report(c, read_federation(c), plan)
    assert report is not None and report.record.outcome == "published"
    assert {silo.silo: silo.base_weights for silo in report.record.silos} == {
        "silo-a": None,
        "silo-b": "8-bit",
        "silo-c": None,
    }
    page = played.settings.home / "reports" / "run-1-round-0001.html"
    assert SENTENCE.format(8) in page.read_text().replace("&#39;", "'")
    claims = audit(read_bundle(page), played.pinned)
    assert [claim.name for claim in claims if claim.outcome == "fail"] == []


@pytest.mark.parametrize(("base_weights", "bits"), [("8-bit", 8), ("4-bit", 4)])
def test_the_page_says_it_in_plain_words_of_that_institution_alone(
    base_weights: str, bits: int
) -> None:
    fed = federation()
    text = fed.page_text(fed.finished(one_quantised(fed, base_weights)))
    assert text.count("frozen weights rounded") == 1
    assert f"Harbour Savings Bank {SENTENCE.format(bits)}" in text.replace("bank-a ", "")
    assert "the losses below are measured with the base model as it is" in text
    plain = fed.page_text(fed.finished([fed.silo(silo) for silo in COHORT]))
    assert "frozen weights rounded" not in plain


def test_the_card_counts_them_and_names_nobody() -> None:
    fed = federation()
    text = card(fed, fed.finished(one_quantised(fed)))
    assert "rounded to 8 or 4 bits at 1 of 3 institutions that contributed" in text
    assert "rounded to 8" not in card(fed, fed.finished([fed.silo(silo) for silo in COHORT]))


def test_records_of_a_round_in_full_weights_are_what_earlier_releases_wrote() -> None:
    fed = federation()
    attempt = fed.finished([fed.silo(silo) for silo in COHORT])
    report = fed.report(attempt).record
    assert b"base_weights" not in (table_bytes(report) or b"") + canonical_bytes(report)


def test_an_auditor_finds_base_weights_that_the_report_tells_otherwise() -> None:
    fed = federation()
    attempt = fed.finished(one_quantised(fed))
    report = fed.report(attempt).record
    assert failed(fed, bundle_of(fed.report(attempt), attempt)) == []
    for said in ("8-bit", None):
        changed = report.silos[0].model_copy(update={"base_weights": said})
        silos = (changed, *report.silos[1:])
        forged = seal(report.model_copy(update={"silos": silos}), key("coordinator"))
        assert "report follows from evidence" in failed(fed, bundle_of(forged, attempt))
