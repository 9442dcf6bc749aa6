"""What earlier rounds have told this silo of itself, as its steward reads it beside a check: values
in words, put together elsewhere. It is for people inside the silo, and exact."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ShownLimit:
    """One figure of a leak check, what it was held against, and whether it is over that."""

    found: str
    limit: str
    is_over: bool = False


@dataclass(frozen=True)
class ShownCheck:
    """The leak check of one adapter; `rule` kept it in, None where it may leave."""

    round: str
    at: str
    records: str
    membership: ShownLimit | None
    verbatim: ShownLimit | None
    exposure: ShownLimit | None
    rule: str | None


@dataclass(frozen=True)
class ShownTotal:
    """What private trainings of one population were charged altogether, and of how much."""

    population: str
    unit: str
    spent: str
    budget: str
    delta: str
    trainings: int
    last: str


@dataclass(frozen=True)
class StewardFigures:
    """The last checks, newest first, and every population; `ledger_fault` where the ledger of
    privacy is not what it was."""

    checks: tuple[ShownCheck, ...] = ()
    totals: tuple[ShownTotal, ...] = ()
    ledger_fault: str | None = None


NO_FIGURES = StewardFigures()
