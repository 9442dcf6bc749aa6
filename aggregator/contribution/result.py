"""What a computation of contributions found, and the file that says so beside the reports."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from aggregator.contribution.coalitions import Coalition
from aggregator.contribution.plan import ContributionPlan
from aggregator.contribution.values import Contribution, SequenceLosses
from aggregator.coordinator import Coordinator
from infra.disk.durable_files import write_durably

AT_COORDINATOR = "the coordinator"
"""No silo can be called so."""


@dataclass(frozen=True)
class Contributions:
    """Values by one method, in nats per token, and the losses of nobody and of everybody.

    `measured_by` names the silos whose held-out records were used, or the coordinator; where silos
    measured, `answer_digests` are those of their records and `request_digest` what they answered.
    """

    method: str
    values: tuple[Contribution, ...]
    starting_loss: float
    merged_loss: float
    measured_by: tuple[str, ...] = (AT_COORDINATOR,)
    request_digest: str | None = None
    answer_digests: tuple[str, ...] = ()

    @property
    def is_by_silos(self) -> bool:
        """Whether silos measured, rather than the coordinator."""
        return self.request_digest is not None


def contributions_of(
    plan: ContributionPlan, losses: Mapping[Coalition, SequenceLosses]
) -> Contributions:
    """Values by the plan's method from the losses of all its coalitions."""
    everyone = frozenset[str]().union(*plan.coalitions)
    return Contributions(
        method=plan.method,
        values=tuple(plan.values(losses)),
        starting_loss=losses[frozenset()].mean,
        merged_loss=losses[everyone].mean,
    )


def write_contributions(c: Coordinator, round_number: int, found: Contributions) -> None:
    """Write the file of a round, a method and who measured."""
    path = _path(c, round_number, found.method, by_silos=found.is_by_silos)
    write_durably(path, (json.dumps(asdict(found), indent=1) + "\n").encode(), 0o644)


def written_by_silos(
    c: Coordinator, round_number: int, method: str, request_digest: str
) -> Contributions | None:
    """What was written for a request before; a damaged file, or one for another, is none."""
    try:
        fields = json.loads(_path(c, round_number, method, by_silos=True).read_bytes())
        fields["values"] = tuple(Contribution(**value) for value in fields["values"])
        fields |= {name: tuple(fields[name]) for name in ("measured_by", "answer_digests")}
        found = Contributions(**fields)
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None
    return found if found.request_digest == request_digest else None


def _path(c: Coordinator, round_number: int, method: str, *, by_silos: bool) -> Path:
    measured = "-by-silos" if by_silos else ""
    name = f"contributions-{c.settings.run}-round-{round_number:04d}-{method}{measured}.json"
    return c.reports / name
