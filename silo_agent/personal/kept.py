"""Personal adapters as they lie in the home: one for each round, with all that it takes to use it.

Of a round there are three files: what was trained, what acts beside it where something does, and
the facts about both, which are written last: without them the others do not count.
"""

import logging
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from data_contracts.protocol.records import RoundPlan
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.base_model_ref import BaseModelRef
from data_contracts.protocol.records.model_family import CAUSAL_TASK, FamilyTask
from data_contracts.protocol.wire_types import Day
from infra.disk.durable_files import keep_durably, write_durably
from silo_agent.training.engine_spec import Precision
from silo_agent.training.job_value import JobValue
from silo_agent.training.layout import of_layout
from silo_agent.training.personal_part import PersonalMeasures

PERSONAL = "personal"
"""Directory of the home, with one for each run below."""
TRAINED, FROZEN, FACTS = ".safetensors", ".beside.safetensors", ".json"

MadeFor = Literal["starting", "published"]
"""Which adapter of a round a personal one is made for."""

log = logging.getLogger("silo-agent")


class Compared(JobValue):
    """Losses of the other adapters on the same held-out records, in nats per token.

    `everybody` is the candidate that the round made of all silos' adapters.
    """

    everybody: float
    silo_only: float | None
    base: float


class PersonalFacts(JobValue):
    """A personal adapter: how it was made, of what, and what it was worth when it was.

    It was trained and measured in `precision`, in a round whose plan was `issued_at` that time.

    `digest` is that of what was trained, `beside_digest` that of the federation's part that acts
    with it, of layout `beside_layout`; both are None where nothing does. `global_digest` is that of
    the federation's adapter that it was made for: what the round started from, or with
    `made_for` "published" what it published. `heldout_digest` and `heldout_sequences` say what the
    losses are of, `compared` what those of the others were, once the round had them.
    """

    method: Literal["dual", "ditto"]
    federation: str
    run: str
    round: int
    attempt: int
    base_model: BaseModelRef
    prompt_date: Day
    precision: Precision
    issued_at: datetime
    layout: AdapterLayout
    beside_layout: AdapterLayout | None
    digest: str
    beside_digest: str | None
    global_digest: str | None
    steps: int
    tokens: int
    heldout_digest: str
    heldout_sequences: int
    measures: PersonalMeasures
    task: FamilyTask = CAUSAL_TASK
    compared: Compared | None = None
    made_for: MadeFor = "starting"


@dataclass(frozen=True)
class PersonalAdapter:
    """The files of one, and its facts."""

    facts: PersonalFacts
    trained: Path
    beside: Path | None


@dataclass(frozen=True)
class PersonalAdapters:
    """Those of one run in a home."""

    home: Path
    run: str

    def of_round(self, number: int) -> PersonalAdapter | None:
        """What was kept of a round, whole; None where there is nothing, or a part is missing."""
        try:
            facts = PersonalFacts.model_validate_json(self._path(number, FACTS).read_bytes())
            trained = of_layout(self._path(number, TRAINED), facts.layout)
            layout, beside = facts.beside_layout, None
            if layout is not None:
                beside = of_layout(self._path(number, FROZEN), layout)
        except (OSError, ValidationError):
            return None
        if trained is None or (layout is not None and beside is None):
            return None
        return PersonalAdapter(facts, trained, beside)

    def newest(self, before: int | None = None) -> PersonalAdapter | None:
        """The last that is whole, of a round before `before` where that is said."""
        numbers = (n for n in reversed(self._numbers()) if before is None or n < before)
        return next((found for n in numbers if (found := self.of_round(n)) is not None), None)

    def keep(self, facts: PersonalFacts, trained: Path, beside: Path | None) -> None:
        """Keep a round's adapter; killed anywhere it is the whole one or none."""
        self._path(facts.round, FACTS).unlink(missing_ok=True)
        keep_durably(trained, self._path(facts.round, TRAINED))
        if beside is not None:
            keep_durably(beside, self._path(facts.round, FROZEN))
        write_durably(self._path(facts.round, FACTS), facts.model_dump_json(indent=1).encode())

    def compare(self, facts: PersonalFacts, compared: Compared) -> None:
        """Keep beside the facts of a round what the other adapters are worth."""
        told = facts.model_copy(update={"compared": compared})
        write_durably(self._path(facts.round, FACTS), told.model_dump_json(indent=1).encode())

    def _numbers(self) -> list[int]:
        directory = self.home / PERSONAL / self.run
        names = [path.name.removesuffix(FACTS) for path in directory.glob(f"round-*{FACTS}")]
        return sorted(int(n.removeprefix("round-")) for n in names if n[len("round-") :].isdigit())

    def _path(self, number: int, suffix: str) -> Path:
        return self.home / PERSONAL / self.run / f"round-{number:04d}{suffix}"


def newest_of_all(home: Path) -> PersonalAdapter | None:
    """The one of the latest plan among the newest of all runs; None where there is none.

    By what their facts say: times of files are others after a restore.
    """
    runs = [path for path in (home / PERSONAL).glob("*") if path.is_dir()]
    found = (PersonalAdapters(home, path.name).newest() for path in runs)
    whole = [adapter for adapter in found if adapter is not None]
    return max(whole, key=lambda each: (each.facts.issued_at, each.facts.run), default=None)


def why_anew(before: PersonalFacts, method: str, layout: AdapterLayout, plan: RoundPlan) -> str:
    """Why a training does not go on from an earlier adapter, in words; empty where it does."""
    if before.base_model.digest != plan.base_model.digest:
        return f"the base model was {before.base_model.name}, of other files"
    if before.method != method:
        return f"the method was {before.method}"
    return (
        "" if before.layout == layout else f"the layout was another, of rank {before.layout.rank}"
    )
