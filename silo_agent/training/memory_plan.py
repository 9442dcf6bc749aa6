"""How a round is trained so that it fits: the smallest ZeRO stage, the largest micro-batch there.

Settings that are numbers are taken as they are; for those that say "auto" what fits is looked for,
in one order: stages from 1 to 3, in each first without and then with gradient checkpointing (which
costs a second forward pass), in each the largest micro-batch. A plan for which nothing fits is
refused before a byte is loaded.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from data_contracts.errors import ConsortiaError, SiloOperatorError
from data_contracts.protocol.records import RoundPlan
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from infra.base_model.model_shape import ModelShape, model_shape
from silo_agent.config import SiloConfig, TrainingSection
from silo_agent.personal_settings import PersonalSection
from silo_agent.policy.policy_file import PolicyFile
from silo_agent.training.engine_spec import PINNED, EngineSpec, HeldAs, Stage
from silo_agent.training.memory import Estimate, estimate
from silo_agent.training.memory_room import Room, gigabytes, room_of
from silo_agent.training.offload import require_offload
from silo_agent.training.own_steps import own_recipe
from silo_agent.training.precision import held_as
from silo_agent.training.private_stage import in_private_stage
from silo_agent.training.quantisation import require_quantisation
from silo_agent.training.rank_work import Choice, Work

OFF = PersonalSection()
STAGES: tuple[Stage, ...] = (1, 2, 3)
MOST_AUTOMATIC = 64
"""Sequences in a micro-batch that is chosen: beyond it nothing becomes faster."""


@dataclass(frozen=True)
class Candidate:
    """One way of training, and what a rank takes at its peak."""

    choice: Choice
    estimate: Estimate


@dataclass(frozen=True)
class MemoryPlan:
    """A model, what is to be trained on it, the silo's settings, and the room of a rank."""

    shape: ModelShape
    work: Work
    sequences_per_rank: int
    training: TrainingSection
    room: Room

    @cached_property
    def chosen(self) -> Candidate | None:
        """The first candidate that fits; None when none does."""
        return next((each for each in self._candidates() if self.fits(each)), None)

    @cached_property
    def least(self) -> Candidate:
        """The candidate that takes least."""
        return min(self._candidates(), key=lambda each: each.estimate.total_bytes)

    @property
    def shown(self) -> Candidate:
        """What is trained, or what comes nearest to it."""
        return self.chosen or self.least

    @property
    def shortage(self) -> str | None:
        """What is needed and what there is, in words; None where something fits."""
        if self.chosen is not None or self.room.size_bytes is None:
            return None
        needed, there = self.least.estimate.total_bytes, self.room.size_bytes
        return (
            f"A training process needs {gigabytes(needed)} at the least, "
            f"and {gigabytes(there)} are there for it."
        )

    def fits(self, candidate: Candidate) -> bool:
        """Whether the room of a rank holds it."""
        return self.room.holds(candidate.estimate.total_bytes)

    def with_(self, choice: Choice) -> Candidate:
        """Any choice, with what it takes."""
        return Candidate(choice, estimate(self.shape, self.work, choice))

    def largest_micro_batch(self, choice: Choice) -> int | None:
        """The largest one that fits with the rest of `choice`; None when not even one does."""
        for size in _automatic(self.sequences_per_rank):
            other = Choice(choice.zero_stage, size, choice.gradient_checkpointing, choice.offload)
            if self.fits(self.with_(other)):
                return size
        return None

    def _candidates(self) -> Iterator[Candidate]:
        return map(self.with_, choices(self.training, self.sequences_per_rank, self.room))


def choices(training: TrainingSection, sequences_per_rank: int, room: Room) -> Iterator[Choice]:
    """What the settings leave open, in the order of preference.

    In a room that is not known nothing is looked for: stage 2 (3 to offload), one sequence.
    """
    is_known = room.size_bytes is not None
    automatic = stages_of(training) if is_known else (2,)
    if training.offload != "none":
        automatic = (3,)
    stages = automatic if training.zero_stage == "auto" else (training.zero_stage,)
    checkpointing = training.gradient_checkpointing
    open_ = (False, True) if is_known else (False,)
    sizes = _automatic(sequences_per_rank) if is_known else [1]
    if training.micro_batch != "auto":
        sizes = [min(training.micro_batch, sequences_per_rank)]
    for stage in stages:
        for saves in open_ if checkpointing == "auto" else (checkpointing,):
            for size in sizes:
                yield Choice(stage, size, saves, training.offload)


def stages_of(training: TrainingSection) -> tuple[Stage, ...]:
    """The stages that the settings could name: quantised weights are not partitioned."""
    return STAGES if training.base_weights == "full" else (1, 2)


def work_of(
    plan: RoundPlan,
    silo: str,
    training: TrainingSection,
    held: HeldAs,
    personal: PersonalSection = OFF,
) -> Work:
    """What a plan asks of this silo, at its largest: what is cut off from the run's adapter acts
    beside a narrower one, all of it beside a dual personal one, and what is not the federation's
    trains both factors."""
    own, recipe = plan.layout_of(silo), plan.recipe
    residual = plan.layout.without_wholes if own != plan.layout else plan.residual_layout
    if personal.method == "dual":
        residual = _whole(plan)
    return Work(
        layout=own,
        residual_layout=residual,
        trained="both" if training.silo_only_baseline or personal.is_on else recipe.trained_factors,
        sequence_length=recipe.sequence_length,
        round_tokens=own_recipe(recipe, training).tokens_per_round,
        ranks=training.ranks,
        device=training.device,
        held=held,
        family=plan.learned.family,
        private_records=_private_records(plan, training),
    )


