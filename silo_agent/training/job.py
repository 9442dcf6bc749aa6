"""What the agent asks of its training processes: JSON files, no torch.

A job names local paths only. Its fingerprint covers everything that decides the outcome, file
contents included, so that a checkpoint or a result is reused for exactly the same work and no
other.
"""

from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.model_family import CAUSAL, CAUSAL_TASK, FamilyTask
from data_contracts.protocol.records.round_plan import ANY_DAY
from data_contracts.protocol.records.training_recipe import TrainingRecipe
from data_contracts.protocol.wire_types import Day
from silo_agent.training.engine_spec import (
    BaseWeights,
    Device,
    EngineSpec,
    HeldAs,
    Offload,
    Precision,
)
from silo_agent.training.fingerprint import fingerprint_of
from silo_agent.training.job_value import JobValue
from silo_agent.training.leak_part import LeakPart
from silo_agent.training.personal_part import PersonalPart
from silo_agent.training.private_part import PrivatePart, require_private
from silo_agent.training.prompt_gate import PromptGate
from silo_agent.training.silo_only import SiloOnlyBaseline

PositiveInt = Annotated[int, Field(ge=1)]


_NOT_DECISIVE = {
    "shards_dir",
    "threads_per_rank",
    "offload_dir",
    "checkpoint_every_steps",
    "measure_base",
    "measure_starting",
    "measure_local",
    "least_steps",
    "end_by",
}
"""Fields of a job that change neither what a step does nor what a retry may reuse: how many steps a
result has is asked of the result."""


