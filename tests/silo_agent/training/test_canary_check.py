"""Exposure in real ranks: of a model that was trained on planted canaries again and again, and of
one that saw each once."""

from collections.abc import Iterator
from decimal import Decimal

import pytest

from data_contracts.dataset.contract.canaries import Canaries
from data_contracts.dataset.findings.keyed import Keyed
from data_contracts.dataset.forms import FORMS
from silo_agent.leaks.canaries import CANDIDATES, planted_lines, reference_lines
from silo_agent.leaks.rules import is_too_few, objection
from silo_agent.policy.leak_check import LeakCheck
from silo_agent.training.job import TrainingJob
from silo_agent.training.leak_part import CanaryPart, LeakPart
from silo_agent.training.processes.launch import run_training
from silo_agent.training.processes.resident_ranks import ResidentRanks
from silo_agent.training.results import TrainingResult
from tests.silo_agent.training.shared_ranks import KEEP_SECONDS
from tests.silo_agent.training.tiny_jobs import TinySilo, make_tiny_silo, tiny_recipe
from tests.tiny_model import tiny_adapter_layout, write_records

pytestmark = pytest.mark.stack

RECORDS, HELD_OUT, NUMBER = 20, 30, 4
LIMITS = LeakCheck(too_few="allow", max_auc=1.0, max_verbatim=1.0)
"""Only exposure keeps an adapter in."""


def canary_job(silo: TinySilo, name: str, copies: int, steps: int, rate: str) -> TrainingJob:
    """A training on records with planted canaries, with time to measure all of them."""
    directory = silo.root / f"records-{name}"
    directory.mkdir()
    terms, keyed = Canaries.model_validate_json(f'{{"number": {NUMBER}, "copies": {copies}}}'), KEY
    form, train = FORMS["instruction"], write_records(directory / "train.jsonl", RECORDS)
    with train.open("a") as file:
        file.writelines(planted_lines(terms, form, keyed))
    reference = directory / "canaries.jsonl"
    reference.write_text("".join(reference_lines(terms, form, keyed)))
    recipe = tiny_recipe(steps).model_copy(
        update={"learning_rate": Decimal(rate), "max_gradient_norm": Decimal("5")}
    )
    part = CanaryPart(records=reference, planted=NUMBER, copies=copies)
    return silo.job(
        name,
        train_records=train,
        heldout_records=write_records(directory / "held-out.jsonl", HELD_OUT, seed=1000),
        layout=tiny_adapter_layout(rank=16),
        recipe=recipe,
        measure_starting=False,
        measure_local=False,
        leak_check=LeakPart(share_of_training=200.0, canaries=part),
    )


KEY = Keyed(b"k" * 32)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, TrainingResult]]:
    silo = make_tiny_silo(tmp_path_factory.mktemp("canaries"))
    jobs = {
        "again and again": canary_job(silo, "again", copies=8, steps=120, rate="0.02"),
        "seen once": canary_job(silo, "once", copies=1, steps=6, rate="0.0005"),
    }
    in_a_moment = jobs["seen once"].leak_check
    assert in_a_moment is not None
    jobs["no time"] = jobs["seen once"].model_copy(
        update={
            "output_dir": silo.root / "no-time",
            "leak_check": in_a_moment.model_copy(update={"share_of_training": 1e-6}),
        }
    )
    ranks = ResidentRanks(silo.root, KEEP_SECONDS)
    yield {name: run_training(job, ranks=ranks) for name, job in jobs.items()}
    ranks.end()


def test_canaries_that_a_model_has_learned_by_heart_keep_its_adapter_in(
    results: dict[str, TrainingResult],
) -> None:
    leaks = results["again and again"].leaks
    assert leaks is not None and leaks.exposure is not None
    exposure = leaks.exposure
    assert (exposure.planted, exposure.of_planted) == (NUMBER, NUMBER)
    assert exposure.candidates == CANDIDATES
    assert exposure.mean > 8, "of ten bits that so many candidates can show"
    refusal = objection(leaks, LIMITS)
    assert refusal is not None
    assert refusal.rule == "release.exposure"


def test_canaries_that_were_seen_once_are_any_of_the_candidates(
    results: dict[str, TrainingResult],
) -> None:
    leaks = results["seen once"].leaks
    assert leaks is not None and leaks.exposure is not None
    assert 0 < leaks.exposure.of_planted <= NUMBER
    assert leaks.exposure.planted == leaks.exposure.of_planted
    assert leaks.exposure.mean < 5
    assert objection(leaks, LIMITS) is None


@pytest.mark.parametrize("name", ["again and again", "seen once"])
def test_canaries_are_none_of_the_records_that_are_told_from_held_out_ones(
    name: str, results: dict[str, TrainingResult]
) -> None:
    leaks = results[name].leaks
    assert leaks is not None
    assert 0 < leaks.trained_in_all <= RECORDS
    assert leaks.heldout_in_all == HELD_OUT


def test_without_time_for_them_the_figures_say_too_little(
    results: dict[str, TrainingResult],
) -> None:
    leaks = results["no time"].leaks
    assert leaks is not None and leaks.exposure is not None
    assert (leaks.exposure.planted, leaks.exposure.candidates) == (0, 0)
    assert leaks.exposure.of_planted > 0
    assert is_too_few(leaks, LIMITS)
