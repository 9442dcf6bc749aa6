"""What the last leak checks found, and what the privacy ledger adds up to, for the steward."""

from pathlib import Path

from data_contracts.errors import ConsortiaError
from silo_agent.gate.steward_figures import ShownCheck, ShownLimit, ShownTotal, StewardFigures
from silo_agent.leaks import kept, rules
from silo_agent.leaks.kept import KeptCheck
from silo_agent.privacy.ledger import PrivacyLedger
from silo_agent.privacy.ledger_lines import Charged
from silo_agent.release.outbox import OUTBOX, kept_statements

CHECKS = 5
"""Of so many rounds, the newest."""


def steward_figures(home: Path) -> StewardFigures:
    """Of the silo at `home`; whatever its files hold, this does not fail."""
    checks = tuple(_check(each) for each in kept.last(home, CHECKS))
    try:
        lines = PrivacyLedger(home).peek(kept_statements(home / OUTBOX))
    except ConsortiaError as error:
        return StewardFigures(checks, ledger_fault=f"{error.problem}: {error.found}")
    newest = {each.population: each for _, each in lines.charges()}
    return StewardFigures(checks, tuple(map(_total, newest.values())))


def _check(check: KeptCheck) -> ShownCheck:
    figures, cut = check.figures, ", cut by time" if check.figures.is_cut else ""
    return ShownCheck(
        round=f"{check.run}, round {check.round}, attempt {check.attempt}",
        at=f"{check.checked_at:%Y-%m-%d %H:%M} UTC",
        records=f"{figures.trained:,} trained on, {figures.heldout:,} held out{cut}",
        membership=_membership(check),
        verbatim=_verbatim(check),
        exposure=_exposure(check),
        rule=check.rule,
    )


def _membership(check: KeptCheck) -> ShownLimit | None:
    found = check.figures.membership
    if found is None:
        return None
    words = f"{found.auc:.3f} ({found.low:.3f} to {found.high:.3f})"
    return ShownLimit(words, f"{check.limits.max_auc:.3f}", _is_by(check, rules.MEMBERSHIP.rule))


def _verbatim(check: KeptCheck) -> ShownLimit | None:
    found = check.figures.verbatim
    if found is None:
        return None
    words = (
        f"{found.trained:,} of {found.of_trained:,}, held out {found.heldout:,} of "
        f"{found.of_heldout:,}"
    )
    limit = f"{check.limits.max_verbatim:.3f} more"
    return ShownLimit(words, limit, _is_by(check, rules.VERBATIM.rule))


def _exposure(check: KeptCheck) -> ShownLimit | None:
    found = check.figures.exposure
    if found is None:
        return None
    words = f"{found.mean:.1f} bits, {found.planted} canaries among {found.candidates:,}"
    limit = f"{check.limits.max_exposure:.1f} bits"
    return ShownLimit(words, limit, _is_by(check, rules.EXPOSURE.rule))


def _is_by(check: KeptCheck, rule: str) -> bool:
    return check.rule == rule


def _total(charged: Charged) -> ShownTotal:
    return ShownTotal(
        population=charged.population,
        unit=charged.unit,
        spent=str(charged.epsilon_lifetime),
        budget=str(charged.epsilon_budget),
        delta=f"{charged.delta:f}",
        trainings=charged.entries,
        last=f"{charged.at:%Y-%m-%d %H:%M} UTC",
    )
