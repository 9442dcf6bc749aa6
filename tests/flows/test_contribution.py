"""Contributions of a real round's adapters, measured on public records by the real evaluation."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from aggregator.contribution.plan import LossJournal, contribution_plan
from aggregator.evidence.look import look
from aggregator.evidence.reader import read_attempt
from aggregator.federated_round import close_round
from aggregator.feed.reading import read_federation
from aggregator.merge.adapter_merge import merge_adapters
from aggregator.settings.merge import MergeSection
from aggregator.steps.merging import merge_inputs
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.records import Close
from flows.round.contribution import PublicSet, contributions
from silo_agent.training.job import EvaluatedAdapter, EvaluationJob, HeldoutSet
from silo_agent.training.processes.launch import run_evaluation
from tests.simulator.federation import SimulatedFederation
from tests.simulator.fixtures import tiny_model as tiny_model
from tests.simulator.silo import Behaviour
from tests.tiny_model import SENTENCES

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> SimulatedFederation:
    """Three silos that have submitted."""
    directory = tmp_path_factory.mktemp("federation")
    federation = SimulatedFederation(directory, tiny_model, merge=MergeSection(rule="average"))
    for name in "abc":
        federation.add_silo(f"silo-{name}", Behaviour.HONEST)
    federation.found()
    plan = federation.open(1)
    for _ in range(5):
        federation.silos_act()
    assert isinstance(
        close_round(federation.coordinator(), look(federation.coordinator(), plan)).record, Close
    )
    return federation


@pytest.fixture
def public(tmp_path: Path) -> PublicSet:
    path = tmp_path / "public.jsonl"
    pairs = zip(SENTENCES[::2], SENTENCES[1::2], strict=True)
    lines = [json.dumps({"prompt": prompt, "answer": answer}) for prompt, answer in pairs]
    path.write_text("\n".join(lines * 4) + "\n")
    return PublicSet(path, sequences=8)


def test_shapley_values_share_out_what_the_round_changed(
    federation: SimulatedFederation, public: PublicSet
) -> None:
    measures: list[tuple[int, int]] = []
    c = federation.coordinator()
    found = contributions(c, 1, public, exact=True, on_measured=lambda *done: measures.append(done))
    assert measures[-1] == (8, 8)
    total = sum(value.value for value in found.values)
    assert total == pytest.approx(found.starting_loss - found.merged_loss)
    assert abs(total) > 0.01
    assert all(value.low <= value.value <= value.high for value in found.values)
    written = json.loads((c.reports / "contributions-run-1-round-0001-shapley.json").read_text())
    assert [value["silo"] for value in written["values"]] == ["silo-a", "silo-b", "silo-c"]


def test_leave_one_out_is_the_loss_that_a_merge_without_the_silo_has(
    federation: SimulatedFederation, public: PublicSet, tmp_path: Path
) -> None:
    c = federation.coordinator()
    found = contributions(c, 1, public, exact=False)
    plan = federation.open(1)
    attempt = read_attempt(c, read_federation(c), plan)
    assert attempt.close is not None
    inputs = merge_inputs(c, plan.record, attempt.close.record)
    (left_out,) = (a for a in attempt.close.record.admitted if a.silo == "silo-b")
    others = tuple(a for a in inputs.locals if a.digest != left_out.adapter.digest)
    merge_adapters(inputs, tmp_path / "all")
    merge_adapters(replace(inputs, locals=others), tmp_path / "without")
    job = EvaluationJob(
        model_dir=federation.model_dir,
        layout=plan.record.layout,
        adapters=tuple(
            EvaluatedAdapter(name=name, path=tmp_path / name) for name in ("all", "without")
        ),
        heldout=(HeldoutSet(name="public", records=public.records),),
        sequence_length=plan.record.recipe.sequence_length,
        heldout_sequences=public.sequences,
        output_dir=tmp_path / "evaluation",
    )
    result = run_evaluation(job)
    expected = result.loss("without", "public").nats - result.loss("all", "public").nats
    value = next(value for value in found.values if value.silo == "silo-b")
    assert value.value == pytest.approx(expected, abs=1e-6)


def test_what_was_measured_once_is_not_merged_or_measured_again(
    federation: SimulatedFederation, public: PublicSet
) -> None:
    c = federation.coordinator()
    exact = contributions(c, 1, public, exact=True)
    measures: list[tuple[int, int]] = []
    few = contributions(c, 1, public, exact=False, on_measured=lambda *d: measures.append(d))
    again = contributions(c, 1, public, exact=True, on_measured=lambda *d: measures.append(d))
    assert measures == []
    assert (again, few.merged_loss) == (exact, exact.merged_loss)
    assert not list((c.workspace / "contributions").rglob("adapters"))
    other = contribution_plan(["silo-a"], "shapley", "another set")
    assert LossJournal(c.workspace / "contributions", other).known() == {}


def test_a_round_that_was_not_closed_has_no_contributions(
    federation: SimulatedFederation, public: PublicSet
) -> None:
    with pytest.raises(FederationOperatorError, match="a round that was closed"):
        contributions(federation.coordinator(), 2, public, exact=False)
