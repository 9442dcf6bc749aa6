"""A silo's own factors B under the rule `shared_a`: where they are kept, and what they act with.

    own-factors/<run>/round-0003.b.safetensors   B after this silo's training in round 3
    own-factors/<run>/round-0003.json            facts about it, last: without them it is none
    own-factors/<run>/round-0003.a.safetensors   the shared A of the run after round 3

Files are mode 0600, in the home and in its backup, never in outbox or inbox. A round starts with
the newest B of an earlier round of the run, whatever became of that round, so that another attempt
at the same round asks for the same training; before there is one B is zero.
"""

import logging
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from data_contracts.adapters.adapter_format import open_adapter
from data_contracts.adapters.starting_adapter import AdapterSource, InitialAdapter, tensors_of
from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.artifact import artifact_of_file
from data_contracts.protocol.records import RoundPlan
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.base_model_ref import BaseModelRef
from data_contracts.protocol.records.model_family import FamilyTask
from data_contracts.protocol.wire_types import Day
from infra.disk.durable_files import keep_durably, write_durably
from silo_agent.collaborators import GlobalAdapter
from silo_agent.personal.shared_factor import (
    FactorsA,
    FactorsB,
    WithOwnB,
    open_factors_b,
    write_factors_b,
)
from silo_agent.training.adapter_file import write_adapter
from silo_agent.training.job_value import JobValue
from silo_agent.training.jobs import WORK

OWN_FACTORS = "own-factors"
"""Directory of the home, with one for each run below; also below that of a round's work."""
B_SUFFIX, A_SUFFIX, FACTS = ".b.safetensors", ".a.safetensors", ".json"
RELEASED_NAME = "shared-factors.safetensors"

log = logging.getLogger("silo-agent")


class OwnFacts(JobValue):
    """A silo's B: of which round, base model and layout; `digest` is that of its file."""

    federation: str
    run: str
    round: int
    attempt: int
    base_model: BaseModelRef
    task: FamilyTask
    prompt_date: Day
    issued_at: datetime
    layout: AdapterLayout
    digest: str


@dataclass(frozen=True)
class OwnAdapter:
    """The run's A after `round`, and the B that this silo had then."""

    facts: OwnFacts
    round: int
    shared: Path
    factors: FactorsB

    @property
    def source(self) -> WithOwnB:
        """Both as one adapter with pairs."""
        layout = self.facts.layout
        return WithOwnB(open_adapter(self.shared, layout.a_alone), self.factors, layout)


@dataclass(frozen=True)
class OwnFactors:
    """Those of one run in a home."""

    home: Path
    run: str

    def of_round(self, number: int) -> tuple[OwnFacts, FactorsB] | None:
        """B of a round, whole and the one that its facts name; else None."""
        path = self._path(number, B_SUFFIX)
        try:
            facts = OwnFacts.model_validate_json(self._path(number, FACTS).read_bytes())
            factors = open_factors_b(path, facts.layout)
            is_whole = artifact_of_file(path).digest == facts.digest
        except (OSError, ValidationError, UntrustedInputError):
            return None
        return (facts, factors) if is_whole else None

    def newest(self, until: int) -> tuple[OwnFacts, FactorsB] | None:
        """The last that is whole, of the rounds up to and with `until`."""
        numbers = (n for n in reversed(self._numbers(FACTS)) if n <= until)
        return next((found for n in numbers if (found := self.of_round(n)) is not None), None)

    def keep(self, plan: RoundPlan, pairs: AdapterSource) -> None:
        """Keep B of what was trained; killed anywhere it is the whole one or none."""
        path = self._path(plan.round, B_SUFFIX)
        self._path(plan.round, FACTS).unlink(missing_ok=True)
        write_factors_b(path, pairs)
        facts = OwnFacts(
            federation=plan.federation,
            run=plan.run,
            round=plan.round,
            attempt=plan.attempt,
            base_model=plan.base_model,
            task=plan.learned,
            prompt_date=plan.day,
            issued_at=plan.issued_at,
            layout=plan.layout,
            digest=artifact_of_file(path).digest,
        )
        write_durably(self._path(plan.round, FACTS), facts.model_dump_json(indent=1).encode())

    def keep_shared(self, number: int, shared: Path) -> None:
        """Keep the run's A as it is after a round."""
        keep_durably(shared, self._path(number, A_SUFFIX))

    def has_shared(self, number: int) -> bool:
        """Whether A after a round is kept."""
        return self._path(number, A_SUFFIX).exists()

    def adapter(self) -> OwnAdapter | None:
        """The newest A that is known, with the B that this silo had then; None before there are
        both."""
        for number in reversed(self._numbers(A_SUFFIX)):
            shared, own = self._path(number, A_SUFFIX), self.newest(number)
            if own is not None and _fits(shared, own[0].layout.a_alone):
                return OwnAdapter(own[0], number, shared, own[1])
        return None

    def _numbers(self, suffix: str) -> list[int]:
        directory = self.home / OWN_FACTORS / self.run
        names = [path.name.removesuffix(suffix) for path in directory.glob(f"round-*{suffix}")]
        return sorted(int(n.removeprefix("round-")) for n in names if n[len("round-") :].isdigit())

    def _path(self, number: int, suffix: str) -> Path:
        return self.home / OWN_FACTORS / self.run / f"round-{number:04d}{suffix}"