class TrainingJob(JobValue):
    """One silo's local training in one round.

    `train_records` and `heldout_records` are JSONL files of records of one form. Their tokens are
    kept in `shards_dir` for later jobs, without one in the output directory.
    `checkpoint_every_steps` of 0 means no checkpoints; `heldout_sequences` caps the held-out set.
    `prompt_date` is the date for a chat template that writes one. `micro_batch` packed sequences of
    a rank go through the model at a time, which changes a step's result by rounding alone.
    Losses that leave are measured in `precision` of the device and with "full" `base_weights`:
    a job of others trains, and measures nothing.
    `starting_residual` is a second adapter, of the layout `residual_layout`, that is never trained.
    From `least_steps` of the recipe's `local_steps` on training ends when a step more would not be
    over by `end_by`; None: with all of them, whenever. The baseline is given up then.
    `personal` makes it the training of an adapter that never leaves; `private`, a differentially
    private one. With `leak_check` the ranks measure what the adapter tells of its records.
    """

    model_dir: Path
    layout: AdapterLayout
    recipe: TrainingRecipe
    round: PositiveInt
    prompt_date: Day = ANY_DAY
    starting_adapter: Path | None = None
    starting_residual: Path | None = None
    residual_layout: AdapterLayout | None = None
    train_records: Path
    heldout_records: Path
    output_dir: Path
    shards_dir: Path | None = None
    zero_stage: Literal[1, 2, 3] = 2
    ranks: PositiveInt = 1
    device: Device = "cpu"
    micro_batch: PositiveInt = 1
    gradient_checkpointing: bool = False
    offload: Offload = "none"
    offload_dir: Path | None = None
    precision: Precision = "float32"
    base_weights: BaseWeights = "full"
    threads_per_rank: PositiveInt = 1
    checkpoint_every_steps: Annotated[int, Field(ge=0)] = 0
    heldout_sequences: PositiveInt = 8
    least_steps: PositiveInt | None = None
    end_by: AwareDatetime | None = None
    measure_base: bool = False
    measure_starting: bool = True
    measure_local: bool = True
    silo_only: SiloOnlyBaseline = SiloOnlyBaseline()
    task: Annotated[FamilyTask, Field(exclude_if=lambda value: value == CAUSAL_TASK)] = CAUSAL_TASK
    personal: Annotated[PersonalPart | None, Field(exclude_if=lambda value: value is None)] = None
    private: Annotated[PrivatePart | None, Field(exclude_if=lambda value: value is None)] = None
    leak_check: Annotated[LeakPart | None, Field(exclude_if=lambda value: value is None)] = None

    @model_validator(mode="after")
    def _ranks_share_the_step_evenly(self) -> Self:
        if self.recipe.sequences_per_step % self.ranks:
            raise ValueError(
                f"expected sequences_per_step ({self.recipe.sequences_per_step}, from the plan) to "
                f"be a multiple of ranks ({self.ranks}, from the silo's configuration); choose a "
                "number of ranks that divides it"
            )
        return self

    @model_validator(mode="after")
    def _quantised_weights_stay_whole(self) -> Self:
        if self.base_weights != "full" and (self.zero_stage == 3 or self.offload != "none"):
            raise ValueError(f"expected base_weights {self.base_weights} at stage 1 or 2")
        return self

    @model_validator(mode="after")
    def _only_the_pinned_model_is_measured(self) -> Self:
        asked = self.measure_base or self.measure_starting or self.measure_local
        if asked and not self.measures:
            raise ValueError(
                f"expected held-out losses of the pinned base model, not in {self.precision} with "
                f"{self.base_weights} base weights"
            )
        return self

    @model_validator(mode="after")
    def _private_steps_can_be_private(self) -> Self:
        if self.private is not None:
            require_private(self)
        return self

    @model_validator(mode="after")
    def _residual_has_a_layout(self) -> Self:
        _require_layout(self.residual_layout, self.starting_residual)
        return self

    @property
    def measures(self) -> bool:
        """Whether what trains it can measure held-out losses that leave."""
        return HeldAs(self.precision, self.base_weights).measures_on(self.device)

    @property
    def fewest_steps(self) -> int:
        """Steps without which the job is not done."""
        return self.least_steps or self.recipe.local_steps

    def may_end(self, done: int) -> bool:
        """Whether the steps that are done are enough, and the clock is to be asked."""
        return self.end_by is not None and done >= self.fewest_steps

    def is_time_over(self, done: int, step_seconds: float, now: datetime) -> bool:
        """Whether it may end, and another step would not be over by `end_by`."""
        is_late = self.end_by is not None and now + timedelta(seconds=step_seconds) > self.end_by
        return is_late and self.may_end(done)

    def alone(self) -> "TrainingJob":
        """The silo-only baseline: it starts from its own past, trains both factors and is pulled
        back to nothing.

        What a merge rule asks for, a frozen factor or a proximal term, would only make it weaker.
        """
        free = {"trained_factors": "both", "proximal_mu": Decimal("0")}
        changes = {
            "recipe": self.recipe.model_copy(update=free),
            "starting_adapter": self.silo_only.previous_adapter,
            "starting_residual": None,
        }
        return self.model_copy(update=changes)

    @property
    def is_its_own_baseline(self) -> bool:
        """Whether the silo-only adapter is the local one: both start from the same."""
        return self.silo_only.enabled and self.alone() == self

    @property
    def engine(self) -> EngineSpec:
        """The engine that this job is done with."""
        return EngineSpec(
            model_dir=self.model_dir,
            layout=self.layout,
            residual_layout=self.residual_layout if self.starting_residual else None,
            trained=self.recipe.trained_factors,
            sequences_per_rank=self.recipe.sequences_per_step // self.ranks,
            weight_decay=self.recipe.weight_decay,
            max_gradient_norm=self.recipe.max_gradient_norm,
            zero_stage=self.zero_stage,
            ranks=self.ranks,
            device=self.device,
            micro_batch=self.micro_batch,
            gradient_checkpointing=self.gradient_checkpointing,
            offload=self.offload,
            offload_dir=self.offload_dir,
            precision=self.precision,
            base_weights=self.base_weights,
            task=self.task,
            private=self.private is not None,
        )

    def fingerprint(self) -> str:
        """SHA-256 over the job and the bytes of every data and adapter file that it names."""
        described = self.model_dump_json(exclude=_NOT_DECISIVE)
        centre = self.personal.centre if self.personal else None
        units = self.private.units if self.private else None
        alone = self.silo_only.previous_adapter
        canaries = self.leak_check.reference_canaries if self.leak_check else None
        others = (self.starting_adapter, self.starting_residual, alone, centre, units, canaries)
        files = [self.train_records, self.heldout_records]
        return fingerprint_of(described, files + [path for path in others if path is not None])


