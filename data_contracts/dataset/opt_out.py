"""What a source said about text and data mining, as it was collected at acquisition.

Whoever collects may also note what a site said of training in its robots directives, and what an
image's EXIF says (`stated_by_columns`); what an image file says itself is read from its bytes
(`pictures.stated_rights`). Such a statement can only speak against training.

Two columns of the TDM Reservation Protocol (TDMRep, W3C community group report, 2024) and when
they were read: `tdm_reservation` is "1" when rights are reserved and "0" when
not, `tdm_policy` is where a licence may be had. Nothing is looked up here: an answer from the
network would differ from the one that was collected, and asking for it would tell who trains on
what. Missing, stale or unreadable evidence is no evidence of permission.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from data_contracts.dataset.examples import Example
from data_contracts.dataset.pictures.words import directive_in, keyword_in, prohibition_in

RESERVED = "opt_out.reserved"
MISSING = "opt_out.missing"
UNREADABLE = "opt_out.unreadable"
STALE = "opt_out.stale"
IN_THE_FUTURE = "opt_out.in_the_future"

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MAX_CHARACTERS = 40
_LAST_YEAR = 9000


@dataclass(frozen=True)
class OptOutFinding:
    """`opted_out`: the rights holder reserves. `evidence`: the columns are readable and current.

    `rule` is None exactly when there is evidence that nothing is reserved. `evidence_until` is
    when the evidence, if there is any, becomes stale.
    """

    opted_out: bool
    evidence: bool
    rule: str | None
    evidence_until: datetime | None

    @property
    def permitted(self) -> bool:
        """Whether training may rely on it."""
        return self.evidence and not self.opted_out


def judge_opt_out(
    reservation: str | None,
    policy: str | None,
    checked_at: str | None,
    *,
    now: datetime,
    max_age_days: int,
) -> OptOutFinding:
    """Finding for one record; `now` is an aware datetime, `checked_at` an ISO date or instant.

    A reservation counts whenever it was read, and with a policy too: a policy offers a licence,
    and whether one was taken is for the contract to say. An instant must state its offset; a date
    is the beginning of that day in UTC. A policy without a reservation states nothing.
    """
    stated = (reservation or "").strip()
    read_at = _instant((checked_at or "").strip())
    until = None if read_at is None else read_at + timedelta(days=max_age_days)
    if not stated and not (policy or "").strip():
        problem: str | None = MISSING
    elif stated not in ("0", "1"):
        problem = UNREADABLE
    else:
        problem = _problem_of_time(checked_at, read_at, until, now)
    rule = RESERVED if stated == "1" else problem
    return OptOutFinding(stated == "1", problem is None, rule, until if problem is None else None)


def stated_by_columns(example: Example) -> tuple[str, ...]:
    """What columns of a record state against training, each as a fixed phrase.

    `noimageai` is about pictures alone, `noai` about all that there is.
    """
    in_robots, in_exif = directive_in(example.robots or ""), example.exif or ""
    has_picture = example.image is not None
    phrases = (
        "noai column" if example.noai else None,
        "noimageai column" if example.noimageai and has_picture else None,
        f"robots {in_robots}" if in_robots == "noai" or (in_robots and has_picture) else None,
        _phrase("exif", prohibition_in(in_exif) or keyword_in(in_exif)),
    )
    return tuple(phrase for phrase in phrases if phrase is not None)


def _phrase(where: str, word: str | None) -> str | None:
    return None if word is None else f"{where} {word}"


def _problem_of_time(
    checked_at: str | None, read_at: datetime | None, until: datetime | None, now: datetime
) -> str | None:
    if read_at is None or until is None:
        return UNREADABLE if (checked_at or "").strip() else MISSING
    if read_at > now:
        return IN_THE_FUTURE
    return STALE if now > until else None


def _instant(text: str) -> datetime | None:
    if not 0 < len(text) <= _MAX_CHARACTERS:
        return None
    try:
        value = datetime.fromisoformat(text)
        if value.tzinfo is None and _DATE.fullmatch(text):
            value = value.replace(tzinfo=UTC)
        # A year at the end of the calendar has no room for an age, or for an offset.
        usable = value.tzinfo is not None and 1 < value.year < _LAST_YEAR
        return value.astimezone(UTC) if usable else None
    except ValueError:
        return None
