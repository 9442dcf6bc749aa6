"""Terms against uses: every refusal has its own id, and no terms permit nothing."""

import pytest

from data_contracts.licences.uses import permits
from data_contracts.protocol.records.licence_terms import Use
from tests.data_contracts.licences.test_table import REGISTRY, own_terms


@pytest.mark.parametrize(
    ("licence", "use", "reason"),
    [
        ("MIT", "commercial", None),
        ("CC-BY-SA-4.0", "commercial", None),
        ("CC-BY-NC-4.0", "research", None),
        ("CC-BY-NC-4.0", "commercial", "licence.non_commercial"),
        ("CC-BY-ND-4.0", "research", "licence.no_derivatives"),
        ("CC-BY-NC-ND-4.0", "commercial", "licence.no_derivatives"),
        ("LicenseRef-HPO", "research", "licence.conditional"),
        ("EUPL-1.2", "research", "licence.no_terms"),
    ],
)
def test_permits(licence: str, use: Use, reason: str | None) -> None:
    assert permits(REGISTRY.terms(licence), use) == reason


def test_a_use_without_derivatives_is_permitted_where_they_are_excluded() -> None:
    terms = REGISTRY.terms("CC-BY-ND-4.0")
    assert permits(terms, "commercial", needs_derivatives=False) is None


def test_an_acceptance_meets_a_condition_and_nothing_else() -> None:
    assert permits(REGISTRY.terms("LicenseRef-HPO"), "commercial", accepted=True) is None
    assert permits(own_terms(no_ai=True), "research", accepted=True) == "licence.no_ai"
    assert permits(None, "research", accepted=True) == "licence.no_terms"