def newest_own(home: Path) -> OwnAdapter | None:
    """That of the latest plan among the newest of all runs; None where there is none."""
    runs = [path.name for path in (home / OWN_FACTORS).glob("*") if path.is_dir()]
    found = (OwnFactors(home, run).adapter() for run in runs)
    whole = [adapter for adapter in found if adapter is not None]
    return max(whole, key=lambda each: (each.facts.issued_at, each.facts.run), default=None)


def begun_with(home: Path, plan: RoundPlan, shared: GlobalAdapter) -> GlobalAdapter:
    """What this silo starts the round from; under other rules than `shared_a` what all do.

    `shared` is what the plan starts from, without a file that of the seed.
    """
    if not plan.shares_a:
        return shared
    own = _own(home, plan, plan.round - 1)
    if own is None and shared.path is None:
        return shared
    return _together(plan, shared, own, _work(home, plan) / "starting.safetensors")


def measured_with(
    home: Path, plan: RoundPlan, merged: GlobalAdapter, into: Path | None = None
) -> GlobalAdapter:
    """A merge of the round as this silo has it: with the newest B, this round's where it trained.

    Written to the file `into`, without one where the round's work lies.
    """
    if not plan.shares_a:
        return merged
    path = into or _work(home, plan) / "candidate.safetensors"
    return _together(plan, merged, _own(home, plan, plan.round), path)


def released(home: Path, plan: RoundPlan, trained: Path) -> Path:
    """The file that may leave of what was trained: under `shared_a` A alone; B is kept first."""
    if not plan.shares_a:
        return trained
    pairs = open_adapter(trained, plan.layout)
    OwnFactors(home, plan.run).keep(plan, pairs)
    path = trained.with_name(RELEASED_NAME)
    write_adapter(path, plan.exchanged, tensors_of(FactorsA(pairs)))
    return path


def tell_begun(home: Path, plan: RoundPlan, shared: GlobalAdapter) -> None:
    """Say which B the round starts with, and keep the A that it starts from."""
    if not plan.shares_a:
        return
    factors = OwnFactors(home, plan.run)
    if shared.path is not None:
        factors.keep_shared(plan.round - 1, shared.path)
    own = _own(home, plan, plan.round - 1)
    if own is None:
        log.info(
            "round %d: begins with its own B at zero: this silo has none of an earlier round of "
            "%s; the A is that of all",
            plan.round,
            plan.run,
        )
    else:
        log.info("round %d: goes on with its own B of round %d", plan.round, own[0].round)


def _own(home: Path, plan: RoundPlan, until: int) -> tuple[OwnFacts, FactorsB] | None:
    found = OwnFactors(home, plan.run).newest(until)
    return found if found is not None and found[0].layout == plan.layout else None


def _work(home: Path, plan: RoundPlan) -> Path:
    return home / WORK / plan.run / f"round-{plan.round:04d}" / OWN_FACTORS


def _together(
    plan: RoundPlan,
    shared: GlobalAdapter,
    own: tuple[OwnFacts, FactorsB] | None,
    path: Path,
) -> GlobalAdapter:
    layout = plan.exchanged
    source = InitialAdapter(layout) if shared.path is None else open_adapter(shared.path, layout)
    both = WithOwnB(source, None if own is None else own[1], plan.layout)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_adapter(path, plan.layout, tensors_of(both))
    return GlobalAdapter(path)


def _fits(path: Path, layout: AdapterLayout) -> bool:
    try:
        open_adapter(path, layout)
    except (OSError, UntrustedInputError):
        return False
    return True
