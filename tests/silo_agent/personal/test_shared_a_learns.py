"""Silos with opposite labels that share A and keep B: each answers its own questions, where one
adapter for both cannot. Real ranks; what is shared, kept and merged is the product's own."""

from pathlib import Path

import pytest

from aggregator.merge.adapter_merge import merge_adapters
from data_contracts.adapters.adapter_format import check_adapter, open_adapter
from data_contracts.adapters.starting_adapter import AdapterSource, InitialAdapter
from data_contracts.protocol.records import RoundPlan
from silo_agent.collaborators import GlobalAdapter
from silo_agent.personal.export import export_own
from silo_agent.personal.own_factors import (
    begun_with,
    measured_with,
    newest_own,
    released,
    tell_begun,
)
from silo_agent.training.job import TrainingJob
from silo_agent.training.processes.resident_ranks import ResidentRanks
from tests.aggregator.adapter_samples import inputs_of
from tests.data_contracts.record_samples import ADAPTER, PLAN
from tests.silo_agent.personal.opposite_clusters import OppositeClusters, recipe
from tests.silo_agent.personal.test_export import loaded
from tests.silo_agent.training.shared_ranks import KEEP_SECONDS, finished, train_in_shared_ranks
from tests.tiny_model import tiny_adapter_layout

pytestmark = pytest.mark.long

ROUNDS, STEPS = 3, 40


def plan_of(number: int) -> RoundPlan:
    fields = PLAN.model_dump() | {
        "round": number,
        "layout": tiny_adapter_layout(),
        "starting_adapter": None if number == 1 else ADAPTER,
        "recipe": recipe(STEPS),
        "merge": {"rule": "shared_a", "weight_cap_tokens": 1_000_000},
    }
    return RoundPlan.model_validate(fields)


class SharedRounds:
    """Rounds of both silos; `jobs` are those of the last, `merged` its A."""

    def __init__(self, clusters: OppositeClusters, root: Path) -> None:
        self.clusters, self.root, self.merged = clusters, root, GlobalAdapter(None)
        self.jobs: list[TrainingJob] = []
        ranks = ResidentRanks(root, KEEP_SECONDS)
        try:
            for number in range(1, ROUNDS + 1):
                self._round(plan_of(number), ranks)
        finally:
            ranks.end()

    def home(self, silo: int) -> Path:
        return self.root / f"home-{silo}"

    def answers(self, silo: int, adapter: Path) -> float:
        """Share of a silo's held-out questions that an adapter answers right."""
        return self.clusters.adapter_accuracy(silo, adapter)

    def _round(self, plan: RoundPlan, ranks: ResidentRanks) -> None:
        self.jobs = [self._job(plan, silo) for silo in range(2)]
        error = train_in_shared_ranks(self.jobs, ranks)
        assert error is None, error
        left = [
            check_adapter(released(self.home(silo), plan, finished(job).adapter), plan.exchanged)
            for silo, job in enumerate(self.jobs)
        ]
        layout = plan.exchanged
        start: AdapterSource = InitialAdapter(layout)
        if self.merged.path is not None:
            start = open_adapter(self.merged.path, layout)
        inputs = inputs_of([(each, 1) for each in left], layout, start, plan.round, rule="shared_a")
        into = self.root / f"merged-{plan.round}"
        merge_adapters(inputs, into)
        self.merged = GlobalAdapter(into)

    def _job(self, plan: RoundPlan, silo: int) -> TrainingJob:
        home, tiny = self.home(silo), self.clusters.clusters[silo].silo
        tell_begun(home, plan, self.merged)
        return self.clusters.federated.model_copy(
            update={
                "round": plan.round,
                "recipe": plan.recipe,
                "train_records": tiny.train_records,
                "heldout_records": tiny.heldout_records,
                "starting_adapter": begun_with(home, plan, self.merged).path,
                "output_dir": home / "work" / plan.run / f"round-{plan.round:04d}",
            }
        )


@pytest.fixture(scope="module")
def rounds(clusters: OppositeClusters, tmp_path_factory: pytest.TempPathFactory) -> SharedRounds:
    return SharedRounds(clusters, tmp_path_factory.mktemp("shared-a"))


def test_each_silo_answers_its_own_questions(rounds: SharedRounds) -> None:
    """With the A of both and its own B; with the other silo's B it answers next to none."""
    plan = plan_of(ROUNDS)
    both = [measured_with(rounds.home(n), plan, rounds.merged).path for n in range(2)]
    assert None not in both
    own = [rounds.answers(n, path) for n, path in enumerate(both) if path]
    other = [rounds.answers(1 - n, path) for n, path in enumerate(both) if path]
    one_for_all = [rounds.clusters.accuracy(n, rounds.clusters.federated) for n in range(2)]
    assert min(own) >= 0.95, own
    assert max(other) <= 0.05, other
    assert sum(one_for_all) / 2 == pytest.approx(0.5, abs=0.1)


def test_a_job_that_was_done_is_found_again(rounds: SharedRounds) -> None:
    """As after a kill: the same plan asks for the same job, and no process starts."""
    plan = plan_of(ROUNDS)
    before = GlobalAdapter(rounds.root / f"merged-{ROUNDS - 1}")
    for silo, job in enumerate(rounds.jobs):
        again = begun_with(rounds.home(silo), plan, before).path
        assert finished(job.model_copy(update={"starting_adapter": again})) == finished(job)


def test_plain_peft_loads_what_is_exported(rounds: SharedRounds, tmp_path: Path) -> None:
    """By the lines of the folder's own README, with the product of A and B as it was measured."""
    import torch

    after = plan_of(ROUNDS).model_copy(update={"round": ROUNDS + 1})
    home = rounds.home(0)
    tell_begun(home, after, rounds.merged)
    found = newest_own(home)
    assert found is not None and found.round == ROUNDS
    export_own(found, tmp_path / "own")
    model = loaded(tmp_path / "own", rounds.clusters.model_dir)["model"]
    module = model.base_model.model.model.layers[1].mlp.down_proj
    target = next(t for t in tiny_adapter_layout().pairs if t.module.endswith("1.mlp.down_proj"))
    a, b = found.source.module(target)
    hidden = torch.ones(1, target.in_features)
    wanted = module.base_layer(hidden) + tiny_adapter_layout().scaling * (
        hidden @ torch.from_numpy(a).T @ torch.from_numpy(b).T
    )
    torch.testing.assert_close(module(hidden), wanted, rtol=1e-4, atol=1e-5)
