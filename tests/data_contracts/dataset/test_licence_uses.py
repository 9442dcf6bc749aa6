"""An allow-list with a use: the list and the terms must both permit, and each refusal has an id."""

import time

import pytest

from data_contracts.dataset.licence_policy import LicencePolicy
from data_contracts.licences.expression import LicenceFinding
from data_contracts.protocol.records.licence_terms import Use
from tests.data_contracts.licences.test_table import own_terms

LISTED = [
    *("MIT", "Apache-2.0", "CC-BY-NC-4.0", "CC-BY-ND-4.0", "EUPL-1.2", "GPL-2.0-only"),
    *("LicenseRef-Own", "LicenseRef-Reserved", "LicenseRef-Unregistered", "LicenseRef-HPO"),
]
REGISTERED = [own_terms(), own_terms("LicenseRef-Reserved", no_ai=True)]


def policy(use: Use, *accepted: str) -> LicencePolicy:
    return LicencePolicy(LISTED, use=use, registered=REGISTERED, accepted=accepted)


@pytest.mark.parametrize(
    ("text", "use", "ids"),
    [
        ("mit", "commercial", ("MIT",)),
        ("CC-BY-NC-4.0", "research", ("CC-BY-NC-4.0",)),
        ("CC-BY-NC-4.0 OR MIT", "commercial", ("MIT",)),
        ("MIT AND CC-BY-NC-4.0", "research", ("MIT", "CC-BY-NC-4.0")),
        ("GPL-2.0-only WITH Classpath-exception-2.0", "commercial", ("GPL-2.0-only",)),
        ("LicenseRef-Own", "commercial", ("LicenseRef-Own",)),
    ],
)
def test_allowed(text: str, use: Use, ids: tuple[str, ...]) -> None:
    assert policy(use).judge(text) == LicenceFinding(True, ids, None)


@pytest.mark.parametrize(
    ("text", "ids", "reason"),
    [
        ("CC-BY-NC-4.0", ("CC-BY-NC-4.0",), "licence.non_commercial"),
        ("CC-BY-ND-4.0", ("CC-BY-ND-4.0",), "licence.no_derivatives"),
        ("LicenseRef-Reserved", ("LicenseRef-Reserved",), "licence.no_ai"),
        ("LicenseRef-HPO", ("LicenseRef-HPO",), "licence.conditional"),
        ("LicenseRef-Unregistered", ("LicenseRef-Unregistered",), "licence.no_terms"),
        ("EUPL-1.2", ("EUPL-1.2",), "licence.no_terms"),
        ("ISC", ("ISC",), "licence.not_listed"),
        ("LicenseRef-Mrs-Example", ("NOASSERTION",), "licence.unknown"),
        ("No-Such-Licence", ("NOASSERTION",), "licence.unknown"),
        ("", ("NOASSERTION",), "licence.no_assertion"),
        ("NOASSERTION", ("NOASSERTION",), "licence.no_assertion"),
        ("a text of Mrs Example", ("NOASSERTION",), "licence.unknown"),
        ("MIT OR", ("NOASSERTION",), "licence.unreadable"),
        ("MIT OR " * 100 + "MIT", ("NOASSERTION",), "licence.unreadable"),
        ("MIT WITH Apache-2.0", ("MIT",), "licence.unknown_exception"),
        ("MIT WITH LicenseRef-scancode-commons-clause", ("MIT",), "licence.unknown_exception"),
        ("MIT AND CC-BY-NC-4.0", ("MIT", "CC-BY-NC-4.0"), "licence.non_commercial"),
        ("CC-BY-ND-4.0 OR CC-BY-NC-4.0", ("CC-BY-ND-4.0", "CC-BY-NC-4.0"), "licence.no_deriv"),
    ],
)
def test_not_allowed(text: str, ids: tuple[str, ...], reason: str) -> None:
    finding = policy("commercial").judge(text)
    assert not finding.allowed
    assert finding.ids == ids
    assert (finding.rule or "").startswith(reason)


def test_silence_is_no_licence_even_when_it_is_listed() -> None:
    assert not LicencePolicy(["NOASSERTION", "NONE"]).judge("NOASSERTION").allowed


def test_an_acceptance_is_for_the_licence_that_it_names() -> None:
    assert policy("commercial", "LicenseRef-HPO").judge("LicenseRef-HPO").allowed
    assert not policy("commercial", "LicenseRef-Own").judge("LicenseRef-HPO").allowed


def test_without_a_use_only_the_list_is_asked() -> None:
    judged = LicencePolicy(LISTED).judge("CC-BY-ND-4.0 AND LicenseRef-Unregistered")
    assert judged.allowed


def test_a_licence_text_is_judged_once_for_all_records() -> None:
    """A million records of one licence take well under a second here; the limit is generous."""
    judge = policy("commercial").judge
    text = "(MIT OR Apache-2.0) AND GPL-2.0-only WITH Classpath-exception-2.0"
    first = judge(text)
    started = time.process_time()
    findings = [judge(text) for _ in range(200_000)]
    assert time.process_time() - started < 2
    assert all(finding is first for finding in findings)
