"""What a silo states of an adapter: measured once, a candidate compared record by record.

Ranks take many seconds to start, so one silo goes through a sequence of evaluations with those it
keeps: coalitions, a first round whose rank is killed once, a second round, sums in another order.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from infra.clock import SystemClock
from silo_agent.collaborators import EvaluatedAdapters, GlobalAdapter, HeldoutLosses
from silo_agent.config import AgentSection, TrainingSection
from silo_agent.gate.splits import Splits
from silo_agent.release.status_reporter import StatusReporter
from silo_agent.restarts import ProcessDiedError
from silo_agent.training.job import EvaluatedAdapter, EvaluationJob, HeldoutSet
from silo_agent.training.jobs import BASE, HELDOUT, coalition_adapters, measured
from silo_agent.training.loss import Loss, RecordSums, change_error, mean_loss
from silo_agent.training.loss_book import SUMS_NAME
from silo_agent.training.ranks.evaluate import evaluate
from silo_agent.training.run_files import ProgressWriter
from silo_agent.training.trainer import DeepSpeedTrainer
from tests.silo_agent.test_silo_layout import drawn_adapter, jobs_of
from tests.silo_agent.tiny_federation import tiny_federation
from tests.silo_agent.training.tiny_jobs import job_processes
from tests.tiny_model import write_records

pytestmark = pytest.mark.long

RECORDS = 10
BASE_MODEL = GlobalAdapter(None)


class KillSwitch:
    """On where the silo is `stopped`, so that no process may start; and where the trainer asks for
    it, the first ranks are killed, as many as `kills` says."""

    def __init__(self, kills: int = 0, *, stopped: bool = False) -> None:
        self.kills, self.stopped, self.killed = kills, stopped, list[int]()

    def is_on(self) -> bool:
        ranks = job_processes(psutil.Process())[1:]
        due = [each for each in ranks if each.pid not in self.killed]
        if due and len(self.killed) < self.kills:
            due[0].kill()
            self.killed.append(due[0].pid)
        return self.stopped


class TinyEvaluation:
    """One silo with held-out records, an adapter, and the same one with a residual."""

    def __init__(self, home: Path, records: int = RECORDS, restarts: int = 1) -> None:
        self.home, self.sample = home, tiny_federation(home)
        self.plan = self.sample.plan.record
        jobs = jobs_of(self.plan.cohort[0], self.plan, home)
        changes = {
            "training": TrainingSection(ranks=1),
            "agent": AgentSection(max_restarts=restarts),
        }
        self.jobs = replace(jobs, config=jobs.config.model_copy(update=changes))
        self.heldout = write_records(home / "heldout.jsonl", records)
        path = drawn_adapter(home / "adapter.safetensors", self.plan.layout)
        assert self.plan.residual_layout is not None
        residual = drawn_adapter(home / "residual.safetensors", self.plan.residual_layout)
        self.plain, self.with_residual = GlobalAdapter(path), GlobalAdapter(path, residual)
        self.report = StatusReporter(None, SystemClock(), self.jobs.config, self.sample.plan)
        self.verdict = self.sample.verdict(self.plan.cohort[0]).record
        splits, self.switch = Splits(self.heldout, self.heldout), KillSwitch()
        self.trainer = DeepSpeedTrainer(
            self.jobs.config, lambda _: splits, SystemClock(), lambda: self.switch.is_on()
        )

    def evaluate(
        self, starting: GlobalAdapter, candidate: GlobalAdapter, switch: KillSwitch | None = None
    ) -> HeldoutLosses:
        """As the agent does."""
        adapters = EvaluatedAdapters(starting=starting, candidate=candidate)
        self.switch = switch or KillSwitch()
        return self.trainer.evaluate(self.plan, self.verdict, adapters, self.report)

    def measure(
        self, adapters: Sequence[GlobalAdapter], switch: KillSwitch | None = None
    ) -> tuple[Loss, ...]:
        """As the agent does for coalitions."""
        self.switch = switch or KillSwitch()
        return self.trainer.measure(self.plan, self.verdict, adapters, self.report)

    def close(self) -> None:
        """As the agent does when it ends."""
        self.trainer.close()

    def measured_names(self) -> list[str]:
        """Adapters of the newest evaluation."""
        job = self.jobs.evaluation((BASE,), self.heldout).output_dir / "job.json"
        adapters = EvaluationJob.model_validate_json(job.read_bytes()).adapters
        return [adapter.name for adapter in adapters]

    def afresh(self, *adapters: GlobalAdapter) -> list[RecordSums]:
        """Sums of records, measured without the book."""
        named = tuple(measured(f"number-{n}", adapter) for n, adapter in enumerate(adapters))
        job = self.jobs.evaluation(named, self.heldout, per_record=True)
        result = evaluate(job, ProgressWriter(None))
        return [result.loss(each.name, HELDOUT).records for each in named]


@dataclass(frozen=True)
class FirstRound:
    """Losses of its candidate, the adapters that were measured for them, and what was killed."""

    losses: HeldoutLosses
    measured_names: list[str]
    killed: list[int]


@pytest.fixture(scope="module")
def silo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyEvaluation]:
    with closing(TinyEvaluation(tmp_path_factory.mktemp("silo"))) as silo:
        yield silo


@pytest.fixture(scope="module")
def coalitions(silo: TinyEvaluation) -> tuple[Loss, ...]:
    """With a residual, without one, and the base model; no records are asked for."""
    return silo.measure([silo.with_residual, silo.plain, BASE_MODEL])


@pytest.fixture(scope="module")
def first(silo: TinyEvaluation, coalitions: tuple[Loss, ...]) -> FirstRound:
    """Begun with means alone in the book, of which one is nonsense."""
    silo.jobs.book(silo.heldout).put(BASE, Loss(nats=9.0, tokens=3))
    switch = KillSwitch(kills=1)
    losses = silo.evaluate(BASE_MODEL, silo.plain, switch)
    return FirstRound(losses, silo.measured_names(), switch.killed)


def test_losses_of_coalitions_are_those_of_the_evaluation_and_are_measured_once(
    silo: TinyEvaluation, coalitions: tuple[Loss, ...], tmp_path: Path
) -> None:
    job = EvaluationJob(
        model_dir=silo.home / "model",
        layout=silo.plan.layout,
        residual_layout=silo.plan.residual_layout,
        adapters=coalition_adapters([silo.with_residual, silo.plain, BASE_MODEL]),
        heldout=(HeldoutSet(name=HELDOUT, records=silo.heldout),),
        sequence_length=96,
        heldout_sequences=8,
        output_dir=tmp_path / "elsewhere",
    )
    expected = evaluate(job, ProgressWriter(None))
    losses = [expected.loss(f"coalition-{place}", HELDOUT) for place in range(3)]
    found = [loss.nats for loss in coalitions]
    assert found == pytest.approx([loss.nats for loss in losses], abs=1e-6)
    assert len({round(loss, 6) for loss in found}) == 3
    assert {loss.tokens for loss in losses} == {loss.tokens for loss in coalitions}
    adapters = [BASE_MODEL, silo.plain, silo.with_residual]
    backwards = silo.measure(adapters, KillSwitch(stopped=True))
    known = [loss.without_records() for loss in backwards]
    assert known == list(coalitions[::-1]), "from the loss book, without a process"


def test_a_first_round_s_start_is_the_base_model_and_measured_once(
    silo: TinyEvaluation, first: FirstRound
) -> None:
    found = first.losses
    assert first.measured_names == ["base", "candidate"]
    base, candidate = silo.afresh(BASE_MODEL, silo.plain)
    assert found.base == found.starting == pytest.approx(mean_loss(base), rel=1e-9)
    assert found.candidate == pytest.approx(mean_loss(candidate), rel=1e-9)
    assert (found.records, len(base)) == (RECORDS, RECORDS)
    assert found.change_error == found.base_change_error
    assert found.change_error == pytest.approx(change_error(candidate, base), rel=1e-6)
    assert found.change_error != 0
    again = silo.evaluate(BASE_MODEL, silo.plain, KillSwitch(stopped=True))
    assert again == found, "from the book alone"


def test_a_mean_whose_records_are_not_known_is_measured_again(first: FirstRound) -> None:
    assert first.measured_names == ["base", "candidate"]
    assert first.losses.base != 9.0


def test_an_evaluation_that_is_killed_once_is_done_again(first: FirstRound) -> None:
    assert len(first.killed) == 1
    assert first.losses.tokens > 0
    assert first.losses.candidate != first.losses.base


def test_the_next_round_measures_its_candidate_alone(
    silo: TinyEvaluation, first: FirstRound
) -> None:
    found = silo.evaluate(silo.plain, silo.with_residual)
    assert silo.measured_names() == ["candidate"]
    base, starting, candidate = silo.afresh(BASE_MODEL, silo.plain, silo.with_residual)
    assert found.starting == pytest.approx(mean_loss(starting), rel=1e-9)
    assert found.change_error == pytest.approx(change_error(candidate, starting), rel=1e-6)
    assert found.base_change_error == pytest.approx(change_error(candidate, base), rel=1e-6)
    assert found.change_error != found.base_change_error


def test_sums_of_records_in_another_order_are_measured_again(
    silo: TinyEvaluation, first: FirstRound
) -> None:
    """They agree with their loss, and only what is measured now shows that they are not paired."""
    path = silo.home / SUMS_NAME
    kept = json.loads(path.read_text())
    kept["tokens"].reverse()
    kept["nats"] = {key: nats[::-1] for key, nats in kept["nats"].items() if key.endswith(":base")}
    path.write_text(json.dumps(kept))
    # Of another job than the first: no result of an earlier process is at hand.
    (silo.jobs.evaluation((BASE,), silo.heldout).output_dir / "result.json").unlink()
    assert silo.evaluate(BASE_MODEL, silo.plain) == first.losses
    assert silo.measured_names() == ["base"], "after the candidate"


def test_one_record_has_a_loss_and_no_error(tmp_path: Path) -> None:
    silo = TinyEvaluation(tmp_path, records=1)
    adapters, book = (BASE_MODEL, silo.plain), silo.jobs.book(silo.heldout)
    for adapter, records in zip(adapters, silo.afresh(*adapters), strict=True):
        book.put(measured("known", adapter), Loss.of(records))
    losses = silo.evaluate(BASE_MODEL, silo.plain, KillSwitch(stopped=True))
    assert (losses.records, losses.change_error, losses.base_change_error) == (1, None, None)
    assert losses.candidate != losses.base


def test_an_evaluation_that_is_killed_every_time_is_a_death(
    silo: TinyEvaluation, tmp_path: Path
) -> None:
    silo.close()
    assert job_processes(psutil.Process()) == []
    silo, switch = TinyEvaluation(tmp_path, restarts=0), KillSwitch(kills=9)
    with pytest.raises(ProcessDiedError, match=r"rank 0: .*SIGKILL"):
        silo.evaluate(BASE_MODEL, silo.plain, switch)
    assert len(switch.killed) == 1
    assert job_processes(psutil.Process()) == []


def test_the_job_measures_each_coalition_in_the_run_s_layout(silo: TinyEvaluation) -> None:
    residual, plain = silo.with_residual, silo.plain
    job = silo.jobs.evaluation(coalition_adapters([residual, plain, BASE_MODEL]), silo.heldout)
    assert job.adapters == (
        EvaluatedAdapter(name="coalition-0", path=residual.path, residual=residual.residual),
        EvaluatedAdapter(name="coalition-1", path=plain.path),
        EvaluatedAdapter(name="coalition-2", path=None),
    )
    assert (job.layout, job.residual_layout) == (silo.plan.layout, silo.plan.residual_layout)
    assert job.heldout == (HeldoutSet(name=HELDOUT, records=silo.heldout),)
    assert job.model_dir == silo.home / "model"
    assert job.sequence_length == silo.plan.recipe.sequence_length
    assert job.heldout_sequences == silo.jobs.config.training.heldout_sequences
