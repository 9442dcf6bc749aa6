"""Base models by licence and use; conditional terms bind a person by name, or nobody."""

import pytest

from data_contracts.licences.model_licence import accepted_terms, judge_model
from data_contracts.protocol.records.licence_terms import Use
from tests.data_contracts.licences.test_table import own_terms

GEMMA = "LicenseRef-Gemma-Terms"
ACCEPTED = f"{GEMMA} accepted by Jane Doe for Clinic North on 2026-11-02"


@pytest.mark.parametrize(
    ("licence", "use", "acceptance", "rule"),
    [
        ("Apache-2.0", "commercial", None, "permitted"),
        ("apache-2.0", "research", None, "permitted"),
        ("Apache-2.0 OR CC-BY-NC-4.0", "commercial", None, "permitted"),
        (GEMMA, "research", None, "conditional"),
        (GEMMA, "commercial", ACCEPTED, "permitted"),
        (GEMMA, "commercial", "yes", "conditional"),
        (GEMMA, "commercial", f"{GEMMA} accepted by ", "conditional"),
        (GEMMA, "commercial", "LicenseRef-HPO accepted by Jane Doe", "conditional"),
        ("CC-BY-NC-4.0", "research", None, "permitted"),
        ("CC-BY-NC-4.0", "commercial", ACCEPTED, "non_commercial"),
        ("CC-BY-ND-4.0", "research", None, "no_derivatives"),
        ("LicenseRef-Unheard", "research", "LicenseRef-Unheard accepted by Jane Doe", "unknown"),
        ("EUPL-1.2", "research", None, "unknown"),
        ("NOASSERTION", "research", None, "unknown"),
        ("", "research", None, "unknown"),
        ("my own words", "research", None, "unknown"),
    ],
)
def test_judge_model(licence: str, use: Use, acceptance: str | None, rule: str) -> None:
    finding = judge_model(licence, use, acceptance)
    assert finding.rule == f"model_licence.{rule}"
    assert finding.allowed == (rule == "permitted")


def test_the_reason_names_ids_only() -> None:
    assert judge_model(GEMMA, "research", ACCEPTED).reason == (
        "the terms of LicenseRef-Gemma-Terms permit research use"
    )
    assert judge_model("LicenseRef-Mrs-Example", "research", None).reason == (
        "no terms are known for NOASSERTION, so nothing is permitted"
    )


def test_terms_that_the_contract_registers_count() -> None:
    finding = judge_model("LicenseRef-Own", "research", None, [own_terms(no_ai=True)])
    assert finding.rule == "model_licence.no_ai"
    assert judge_model("LicenseRef-Own", "commercial", None, [own_terms()]).allowed


def test_several_acceptances() -> None:
    text = f"{ACCEPTED}; LicenseRef-HPO accepted by John Roe; MIT accepted by Jane Doe"
    assert accepted_terms(text) == {GEMMA, "LicenseRef-HPO"}
    assert accepted_terms(None) == frozenset()
