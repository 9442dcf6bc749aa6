"""Two silos that answer the same questions the other way round, and what is trained on them.

The same ranks do all trainings: the adapter of both together, which is what a federation's
can be at best, and of each silo a personal one by either method.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from data_contracts.protocol.records.training_recipe import TrainingRecipe
from silo_agent.personal.job import Beside, personal_job
from silo_agent.personal_settings import PersonalSection
from silo_agent.training.job import EvaluatedAdapter, EvaluationJob, HeldoutSet, TrainingJob
from silo_agent.training.processes.resident_ranks import ResidentRanks
from silo_agent.training.ranks.evaluate import evaluate
from silo_agent.training.run_files import ProgressWriter, RunFiles
from tests.silo_agent.training.shared_ranks import KEEP_SECONDS, finished, train_in_shared_ranks
from tests.silo_agent.training.tiny_jobs import TinySilo
from tests.tiny_model import make_tiny_model, tiny_adapter_layout

ANSWERS, QUESTIONS = ("yes", "no"), ("lost card", "transfer")
METHODS = ("dual", "ditto")
HELD_OUT = [n for n in range(100) if n // 2 % 5 == 0]
TRAINED = [n for n in range(100) if n not in HELD_OUT]
"""Numbers of questions, of both kinds."""
ALL_IN_ONE = 4096
"""Tokens of a sequence that holds all held-out records, in the same order for both sets."""
FAR = datetime(2100, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Cluster:
    """A silo; `wrong` are its held-out questions with the other silo's answers."""

    silo: TinySilo
    wrong: Path


def records(path: Path, numbers: list[int], *, swapped: bool) -> Path:
    """Questions of two kinds by turns, each kind with its own answer."""
    lines = [
        json.dumps({"prompt": f"Case {n}: {QUESTIONS[n % 2]}", "answer": ANSWERS[n % 2 ^ swapped]})
        for n in numbers
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def recipe(steps: int) -> TrainingRecipe:
    """Enough for the tiny model to learn which question has which answer."""
    return TrainingRecipe(
        local_steps=steps,
        sequences_per_step=1,
        sequence_length=96,
        learning_rate=Decimal("0.01"),
        warmup_steps=2,
        weight_decay=Decimal("0"),
        max_gradient_norm=Decimal("1"),
        seed=3,
    )


class OppositeClusters:
    """Everything trained; `personal[method][number of the silo]`."""

    def __init__(self, root: Path, steps: int) -> None:
        self.root, self.model_dir = root, make_tiny_model(root / "model")
        self.clusters = [self._cluster(swapped) for swapped in (False, True)]
        both = root / "both.jsonl"
        both.write_text("".join(c.silo.train_records.read_text() for c in self.clusters))
        pool = TinySilo(root, self.model_dir, both, self.clusters[0].silo.heldout_records)
        self.federated = pool.job("global", recipe=recipe(steps), ranks=1)
        self.global_adapter = RunFiles(self.federated.output_dir).adapter
        self.personal = {name: [self._personal(c, name) for c in self.clusters] for name in METHODS}
        jobs = [self.federated, *(job for each in self.personal.values() for job in each)]
        ranks = ResidentRanks(root, KEEP_SECONDS)
        try:
            error = train_in_shared_ranks(jobs, ranks)
            assert error is None, error
        finally:
            ranks.end()

    def accuracy(self, cluster: int, job: TrainingJob) -> float:
        """Share of held-out questions whose right answer is likelier than the other one."""
        measured = EvaluatedAdapter(
            name="it", path=finished(job).adapter, residual=job.starting_residual
        )
        return self._accuracy(cluster, job, measured)

    def adapter_accuracy(self, cluster: int, adapter: Path) -> float:
        """As `accuracy`, of a file of the global adapter's layout."""
        return self._accuracy(cluster, self.federated, EvaluatedAdapter(name="it", path=adapter))

    def _accuracy(self, cluster: int, job: TrainingJob, measured: EvaluatedAdapter) -> float:
        found = self.clusters[cluster]
        sets = {"right": found.silo.heldout_records, "wrong": found.wrong}
        result = evaluate(
            EvaluationJob(
                model_dir=self.model_dir,
                layout=job.layout,
                residual_layout=job.residual_layout,
                adapters=(measured,),
                heldout=tuple(HeldoutSet(name=name, records=path) for name, path in sets.items()),
                sequence_length=ALL_IN_ONE,
                heldout_sequences=1,
                output_dir=self.root / "accuracy",
                per_record=True,
            ),
            ProgressWriter(None),
        )
        right, wrong = (self._sums(result.loss("it", name).records) for name in sets)
        return sum(x < y for x, y in zip(right, wrong, strict=True)) / len(right)

    def _sums(self, found: tuple[tuple[float, int], ...]) -> list[float]:
        return [nats / tokens for nats, tokens in found]

    def _cluster(self, swapped: bool) -> Cluster:
        root = self.root / f"silo-{int(swapped)}"
        root.mkdir()
        train = records(root / "train.jsonl", TRAINED, swapped=swapped)
        heldout = records(root / "heldout.jsonl", HELD_OUT, swapped=swapped)
        wrong = records(root / "wrong.jsonl", HELD_OUT, swapped=not swapped)
        return Cluster(TinySilo(root, self.model_dir, train, heldout), wrong)

    def _personal(self, cluster: Cluster, method: str) -> TrainingJob:
        silo, layout = cluster.silo, tiny_adapter_layout()
        federated = self.federated.model_copy(
            update={
                "round": 2,
                "train_records": silo.train_records,
                "heldout_records": silo.heldout_records,
                "starting_adapter": self.global_adapter,
                "output_dir": silo.root / method,
            }
        )
        is_dual = method == "dual"
        beside = Beside(self.global_adapter, layout) if is_dual else Beside(None, None)
        section = PersonalSection.model_validate({"method": method})
        return personal_job(federated, section, beside, None, FAR)