class EvaluatedAdapter(JobValue):
    """An adapter to measure; `path` None means the base model without any adapter.

    `residual` is the frozen second adapter that it was published with. `layout` is that of `path`
    where it is narrower than the job's; None means the job's.
    With a `gate` it is a personal adapter, and `residual` what it was trained beside: on prompts
    that the gate takes both act, on others `residual` alone.
    """

    name: str
    path: Path | None
    residual: Path | None = None
    layout: AdapterLayout | None = None
    gate: Annotated[PromptGate | None, Field(exclude_if=lambda value: value is None)] = None


class HeldoutSet(JobValue):
    """A JSONL file of held-out records, under a name."""

    name: str
    records: Path


class EvaluationJob(JobValue):
    """Measure every adapter on every held-out set, loading the model once.

    `residual_layout` is the layout of every residual; with `per_sequence` each loss says of which
    sequences it is made, with `per_record` of which records. Ranks that train measure on an engine
    as `engine` describes it, with the layouts of this job; without one a process measures alone.
    `shards_dir` as in `TrainingJob`.
    """

    model_dir: Path
    layout: AdapterLayout
    adapters: Annotated[tuple[EvaluatedAdapter, ...], Field(min_length=1)]
    heldout: Annotated[tuple[HeldoutSet, ...], Field(min_length=1)]
    sequence_length: Annotated[int, Field(ge=16)]
    prompt_date: Day = ANY_DAY
    heldout_sequences: PositiveInt
    output_dir: Path
    shards_dir: Path | None = None
    device: Device = "cpu"
    threads: PositiveInt = 2
    residual_layout: AdapterLayout | None = None
    per_sequence: bool = False
    per_record: bool = False
    engine: EngineSpec | None = None
    task: Annotated[FamilyTask, Field(exclude_if=lambda value: value == CAUSAL_TASK)] = CAUSAL_TASK

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Self:
        for names in ([a.name for a in self.adapters], [h.name for h in self.heldout]):
            if len(set(names)) != len(names):
                raise ValueError("names of adapters and of held-out sets must be distinct")
        return self

    @model_validator(mode="after")
    def _is_of_the_pinned_model(self) -> Self:
        if self.engine is not None and not self.engine.measures:
            raise ValueError("expected an engine with the pinned base model, to measure on")
        return self

    @model_validator(mode="after")
    def _residuals_have_a_layout(self) -> Self:
        _require_layout(self.residual_layout, *(adapter.residual for adapter in self.adapters))
        return self

    @model_validator(mode="after")
    def _gates_have_prompts_and_an_adapter(self) -> Self:
        gated = [adapter for adapter in self.adapters if adapter.gate is not None]
        if gated and (self.task.family != CAUSAL or any(each.path is None for each in gated)):
            raise ValueError(f"expected gates beside adapters of {CAUSAL} models alone")
        return self

    def fingerprint(self) -> str:
        """SHA-256 over the job and the bytes of every data and adapter file that it names."""
        adapters = [path for each in self.adapters for path in (each.path, each.residual) if path]
        described = self.model_dump_json(exclude={"threads", "engine", "shards_dir"})
        return fingerprint_of(described, [*adapters, *(h.records for h in self.heldout)])


def _require_layout(layout: AdapterLayout | None, *residuals: Path | None) -> None:
    if layout is None and any(residual is not None for residual in residuals):
        raise ValueError("expected residual_layout, the layout of the residual that is named")
