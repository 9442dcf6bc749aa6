"""Licence expressions against an allow-list: silence and the unknown are never permission."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from data_contracts.dataset.licence_policy import LicencePolicy, canonical_licence_id

POLICY = LicencePolicy(["MIT", "Apache-2.0", "GPL-2.0-only", "LicenseRef-Own"])


@pytest.mark.parametrize(
    ("expression", "ids"),
    [
        ("MIT", ("MIT",)),
        ("mit", ("MIT",)),
        ("MIT OR GPL-3.0-only", ("MIT",)),
        ("GPL-3.0-only OR MIT", ("MIT",)),
        ("MIT OR No-Such-Licence", ("MIT",)),
        ("MIT AND Apache-2.0", ("MIT", "Apache-2.0")),
        ("GPL-3.0-only OR (MIT AND Apache-2.0)", ("MIT", "Apache-2.0")),
        ("GPL-2.0-only WITH Classpath-exception-2.0", ("GPL-2.0-only",)),
        ("LicenseRef-Own", ("LicenseRef-Own",)),
    ],
)
def test_allowed(expression: str, ids: tuple[str, ...]) -> None:
    finding = POLICY.judge(expression)
    assert finding.allowed
    assert finding.ids == ids


@pytest.mark.parametrize(
    ("expression", "ids"),
    [
        ("", ("NOASSERTION",)),
        ("NOASSERTION", ("NOASSERTION",)),
        ("NONE", ("NOASSERTION",)),
        ("CC-BY-NC-4.0", ("CC-BY-NC-4.0",)),
        ("MIT AND GPL-3.0-only", ("MIT", "GPL-3.0-only")),
        ("MIT AND No-Such-Licence", ("MIT", "NOASSERTION")),
        ("MIT WITH Commons-Clause", ("MIT",)),
        ("MIT WITH Apache-2.0", ("MIT",)),
        ("GPL-3.0-only WITH Classpath-exception-2.0", ("GPL-3.0-only",)),
        ("Classpath-exception-2.0", ("Classpath-exception-2.0",)),
        ("LicenseRef-Other", ("NOASSERTION",)),
        ("LicenseRef-own", ("NOASSERTION",)),
        ("LicenseRef-scancode-proprietary-license", ("NOASSERTION",)),
        ("free text of Mrs Example", ("NOASSERTION",)),
        ("MIT OR", ("NOASSERTION",)),
        ("(MIT", ("NOASSERTION",)),
        ("MIT/Apache-2.0", ("NOASSERTION",)),
        ("(" * 300 + "MIT" + ")" * 300, ("NOASSERTION",)),
        ("MIT OR " * 1000 + "MIT", ("NOASSERTION",)),
    ],
)
def test_not_allowed(expression: str, ids: tuple[str, ...]) -> None:
    finding = POLICY.judge(expression)
    assert not finding.allowed
    assert finding.ids == ids


@given(
    st.lists(
        st.sampled_from(["MIT", "(", ")", "AND", "OR", "WITH", "+", ":", "x", "Ünï", "\n", "1"]),
        max_size=20,
    ).map(" ".join)
    | st.text(max_size=60)
)
@example("( AND MIT")
def test_any_text_is_judged_without_an_exception(expression: str) -> None:
    finding = POLICY.judge(expression)
    assert finding.ids
    assert finding.allowed <= bool(set(finding.ids) & {"MIT"})


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("mit", "MIT"),
        ("LicenseRef-x", "LicenseRef-x"),
        ("LicenseRef-", None),
        ("MIT OR MIT", None),
        ("NOASSERTION", None),
        ("Classpath-exception-2.0", None),
    ],
)
def test_canonical_licence_id(text: str, known: str | None) -> None:
    assert canonical_licence_id(text) == known
