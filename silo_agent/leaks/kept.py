"""The figures of a leak check where this silo's people find them; nothing here leaves.

One file beside the round's work, with which it goes: work/<run>/round-0003/leak-check.json.
"""

from datetime import datetime
from pathlib import Path

from pydantic import AwareDatetime, ValidationError

from data_contracts.protocol.records import RoundPlan
from infra.disk.durable_files import write_durably
from silo_agent.leaks.figures import LeakFigures
from silo_agent.leaks.rules import is_too_few
from silo_agent.policy.leak_check import FEWEST_RECORDS, LeakCheck
from silo_agent.policy.plan_context import PolicyRefusal
from silo_agent.training.job_value import JobValue
from silo_agent.training.jobs import WORK

NAME = "leak-check.json"


class KeptCheck(JobValue):
    """One check: what was measured, the limits of that moment, and the `rule` that kept the adapter
    in, None where it may leave."""

    run: str
    round: int
    attempt: int
    checked_at: AwareDatetime
    figures: LeakFigures
    limits: LeakCheck
    rule: str | None


def keep(
    home: Path,
    plan: RoundPlan,
    now: datetime,
    figures: LeakFigures,
    limits: LeakCheck,
    refusal: PolicyRefusal | None,
) -> KeptCheck:
    """Write it, in place of that of an earlier attempt at the round."""
    kept = KeptCheck(
        run=plan.run,
        round=plan.round,
        attempt=plan.attempt,
        checked_at=now,
        figures=figures,
        limits=limits,
        rule=refusal.rule if refusal else None,
    )
    path = home / WORK / plan.run / f"round-{plan.round:04d}" / NAME
    write_durably(path, kept.model_dump_json(indent=1).encode())
    return kept


def newest(home: Path) -> KeptCheck | None:
    """The last one that is whole; None where there is none."""
    return next(iter(last(home, 1)), None)


def last(home: Path, most: int) -> list[KeptCheck]:
    """The last ones that are whole, of all runs, the newest first."""
    found = (_read(path) for path in (home / WORK).glob(f"*/round-*/{NAME}"))
    whole = [check for check in found if check is not None]
    return sorted(whole, key=lambda check: check.checked_at, reverse=True)[:most]


def words(check: KeptCheck) -> str:
    """One line for people of this silo: figures, limits, and what became of it."""
    figures, limits = check.figures, check.limits
    told = [f"round {check.round} attempt {check.attempt}"]
    told.append(f"{figures.trained} trained and {figures.heldout} held-out records")
    if figures.membership is not None:
        m = figures.membership
        told.append(f"AUC {m.auc:.3f} ({m.low:.3f} to {m.high:.3f}; limit {limits.max_auc:.3f})")
    if figures.verbatim is not None:
        v = figures.verbatim
        told.append(
            f"come back word by word {v.trained} of {v.of_trained} and {v.heldout} of "
            f"{v.of_heldout} (limit {limits.max_verbatim:.3f} more)"
        )
    if figures.exposure is not None:
        e = figures.exposure
        told.append(
            f"{e.planted} canaries of {e.of_planted} exposed by {e.mean:.1f} bits among "
            f"{e.candidates} candidates (limit {limits.max_exposure:.1f})"
        )
    if is_too_few(figures, limits):
        why = "there was no time for more" if figures.is_cut else "there are no more"
        told.append(f"below {FEWEST_RECORDS} that says little: {why}")
    told.append(f"kept in by {check.rule}" if check.rule else "may leave")
    return "; ".join(told)


def _read(path: Path) -> KeptCheck | None:
    try:
        return KeptCheck.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
