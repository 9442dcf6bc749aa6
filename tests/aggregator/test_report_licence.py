"""The report says what the merged adapter may be passed on under; the audit computes it again."""

from typing import Any

import pytest

from aggregator.attempt import Attempt, SiloRecords
from aggregator.audit.report_audit import audit, holds
from aggregator.report.bundle import bundle_of
from aggregator.report.round_report import build_report
from data_contracts.licences.adapter_licence import NO_LICENCE
from data_contracts.protocol.envelope import seal
from data_contracts.protocol.records.licence_terms import LicenceTerms
from data_contracts.protocol.records.round_report import InheritedLicence
from data_contracts.protocol.records.verdict import LicenceCount
from tests.aggregator.federation_samples import (
    COHORT,
    adapter_ref,
    digest,
    federation,
    key,
    minutes,
)
from tests.data_contracts.record_samples import OWN_LICENCE

FED = federation()
NOW = minutes(126)
SHARE_ALIKE = "CC-BY-SA-4.0 asks for the same terms on what is made from the data"


def licensed(
    silo: str, *licences: str, registered: tuple[LicenceTerms, ...] = (), **submission: Any
) -> SiloRecords:
    """A silo whose data is under these licences."""
    counts = tuple(LicenceCount(licence=licence, records=100) for licence in licences)
    verdict = FED.verdict(silo, licences=counts, registered_licences=registered)
    return FED.silo(silo, verdict=verdict, submission=FED.submission(silo, verdict, **submission))


def inherited(evidence: Attempt) -> InheritedLicence:
    found = build_report(evidence, NOW).adapter_licence
    assert found is not None
    return found


PERMISSIVE = FED.finished([licensed("bank-a", "MIT"), licensed("hospital-b", "CC0-1.0")])
ONE_SHARES_ALIKE = FED.finished(
    [licensed("bank-a", "MIT"), licensed("hospital-b", "CC-BY-SA-4.0", "CC0-1.0")]
)


def test_permissive_data_leaves_the_base_model_s_licence() -> None:
    licence = inherited(PERMISSIVE)
    assert licence.expression == "Apache-2.0"
    assert licence.attribution == ("Apache-2.0", "MIT")
    assert "Apache-2.0 binds what is made from the base model" in licence.reasons


def test_share_alike_data_of_one_silo_binds_the_merged_adapter() -> None:
    licence = inherited(ONE_SHARES_ALIKE)
    assert licence.expression == "Apache-2.0 AND CC-BY-SA-4.0"
    assert licence.attribution == ("Apache-2.0", "CC-BY-SA-4.0", "MIT")
    assert SHARE_ALIKE in licence.reasons
    text = FED.page_text(ONE_SHARES_ALIKE)
    assert "It may be passed on under Apache-2.0 AND CC-BY-SA-4.0" in text
    assert "Authors and notices to be named: Apache-2.0, CC-BY-SA-4.0, MIT." in text
    assert SHARE_ALIKE in text


def test_the_audit_computes_the_licence_again() -> None:
    report = FED.report(ONE_SHARES_ALIKE)
    honest = bundle_of(report, ONE_SHARES_ALIKE)
    assert holds(audit(honest, FED.membership))
    freer = report.record.model_copy(update={"adapter_licence": inherited(PERMISSIVE)})
    claims = audit(bundle_of(seal(freer, key("coordinator")), ONE_SHARES_ALIKE), FED.membership)
    assert [c.name for c in claims if c.outcome == "fail"] == ["report follows from evidence"]


@pytest.mark.parametrize(
    "third",
    [
        SiloRecords("hospital-c", refusal=FED.refusal("hospital-c")),
        licensed("hospital-c", "CC-BY-SA-4.0", issued_at=minutes(90)),
        licensed("hospital-c", "CC-BY-SA-4.0", adapter=adapter_ref("start")),
    ],
)
def test_data_that_did_not_count_binds_nobody(third: SiloRecords) -> None:
    counted = [licensed("bank-a", "MIT"), licensed("hospital-b", "CC0-1.0")]
    assert inherited(FED.finished([*counted, third])) == inherited(PERMISSIVE)


def registering(other: LicenceTerms) -> Attempt:
    """Two silos with data under `LicenseRef-Own`, the second of which registers `other` for it."""
    return FED.finished(
        [
            licensed("bank-a", OWN_LICENCE.licence, registered=(OWN_LICENCE,)),
            licensed("hospital-b", OWN_LICENCE.licence, registered=(other,)),
        ]
    )


def test_terms_that_two_silos_register_alike_count() -> None:
    assert inherited(registering(OWN_LICENCE)).expression == "Apache-2.0"


def test_terms_that_two_silos_register_differently_are_none() -> None:
    evidence = registering(OWN_LICENCE.model_copy(update={"share_alike": True}))
    licence = inherited(evidence)
    assert (licence.expression, licence.attribution) == (NO_LICENCE, ())
    assert licence.reasons
    text = FED.page_text(evidence)
    assert "Licence of the merged adapter None can be given." in text
    assert licence.reasons[0] in text
    assert holds(audit(bundle_of(FED.report(evidence), evidence), FED.membership))


def test_a_licence_that_nobody_registered_has_no_terms() -> None:
    silos = [licensed("bank-a", "MIT"), licensed("hospital-b", OWN_LICENCE.licence)]
    assert inherited(FED.finished(silos)).expression == NO_LICENCE


def test_without_a_merge_there_is_nothing_to_license() -> None:
    silos = [licensed(silo, "MIT") for silo in COHORT]
    before = FED.attempt(silos[:1], abort=FED.abort())
    after = FED.attempt(silos, close=FED.close(silos), abort=FED.abort())
    for evidence in (before, after):
        assert build_report(evidence, NOW).adapter_licence is None
        assert "Licence of the merged adapter" not in FED.page_text(evidence)


def test_report_and_page_say_the_plan_s_use() -> None:
    commercial = federation(use="commercial")
    evidence = commercial.finished([commercial.silo(silo) for silo in COHORT])
    report = commercial.report(evidence)
    assert report.record.use == "commercial"
    assert "(commercial use)" in commercial.page_text(evidence)


@pytest.mark.parametrize("licence", ["MIT", "LicenseRef-Gemma-Terms"])
def test_a_silo_cannot_stop_the_report_with_terms_that_it_may_not_register(licence: str) -> None:
    usurped = OWN_LICENCE.model_copy(update={"licence": licence})
    evidence = FED.finished(
        [licensed("bank-a", "MIT", registered=(usurped,)), licensed("hospital-b", "MIT")]
    )
    assert build_report(evidence, NOW).base_model.digest == digest("base")


@pytest.mark.parametrize(("count", "share_alike"), [(5, False), (50, True), (50, False)])
def test_one_silo_s_terms_never_stop_the_report_of_all(count: int, share_alike: bool) -> None:
    ids = [f"LicenseRef-{'x' * 60}-{number:03d}" for number in range(count)]
    terms = tuple(
        OWN_LICENCE.model_copy(
            update={"licence": name, "conditional": not share_alike, "share_alike": share_alike}
        )
        for name in ids
    )
    own = FED.verdict(
        "bank-a",
        licences=tuple(LicenceCount(licence=name, records=20) for name in ids),
        registered_licences=terms,
    )
    silo = FED.silo("bank-a", verdict=own, submission=FED.submission("bank-a", own))
    evidence = FED.finished([silo, FED.silo("hospital-b")])
    report = build_report(evidence, NOW)
    assert report.adapter_licence is not None
    assert report.adapter_licence.expression == NO_LICENCE
    assert holds(audit(FED.bundle(evidence), FED.membership))
