"""The leak check of real ranks: an adapter that has learned its records by heart, and one that has
seen each of many once."""

import json
import random
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from silo_agent.leaks.rules import is_too_few, objection
from silo_agent.policy.leak_check import SHARE_OF_TRAINING, LeakCheck
from silo_agent.training.job import TrainingJob
from silo_agent.training.leak_part import LeakPart
from silo_agent.training.processes.launch import run_training
from silo_agent.training.processes.resident_ranks import ResidentRanks
from silo_agent.training.results import TrainingResult
from tests.silo_agent.training.shared_ranks import KEEP_SECONDS
from tests.silo_agent.training.tiny_jobs import TinySilo, make_tiny_silo, tiny_recipe
from tests.tiny_model import tiny_adapter_layout

pytestmark = pytest.mark.stack

FEW, MANY, HELD_OUT = 6, 400, 60
NOISE = 1.25
"""Of the clock of a machine that does other things beside."""
LIMITS = LeakCheck(too_few="allow")


def secrets(path: Path, count: int, seed: int) -> Path:
    """Records whose answers nobody could guess."""
    rng = random.Random(seed)
    lines = [
        json.dumps(
            {
                "prompt": f"Case {rng.randrange(10**6)}?",
                "answer": "".join(rng.choice("abcdefghij") for _ in range(12)),
            }
        )
        for _ in range(count)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def jobs(silo: TinySilo) -> dict[str, TrainingJob]:
    """Trained on few records again and again, in both ranks; on many, each once, in one pass."""
    root, check = silo.root, LeakPart(share_of_training=SHARE_OF_TRAINING)
    hard = {"learning_rate": Decimal("0.02"), "max_gradient_norm": Decimal("5")}
    recipe = tiny_recipe(120).model_copy(update=hard | {"weight_decay": Decimal("0")})
    options = {
        "heldout_records": secrets(root / "held-out-secrets.jsonl", HELD_OUT, 2),
        "layout": tiny_adapter_layout(rank=16),
        "measure_starting": False,
        "measure_local": False,
        "leak_check": check,
    }
    few = secrets(root / "few-secrets.jsonl", FEW, 1)
    many = secrets(root / "many-secrets.jsonl", MANY, 3)
    gentle = tiny_recipe(16).model_copy(update={"learning_rate": Decimal("0.002")})
    of_cores = recipe.model_copy(update={"trained_factors": "core"})
    return {
        # Of a core too the start is what it began as, so that the two losses differ.
        "cores": silo.job("cores", train_records=few, recipe=of_cores, **options).model_copy(
            update={"leak_check": LeakPart(share_of_training=2.0)}
        ),
        # With time for all, however slow the machine is.
        "by heart": silo.job("by-heart", train_records=few, recipe=recipe, **options).model_copy(
            update={"leak_check": LeakPart(share_of_training=2.0)}
        ),
        "seen once": silo.job("seen-once", train_records=many, recipe=gentle, **options),
        "not asked": silo.job("not-asked", train_records=many, recipe=gentle, **options).model_copy(
            update={"leak_check": None}
        ),
    }


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, TrainingResult]]:
    silo = make_tiny_silo(tmp_path_factory.mktemp("leaking-silo"))
    ranks = ResidentRanks(silo.root, KEEP_SECONDS)
    yield {name: run_training(job, ranks=ranks) for name, job in jobs(silo).items()}
    ranks.end()


def test_an_adapter_that_has_learned_its_records_by_heart_is_kept_in_by_both_rules(
    results: dict[str, TrainingResult],
) -> None:
    leaks = results["by heart"].leaks
    assert leaks is not None
    assert (leaks.trained, leaks.heldout, leaks.is_cut) == (FEW, HELD_OUT, False)
    membership = objection(leaks, LIMITS)
    assert membership is not None
    assert membership.rule == "release.membership"
    verbatim = objection(leaks, LIMITS.model_copy(update={"max_auc": 1.0}))
    assert verbatim is not None
    assert verbatim.rule == "release.verbatim"
    assert leaks.verbatim is not None
    assert leaks.verbatim.heldout == 0


def test_an_adapter_that_has_seen_many_records_once_may_leave(
    results: dict[str, TrainingResult],
) -> None:
    leaks = results["seen once"].leaks
    assert leaks is not None
    assert leaks.verbatim is not None
    assert leaks.verbatim.trained == 0
    assert FEW < leaks.trained_in_all < MANY, "what was trained on, not what there is"
    assert leaks.heldout_in_all == HELD_OUT
    assert objection(leaks, LIMITS) is None


def test_a_check_takes_a_fifth_of_the_training_at_most_and_says_when_that_cuts_it(
    results: dict[str, TrainingResult],
) -> None:
    cut = results["seen once"].leaks
    assert cut is not None
    assert cut.seconds <= NOISE * SHARE_OF_TRAINING * results["seen once"].seconds
    assert cut.is_cut
    assert is_too_few(cut, LeakCheck())
    refusal = objection(cut, LeakCheck())
    assert refusal is not None
    assert refusal.rule == "release.too_few", "unless the policy allows it"


def test_what_is_trained_is_the_same_without_a_check(results: dict[str, TrainingResult]) -> None:
    asked, not_asked = results["seen once"], results["not asked"]
    assert not_asked.leaks is None
    assert asked.adapter.read_bytes() == not_asked.adapter.read_bytes()
    assert asked.local == not_asked.local


def test_a_core_is_held_against_the_core_that_it_began_as(
    results: dict[str, TrainingResult],
) -> None:
    leaks = results["cores"].leaks
    assert leaks is not None and leaks.membership is not None
    assert leaks.membership.auc > 0.6, leaks
