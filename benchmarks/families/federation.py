"""One federation of a family, trained and merged by the product's own jobs, ranks and merge.

Federated: rounds of local steps at every silo, merged by the default rule. Local only: the same
steps at a silo alone. Centralised: as many steps on all records together, each with as many
records as all silos have in a step of theirs. All are measured on the held-out records of every
silo; the figure is the plain mean over silos. A contender of silos of their own is the mean over
them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from aggregator.merge.adapter_merge import merge_adapters
from aggregator.merge.merge_inputs import LocalAdapter, MergeInputs, sorted_locals
from aggregator.settings.merge import MergeSection
from benchmarks.families.material import Material, SiloFiles
from data_contracts.adapters.adapter_format import open_adapter
from data_contracts.adapters.starting_adapter import InitialAdapter
from data_contracts.protocol.artifact import artifact_of_file
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.training_recipe import TrainingRecipe
from silo_agent.personal.job import Beside, personal_job
from silo_agent.personal_settings import PersonalSection
from silo_agent.training.job import EvaluatedAdapter, EvaluationJob, HeldoutSet, TrainingJob
from silo_agent.training.personal_part import PersonalMeasures
from silo_agent.training.processes.launch import run_evaluation, run_training
from silo_agent.training.processes.resident_ranks import ResidentRanks
from silo_agent.training.results import EvaluationResult

FAR = datetime(2100, 1, 1, tzinfo=UTC)
WEIGHT_CAP = 10_000_000


def silo_name(place: int) -> str:
    """What the held-out records of a silo are called."""
    return f"silo-{place}"


@dataclass(frozen=True)
class Shape:
    """How long a federation of a family trains; `recipe.local_steps` are those of one round.
    `heldout`: sequences of a silo that are measured, at most."""

    recipe: TrainingRecipe
    rounds: int
    heldout: int
    micro_batch: int = 1


@dataclass(frozen=True)
class Federation:
    """What silos do together and alone, with one seed, in files below `folder`."""

    folder: Path
    material: Material
    layout: AdapterLayout
    shape: Shape
    ranks: ResidentRanks

    def federated(self) -> list[Path]:
        """The merged adapter of every round."""
        merged: list[Path] = []
        for number in range(1, self.shape.rounds + 1):
            start = merged[-1] if merged else None
            trained = [
                self._train(f"federated-{number}-{place}", silo, number, start)
                for place, silo in enumerate(self.material.silos)
            ]
            merged.append(self._merged(number, trained, merged))
        return merged

    def local_only(self) -> list[Path]:
        """For each silo the adapter that it trains alone, round after round."""
        own = []
        for place, silo in enumerate(self.material.silos):
            path = self._train(f"local-1-{place}", silo, 1, None)
            for number in range(2, self.shape.rounds + 1):
                path = self._train(f"local-{number}-{place}", silo, number, path)
            own.append(path)
        return own

    def centralised(self) -> Path:
        """Of all records together."""
        silos = self.material.silos
        together = SiloFiles(self.folder / "all-train.jsonl", silos[0].heldout)
        together.train.write_text("".join(silo.train.read_text() for silo in silos))
        recipe = self.shape.recipe
        update = {
            "local_steps": recipe.local_steps * self.shape.rounds,
            "sequences_per_step": recipe.sequences_per_step * len(silos),
        }
        return self._train("centralised", together, 1, None, recipe.model_copy(update=update))

    def personal(self, global_adapter: Path) -> list[PersonalMeasures]:
        """What each silo's second adapter beside the federation's, as `dual` trains it, is worth on
        that silo's held-out records."""
        section = PersonalSection.model_validate({"method": "dual"})
        beside = Beside(global_adapter, self.layout)
        steps = {"local_steps": self.shape.recipe.local_steps * self.shape.rounds}
        recipe = self.shape.recipe.model_copy(update=steps)
        found = []
        for place, silo in enumerate(self.material.silos):
            job = self._job(f"personal-{place}", silo, self.shape.rounds + 1, global_adapter)
            job = job.model_copy(update={"recipe": recipe})
            made = run_training(personal_job(job, section, beside, None, FAR), ranks=self.ranks)
            found += [made.personal] if made.personal else []
        return found

    def measured(self, adapters: Mapping[str, Path | None]) -> EvaluationResult:
        """Each of them, by its name, on the held-out records of every silo."""
        sets = tuple(
            HeldoutSet(name=silo_name(place), records=silo.heldout)
            for place, silo in enumerate(self.material.silos)
        )
        job = EvaluationJob(
            model_dir=self.material.model_dir,
            task=self.material.task,
            layout=self.layout,
            adapters=tuple(EvaluatedAdapter(name=n, path=p) for n, p in adapters.items()),
            heldout=sets,
            sequence_length=self.shape.recipe.sequence_length,
            heldout_sequences=self.shape.heldout,
            output_dir=self.folder / "measured",
            shards_dir=self.folder / "shards",
        )
        return run_evaluation(job)

    def _train(
        self,
        name: str,
        silo: SiloFiles,
        number: int,
        start: Path | None,
        recipe: TrainingRecipe | None = None,
    ) -> Path:
        job = self._job(name, silo, number, start)
        if recipe is not None:
            job = job.model_copy(update={"recipe": recipe})
        return run_training(job, ranks=self.ranks).adapter

    def _job(self, name: str, silo: SiloFiles, number: int, start: Path | None) -> TrainingJob:
        return TrainingJob(
            model_dir=self.material.model_dir,
            task=self.material.task,
            layout=self.layout,
            recipe=self.shape.recipe,
            round=number,
            starting_adapter=start,
            train_records=silo.train,
            heldout_records=silo.heldout,
            output_dir=self.folder / name,
            shards_dir=self.folder / "shards",
            zero_stage=1,
            ranks=1,
            threads_per_rank=2,
            micro_batch=self.shape.micro_batch,
            measure_starting=False,
            measure_local=False,
            heldout_sequences=self.shape.heldout,
        )

    def _merged(self, number: int, trained: list[Path], before: list[Path]) -> Path:
        locals_ = [
            LocalAdapter(open_adapter(path, self.layout), artifact_of_file(path).digest, 1)
            for path in trained
        ]
        start, earlier = ([*reversed(before), None, None])[:2]
        inputs = MergeInputs(
            layout=self.layout,
            merge=MergeSection().spec(WEIGHT_CAP),
            round_number=number,
            locals=sorted_locals(locals_),
            starting=open_adapter(start, self.layout) if start else InitialAdapter(self.layout),
            starting_digest=artifact_of_file(start).digest if start else None,
            earlier=open_adapter(earlier, self.layout) if earlier else None,
            earlier_digest=artifact_of_file(earlier).digest if earlier else None,
        )
        if start is not None and earlier is None:
            initial = InitialAdapter(self.layout)
            inputs = MergeInputs(**{**vars(inputs), "earlier": initial})
        into = self.folder / f"merged-{number}.safetensors"
        merge_adapters(inputs, into)
        return into
