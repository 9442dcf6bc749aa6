"""Reservations of text and data mining: what is not shown to be free is not free."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.dataset.opt_out import OptOutFinding, judge_opt_out

NOW = datetime(2026, 11, 23, 5, tzinfo=UTC)
POLICY = "https://example.org/policy.json"


def judged(
    reservation: str | None, checked_at: str | None, policy: str | None = None
) -> OptOutFinding:
    return judge_opt_out(reservation, policy, checked_at, now=NOW, max_age_days=30)


@pytest.mark.parametrize(
    "checked_at",
    ["2026-11-23", "2026-10-24T05:00:00Z", "2026-11-23T06:00:00+01:00", " 2026-11-20 "],
)
def test_a_current_zero_is_evidence(checked_at: str) -> None:
    finding = judged("0", checked_at)
    assert finding.permitted
    assert finding.rule is None
    assert finding.evidence_until is not None
    assert finding.evidence_until >= NOW


@pytest.mark.parametrize(
    ("reservation", "checked_at", "policy", "reason"),
    [
        (None, None, None, "opt_out.missing"),
        ("", "2026-11-20", None, "opt_out.missing"),
        (None, "2026-11-20", POLICY, "opt_out.unreadable"),
        ("0", None, None, "opt_out.missing"),
        ("0", " ", None, "opt_out.missing"),
        ("0", "last week", None, "opt_out.unreadable"),
        ("0", "2026-11-20T05:00:00", None, "opt_out.unreadable"),
        ("0", "2026-11-31", None, "opt_out.unreadable"),
        ("0", "9999-12-31T23:59:59-12:00", None, "opt_out.unreadable"),
        ("0", "2026-10-24T04:59:59Z", None, "opt_out.stale"),
        ("0", "2026-11-24", None, "opt_out.in_the_future"),
        ("no", "2026-11-20", None, "opt_out.unreadable"),
        ("2", "2026-11-20", None, "opt_out.unreadable"),
    ],
)
def test_without_evidence_nothing_is_permitted(
    reservation: str | None, checked_at: str | None, policy: str | None, reason: str
) -> None:
    finding = judged(reservation, checked_at, policy)
    assert finding == OptOutFinding(False, False, reason, None)
    assert not finding.permitted


@pytest.mark.parametrize("checked_at", [None, "2026-11-20", "2001-01-01", "2030-01-01", "?"])
@pytest.mark.parametrize("policy", [None, POLICY])
def test_a_reservation_counts_whenever_it_was_read(
    checked_at: str | None, policy: str | None
) -> None:
    finding = judged("1", checked_at, policy)
    assert finding.opted_out
    assert not finding.permitted
    assert finding.rule == "opt_out.reserved"
    assert finding.evidence == (checked_at == "2026-11-20")


@given(st.text(max_size=45), st.text(max_size=45))
def test_any_text_is_judged_without_an_exception(reservation: str, checked_at: str) -> None:
    finding = judged(reservation, checked_at)
    assert finding.permitted == (finding.rule is None)
