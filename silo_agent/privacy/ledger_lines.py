"""The ledger of private trainings as lines, each naming the one before; values, no files.

A line is RFC 8785 JSON. Its digest is that of its bytes, and the next line holds it, so the digest
of the last line names all of them: a line that is changed, dropped or put between breaks the chain
behind it.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import rfc8785
from pydantic import Field, TypeAdapter, ValidationError

from data_contracts.privacy.accountant import PrivateSteps
from data_contracts.protocol.artifact import digest_of_bytes
from data_contracts.protocol.records.privacy_terms import (
    ChargedSteps,
    PrivacyStatement,
)
from data_contracts.protocol.wire_types import (
    AttemptNumber,
    Digest,
    Instant,
    Part,
    PositiveCount,
    RoundNumber,
    RunId,
)

SecretName = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Charged(ChargedSteps):
    """A training was charged; the fields of its statement, and what it was charged for.

    `units` were trained on, exactly: it stays here. `secret` names the file of its noise; None for
    what was taken back from a statement in storage, `told` by its digest there, or counted because
    more was charged than is known.
    """

    kind: Literal["charged"] = "charged"
    at: Instant
    run: RunId
    round: RoundNumber
    attempt: AttemptNumber
    plan_digest: Digest
    findings_digest: Digest | None = None
    units: PositiveCount | None = None
    secret: SecretName | None = None
    told: Digest | None = None

    @property
    def private_steps(self) -> PrivateSteps:
        """What the accountant composes."""
        return PrivateSteps(self.sampling_rate, self.noise_multiplier, self.steps)


class Begun(Part):
    """The training of a charge has begun: which one, by the fingerprint of its job."""

    kind: Literal["begun"] = "begun"
    at: Instant
    charge: PositiveCount
    training: Digest


class Closed(Part):
    """Nothing is trained on a charge any more: its `submission` is out, or it was given up."""

    kind: Literal["closed"] = "closed"
    at: Instant
    charge: PositiveCount
    submission: Digest | None = None


Entry = Annotated[Charged | Begun | Closed, Field(discriminator="kind")]


class _Line(Part):
    number: PositiveCount
    previous: Digest | None = None
    entry: Entry


_LINE: TypeAdapter[_Line] = TypeAdapter(_Line)


@dataclass(frozen=True)
class Line:
    """An entry in its place; `digest` names it and all before."""

    number: int
    entry: Charged | Begun | Closed
    digest: str


class BrokenChainError(ValueError):
    """Line `number` is none, or does not follow on the one before; `sound` are those before it."""

    def __init__(self, number: int, found: str, sound: Sequence[Line]) -> None:
        super().__init__(f"line {number}: {found}")
        self.sound = tuple(sound)


@dataclass(frozen=True)
class LedgerLines:
    """A whole ledger."""

    lines: tuple[Line, ...] = ()

    @classmethod
    def read(cls, data: bytes) -> "LedgerLines":
        """Raises BrokenChainError."""
        lines: list[Line] = []
        for number, text in enumerate(data.split(b"\n")[:-1], 1):
            lines.append(_read(number, text, lines))
        if not data.endswith(b"\n") and data:
            raise BrokenChainError(len(lines) + 1, "it has no end", lines)
        return cls(tuple(lines))

    def line_of(self, entry: Charged | Begun | Closed) -> bytes:
        """What has to be written behind the last line."""
        line = _Line(number=len(self.lines) + 1, previous=self.head, entry=entry)
        return rfc8785.dumps(line.model_dump(mode="json", exclude_none=True)) + b"\n"

    @property
    def head(self) -> str | None:
        """Digest of the last line."""
        return self.lines[-1].digest if self.lines else None

    def charges(self, population: str | None = None) -> Iterator[tuple[Line, Charged]]:
        """Of one population, or of all, in order."""
        for line in self.lines:
            if isinstance(line.entry, Charged) and population in (None, line.entry.population):
                yield line, line.entry

    def charge_for(self, plan: str, findings: str) -> tuple[Line, Charged] | None:
        """The newest one for a plan and the findings of a check, by their digests."""
        found = [
            each
            for each in self.charges()
            if (each[1].plan_digest, each[1].findings_digest) == (plan, findings)
        ]
        return found[-1] if found else None

    def is_replay(self, plan: str) -> bool:
        """Whether a training on this plan was released."""
        of_plan = {line.number for line, charged in self.charges() if charged.plan_digest == plan}
        closed = [line.entry for line in self.lines if isinstance(line.entry, Closed)]
        return any(each.charge in of_plan and each.submission is not None for each in closed)

    def closed(self, charge: int) -> Closed | None:
        """What ended a charge, by the number of its line."""
        found = [line.entry for line in self.lines if isinstance(line.entry, Closed)]
        return next((each for each in found if each.charge == charge), None)

    def begun(self, charge: int) -> str | None:
        """Which training was begun on a charge."""
        found = [line.entry for line in self.lines if isinstance(line.entry, Begun)]
        return next((each.training for each in found if each.charge == charge), None)

    def open_charges(self) -> list[tuple[Line, Charged]]:
        """Those that were not closed and have a secret."""
        kept = [each for each in self.charges() if each[1].secret is not None]
        return [each for each in kept if self.closed(each[0].number) is None]

    def knows(self, statement: PrivacyStatement) -> bool:
        """Whether it holds the charge that a statement is about."""
        named = (
            {line.digest, charged.told} for line, charged in self.charges(statement.population)
        )
        return any(statement.ledger_digest in each for each in named)


def statement_of(line: Line, charged: Charged) -> PrivacyStatement:
    """What the silo signs of a charge."""
    fields = ChargedSteps.model_fields
    return PrivacyStatement(
        **{name: getattr(charged, name) for name in fields}, ledger_digest=line.digest
    )


def _read(number: int, text: bytes, before: Sequence[Line]) -> Line:
    try:
        line = _LINE.validate_python(json.loads(text), strict=False)
    except (ValueError, RecursionError, ValidationError):
        raise BrokenChainError(number, "it is none of this agent's", before) from None
    if (line.number, line.previous) != (number, before[-1].digest if before else None):
        raise BrokenChainError(number, "it does not follow on the one before", before)
    return Line(number, line.entry, digest_of_bytes(text))
