"""A plan and the silo's configuration become jobs for training processes, and the files they use.

Training, the adapter that leaves and the silo-only baseline are in the silo's layout; the starting
adapter and the candidate are measured in the run's. What the silo's layout leaves out of the
starting adapter acts, frozen, beside what is trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_contracts.dataset.forms.lines import form_of_file
from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.records import RoundPlan
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.model_family import CAUSAL, ModelFamily
from infra.base_model.folder_check import require_sound
from infra.base_model.tokenizer_files import has_template
from infra.disk.model_files import model_digest
from silo_agent.collaborators import GlobalAdapter
from silo_agent.config import SiloConfig
from silo_agent.gate.splits import SHARDS, Splits
from silo_agent.policy.leak_check import SHARE_OF_TRAINING
from silo_agent.policy.policy_file import read_policy, require_policy
from silo_agent.training.engine_spec import EngineSpec
from silo_agent.training.job import (
    EvaluatedAdapter,
    EvaluationJob,
    HeldoutSet,
    TrainingJob,
)
from silo_agent.training.layout import of_layout, own_layout, rest_file, starting_file
from silo_agent.training.leak_part import CanaryPart, LeakPart
from silo_agent.training.loss_book import LossBook
from silo_agent.training.memory_plan import chosen_for, sequences_per_rank
from silo_agent.training.own_steps import own_recipe
from silo_agent.training.precision import held_as
from silo_agent.training.private_part import PrivatePart
from silo_agent.training.silo_only import SiloOnlyBaseline

HELDOUT = "heldout"
WORK, SILO_ONLY = "work", "silo-only"
"""Directories of the home, with one for each run below."""
NVME = "nvme"

_SOUND: set[tuple[Path, str, bool, ModelFamily]] = set()
"""Folders of models, by their digest, that this process has found to be sound."""


@dataclass(frozen=True)
class LocalJobs:
    """Jobs of one silo in one round."""

    config: SiloConfig
    plan: RoundPlan

    @property
    def layout(self) -> AdapterLayout:
        """The layout that this silo trains."""
        return self.plan.layout_of(self.config.silo)

    def training(
        self, starting: GlobalAdapter, splits: Splits, private: PrivatePart | None = None
    ) -> TrainingJob:
        """Local training from `starting`; losses that are known already are not asked for, and of
        a private training no silo-only baseline."""
        training, plan = self.config.training, self.plan
        model_dir = self._model_dir(splits.train)
        choice, held = chosen_for(model_dir, plan, self.config), held_as(self.config)
        measures = held.measures_on(training.device)
        book = self.book(splits.heldout)
        silo = self.config.silo
        rest = rest_file(plan, silo, starting.path, self._work_dir())
        return TrainingJob(
            model_dir=model_dir,
            layout=self.layout,
            recipe=own_recipe(plan.recipe, training),
            least_steps=plan.recipe.least_steps,
            round=plan.round,
            prompt_date=plan.day,
            task=plan.learned,
            starting_adapter=starting_file(plan, silo, starting.path, self._work_dir()),
            starting_residual=rest or starting.residual,
            residual_layout=plan.layout.without_wholes if rest else plan.residual_layout,
            train_records=splits.train,
            heldout_records=splits.heldout,
            output_dir=self._work_dir(),
            shards_dir=splits.shards,
            zero_stage=choice.zero_stage,
            ranks=training.ranks,
            device=training.device,
            micro_batch=choice.micro_batch,
            gradient_checkpointing=choice.gradient_checkpointing,
            offload=choice.offload,
            offload_dir=self._offload_dir(),
            precision=held.precision,
            base_weights=held.base_weights,
            threads_per_rank=training.threads_per_rank,
            checkpoint_every_steps=training.checkpoint_every_steps,
            heldout_sequences=training.heldout_sequences,
            measure_base=measures and bool(book.without_records([BASE])),
            # What a narrower layout starts from is not the starting adapter of the round.
            measure_starting=measures
            and own_layout(plan, silo) is None
            and bool(book.without_records([measured("starting", starting)])),
            measure_local=False,
            silo_only=SiloOnlyBaseline()
            if private is not None
            else SiloOnlyBaseline(
                enabled=training.silo_only_baseline,
                previous_adapter=self._silo_only_before(),
            ),
            private=private,
            leak_check=self._leak_check(splits),
        )

    def evaluation(
        self, adapters: tuple[EvaluatedAdapter, ...], heldout: Path, *, per_record: bool = False
    ) -> EvaluationJob:
        """Held-out losses of `adapters`, with `per_record` also of single records."""
        training, model_dir = self.config.training, self._model_dir(heldout)
        return EvaluationJob(
            model_dir=model_dir,
            layout=self.plan.layout,
            residual_layout=self.plan.residual_layout,
            adapters=adapters,
            heldout=(HeldoutSet(name=HELDOUT, records=heldout),),
            sequence_length=self.plan.recipe.sequence_length,
            prompt_date=self.plan.day,
            heldout_sequences=training.heldout_sequences,
            output_dir=self._work_dir() / "evaluation",
            shards_dir=heldout.with_name(SHARDS),
            device=training.device,
            threads=training.ranks * training.threads_per_rank,
            per_record=per_record,
            engine=self._engine(model_dir),
            task=self.plan.learned,
        )

    def _engine(self, model_dir: Path) -> EngineSpec:
        """The one that trains the run's layout, so that training and evaluation share it; where
        training holds the base model otherwise, one for measuring alone."""
        training, recipe = self.config.training, self.plan.recipe
        held = held_as(self.config)
        choice = chosen_for(model_dir, self.plan, self.config)
        return EngineSpec(
            model_dir=model_dir,
            layout=self.plan.layout,
            residual_layout=self.plan.residual_layout,
            trained=recipe.trained_factors,
            sequences_per_rank=sequences_per_rank(recipe.sequences_per_step, training),
            weight_decay=recipe.weight_decay,
            max_gradient_norm=recipe.max_gradient_norm,
            zero_stage=choice.zero_stage,
            ranks=training.ranks,
            device=training.device,
            micro_batch=choice.micro_batch,
            gradient_checkpointing=choice.gradient_checkpointing,
            offload=choice.offload,
            offload_dir=self._offload_dir(),
            precision=held.precision,
            base_weights=held.base_weights,
            private=self.plan.privacy is not None,
            task=self.plan.learned,
        ).for_measuring

    def silo_only(self) -> EvaluatedAdapter | None:
        """This round's silo-only adapter, if there is one in the silo's layout; of a private round
        none is measured."""
        if self.plan.privacy is not None:
            return None
        path = of_layout(self.silo_only_path(self.plan.round), self.layout)
        if path is None:
            return None
        layout = own_layout(self.plan, self.config.silo)
        return EvaluatedAdapter(name="silo_only", path=path, layout=layout)

    def _silo_only_before(self) -> Path | None:
        """The newest one of the run: there is none of a round that had no time for it."""
        this, kept = self.silo_only_path(self.plan.round), list[Path]()
        if this.parent.is_dir():
            kept = sorted(path for path in this.parent.glob("round-*") if path.name < this.name)
        fitting = (of_layout(path, self.layout) for path in reversed(kept))
        return next((path for path in fitting if path is not None), None)

    def silo_only_path(self, round_number: int) -> Path:
        """Where the silo-only adapter of a round is kept for later ones."""
        directory = self.config.home / SILO_ONLY / self.plan.run
        return directory / f"round-{round_number:04d}.safetensors"

    def book(self, heldout: Path) -> LossBook:
        """Losses that were measured on these held-out records."""
        sequences = self.config.training.heldout_sequences
        return LossBook(
            self.config.home, self.plan, heldout, sequences, self.config.training.device
        )

    def _model_dir(self, records: Path) -> Path:
        """Local path of the plan's base model, its files checked against the plan's digest, and
        that it has what these records need."""
        base_model = self.plan.base_model
        policy = require_policy(read_policy(self.config.path(self.config.policy)))
        model = policy.model(base_model.digest)
        path = self.config.path(model.path) if model else None
        found = model_digest(path, self.config.home / "model-digests.json") if path else "no model"
        if path is None or found != base_model.digest:
            raise SiloOperatorError(
                f"base model {base_model.name}",
                expected=f"files with digest {base_model.digest}",
                found=found,
                action="restore the model's files, or correct its digest in the policy",
            )
        family = self.plan.learned.family
        needs_template = family == CAUSAL and (
            has_template(path) or form_of_file(records).needs_template
        )
        # Files of one digest stay as sound as they were, and a tokenizer takes a third of a second.
        asked = (path, found, needs_template, family)
        if asked not in _SOUND:
            require_sound(path, needs_template=needs_template, family=family)
            _SOUND.add(asked)
        return path

    def _leak_check(self, splits: Splits) -> LeakPart | None:
        """None only where a readable policy says that it is off."""
        policy = read_policy(self.config.path(self.config.policy)).policy
        if policy is not None and not policy.leak_check.is_on:
            return None
        return LeakPart(share_of_training=SHARE_OF_TRAINING, canaries=_canaries(splits))

    def _offload_dir(self) -> Path | None:
        """Where parameters go that are on a disk while they are not needed."""
        return self.config.home / NVME if self.config.training.offload == "nvme" else None

    def _work_dir(self) -> Path:
        """One directory per round, not per attempt: a retry finds what was trained before."""
        return self.config.home / WORK / self.plan.run / f"round-{self.plan.round:04d}"


def _canaries(splits: Splits) -> CanaryPart | None:
    terms = splits.canaries
    if terms is None:
        return None
    return CanaryPart(records=splits.reference_canaries, planted=terms.number, copies=terms.copies)


BASE = EvaluatedAdapter(name="base", path=None)
"""The base model without any adapter."""


def coalition_adapters(adapters: Sequence[GlobalAdapter]) -> tuple[EvaluatedAdapter, ...]:
    """Adapters of the run's layout, named by their place."""
    return tuple(measured(f"coalition-{place}", each) for place, each in enumerate(adapters))


def measured(name: str, adapter: GlobalAdapter) -> EvaluatedAdapter:
    """An adapter of the run's layout under the name of its measurement."""
    return EvaluatedAdapter(name=name, path=adapter.path, residual=adapter.residual)
