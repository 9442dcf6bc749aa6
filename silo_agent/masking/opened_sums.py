"""Which masked sums this silo has helped to open, by what was trained from; kept for years.

The difference of two sums over different silos is what one of them sent, if the others sent the
same twice: from the same start, in the same order of their data. So a silo opens no second sum of a
round, none that repeats a training, and, where its policy says so, only so many from one start.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.artifact import digest_of_bytes
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import RoundPlan
from data_contracts.protocol.wire_types import Count, Digest, Part, RoundNumber, RunId
from infra.disk.durable_files import write_durably

OPENED_SUMS = "opened-sums"
"""Directory of the home, with a file for each start."""


class OpenedSum(Part):
    """A sum that was opened: the plan, its place, and the seed that ordered the data."""

    plan_digest: Digest
    run: RunId
    round: RoundNumber
    seed: Count


_SUMS = TypeAdapter(tuple[OpenedSum, ...])


@dataclass(frozen=True)
class OpenedSums:
    """Those that were opened from the start of one plan, and that plan."""

    path: Path
    plan: Verified[RoundPlan]

    @classmethod
    def of(cls, home: Path, plan: Verified[RoundPlan]) -> "OpenedSums":
        """In a silo's home."""
        return cls(home / OPENED_SUMS / f"{_start_of(plan.record)}.json", plan)

    def others(self) -> Sequence[OpenedSum]:
        """Of other plans; raises SiloOperatorError for a file that cannot be read."""
        return [opened for opened in self._read() if opened.plan_digest != self.plan.digest]

    def has_second(self) -> bool:
        """Whether the sum of this plan would be one of the same round or the same training."""
        record = self.plan.record
        place = (record.run, record.round)
        return any(
            (opened.run, opened.round) == place or opened.seed == record.recipe.seed
            for opened in self.others()
        )

    def note(self) -> None:
        """Before anything is revealed; noted once."""
        known, record = self._read(), self.plan.record
        if any(opened.plan_digest == self.plan.digest for opened in known):
            return
        opened = OpenedSum(
            plan_digest=self.plan.digest,
            run=record.run,
            round=record.round,
            seed=record.recipe.seed,
        )
        write_durably(self.path, _SUMS.dump_json((*known, opened), indent=1))

    def _read(self) -> tuple[OpenedSum, ...]:
        if not self.path.exists():
            return ()
        try:
            return _SUMS.validate_python(json.loads(self.path.read_bytes()), strict=False)
        except (ValueError, ValidationError):
            raise SiloOperatorError(
                f"sums that were opened, {self.path}",
                expected="a file as this agent writes it",
                found="another one",
                action="put it back from a backup; without it nobody knows which sums were opened",
            ) from None


def _start_of(plan: RoundPlan) -> str:
    """What silos of a plan start from: the base model and the adapter, by digest."""
    starting = plan.starting_adapter
    return digest_of_bytes(
        f"{plan.base_model.digest} {starting.digest if starting else 'none'}".encode()
    )
