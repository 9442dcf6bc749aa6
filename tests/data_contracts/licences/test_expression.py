"""Expressions: one spelling for what is equivalent, none for what is not known."""

import pytest

from data_contracts.licences.expression import (
    LicenceFinding,
    canonical_expression,
    judge_expression,
    refused,
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("mit", "MIT"),
        ("MIT OR Apache-2.0", "Apache-2.0 or MIT"),
        ("MIT AND MIT", "MIT"),
        ("GPL-2.0", "GPL-2.0-only"),
        ("GPL-2.0+", "GPL-2.0-or-later"),
        ("(MIT AND ISC) AND Zlib", "Zlib AND (ISC AND MIT)"),
        ("LicenseRef-Own AND MIT", "MIT AND LicenseRef-Own"),
    ],
)
def test_equivalent_expressions_have_one_spelling(one: str, other: str) -> None:
    assert canonical_expression(one) is not None
    assert canonical_expression(one) == canonical_expression(other)


@pytest.mark.parametrize(
    "text",
    [
        *("", "NOASSERTION", "NONE", "MIT OR NOASSERTION", "MIT OR No-Such-Licence", "MIT OR"),
        *("Classpath-exception-2.0", "MIT WITH Apache-2.0", "free text", "MIT OR " * 100 + "MIT"),
    ],
)
def test_what_is_not_known_has_no_spelling(text: str) -> None:
    assert canonical_expression(text) is None


def test_a_rule_sees_licences_only_and_in_spdx_spelling() -> None:
    seen: list[str] = []

    def rule(licence: str) -> LicenceFinding:
        seen.append(licence)
        return refused("made.for_a_test", licence)

    text = "(mit AND Secret-Name) OR LicenseRef-own WITH Classpath-exception-2.0"
    finding = judge_expression(text, rule)
    assert seen == ["MIT", "LicenseRef-own"]
    assert finding == LicenceFinding(
        False, ("MIT", "NOASSERTION", "LicenseRef-own"), "made.for_a_test"
    )