def _private_records(plan: RoundPlan, training: TrainingSection) -> int | None:
    """Records of one rank in a step: of a unit that is drawn as many as the plan lets in."""
    if plan.privacy is None:
        return None
    units = sequences_per_rank(plan.recipe.sequences_per_step, training)
    return units * plan.privacy.records_per_unit


def _whole(plan: RoundPlan) -> AdapterLayout:
    """The run's adapter with its residual, as one."""
    more = plan.residual_layout.rank if plan.residual_layout else 0
    return plan.layout.model_copy(update={"rank": plan.layout.rank + more})


def _held(config: SiloConfig) -> HeldAs:
    """As the model is held at its largest: a personal adapter is trained on the pinned one."""
    held, pinned = held_as(config), PINNED[config.training.device]
    return pinned if config.personal.is_on and held.precision == "bfloat16" else held


def memory_plan(model_dir: Path, plan: RoundPlan, config: SiloConfig) -> MemoryPlan:
    """How `plan` is trained here; SiloOperatorError where the model does not say its shape."""
    training = _section(plan, config)
    return MemoryPlan(
        model_shape(model_dir),
        work_of(plan, config.silo, training, _held(config), config.personal),
        sequences_per_rank(plan.recipe.sequences_per_step, training),
        training,
        room_of(training),
    )


def sequences_per_rank(sequences_per_step: int, training: TrainingSection) -> int:
    """Sequences that one rank sees in one step."""
    return max(1, sequences_per_step // training.ranks)


def chosen_for(model_dir: Path, plan: RoundPlan, config: SiloConfig) -> Choice:
    """What the ranks are started with. Where nothing is left open nothing is asked; where nothing
    fits it is what takes least, for plans that were accepted before the settings were changed.
    Raises SiloOperatorError where the machine lacks what `offload` or `base_weights` needs."""
    training = _section(plan, config)
    require_offload(training.offload)
    require_quantisation(training)
    if "auto" not in (training.zero_stage, training.micro_batch, training.gradient_checkpointing):
        each = sequences_per_rank(plan.recipe.sequences_per_step, training)
        return next(choices(training, each, Room(None, "")))
    return memory_plan(model_dir, plan, _federated(config)).shown.choice


def personal_choice(model_dir: Path, plan: RoundPlan, config: SiloConfig) -> Choice:
    """What the ranks are started with for the personal adapter, which never changes how the
    federation's is trained. Raises SiloOperatorError where nothing fits."""
    training, federated = _section(plan, config), chosen_for(model_dir, plan, config)
    try:
        planned = memory_plan(model_dir, plan, config)
    except ConsortiaError:
        # A model that does not say its shape: nothing is planned.
        return federated
    if planned.shortage is not None:
        raise SiloOperatorError(
            "memory for the personal adapter",
            expected="room for its training",
            found=planned.shortage,
            action='set what is fixed under [training] to "auto", or method = "off"',
        )
    open_ = (training.zero_stage, training.micro_batch, training.gradient_checkpointing)
    return planned.shown.choice if "auto" in open_ else federated


def _section(plan: RoundPlan, config: SiloConfig) -> TrainingSection:
    """The settings, as far as the plan leaves them open."""
    return config.training if plan.privacy is None else in_private_stage(config.training)


def _federated(config: SiloConfig) -> SiloConfig:
    return config.model_copy(update={"personal": OFF})


def shortage(plan: RoundPlan, policy: PolicyFile, config: SiloConfig) -> str | None:
    """Why no setting of this silo holds the plan, in numbers; None where one does.

    None also where the model is not allowed, is not there or does not say its shape: that is for
    other rules, and for the look at it before ranks start.
    """
    model = policy.policy.model(plan.base_model.digest) if policy.policy else None
    if model is None:
        return None
    try:
        return memory_plan(config.path(model.path), plan, _federated(config)).shortage
    except (ConsortiaError, OSError):
        return None


def rank_bytes(spec: EngineSpec, sequence_length: int, round_tokens: int) -> int | None:
    """What a rank with this engine takes at its peak; None for a model of an unknown shape."""
    work = Work(
        layout=spec.layout,
        residual_layout=spec.residual_layout,
        trained=spec.trained,
        sequence_length=sequence_length,
        round_tokens=round_tokens,
        ranks=spec.ranks,
        device=spec.device,
        held=spec.held,
        family=spec.task.family,
        private_records=spec.sequences_per_rank if spec.private else None,
    )
    choice = Choice(spec.zero_stage, spec.micro_batch, spec.gradient_checkpointing, spec.offload)
    try:
        return estimate(model_shape(spec.model_dir), work, choice).total_bytes
    except (ConsortiaError, OSError):
        return None


def _automatic(sequences_per_rank: int) -> list[int]:
    """Divisors, the largest first: every micro-batch of a step is full."""
    most = min(sequences_per_rank, MOST_AUTOMATIC)
    return [size for size in range(most, 0, -1) if sequences_per_rank % size == 0]
