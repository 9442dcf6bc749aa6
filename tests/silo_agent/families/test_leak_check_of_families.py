"""The leak check of every family, on tiny models: it gives figures with counts, whatever there is
beside a model that only the engine's own family has loaded."""

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import pytest

from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.model_family import FamilyTask, ModelFamily
from infra.base_model.linear_modules import linear_modules
from silo_agent.leaks.figures import LeakFigures
from silo_agent.training.job import TrainingJob
from silo_agent.training.leak_part import LeakPart
from silo_agent.training.processes.launch import run_training
from silo_agent.training.processes.resident_ranks import ResidentRanks
from tests.silo_agent.training.shared_ranks import KEEP_SECONDS
from tests.silo_agent.training.tiny_jobs import tiny_recipe
from tests.tiny_encoders import (
    CLASSES,
    make_tiny_bert,
    make_tiny_clip,
    write_classified,
    write_pictures,
    write_texts,
)
from tests.tiny_model import make_tiny_model, write_records
from tests.tiny_pipelines import PLACES, make_tiny_pipeline, write_captioned

pytestmark = pytest.mark.stack

FAMILIES: tuple[ModelFamily, ...] = tuple(sorted(get_args(ModelFamily)))
TRAINED, HELD_OUT = 12, 8
CHECK = LeakPart(share_of_training=1000.0)
"""With time for all records, however slow the machine is."""

Maker = Callable[[Path], Path]
Writer = Callable[[Path, int, int], Path]


def _captioned(path: Path, count: int, seed: int) -> Path:
    return write_captioned(path, count, first=100 * seed)


PARTS: dict[ModelFamily, tuple[Maker, Writer, dict[str, Any]]] = {
    "causal-lm": (make_tiny_model, write_records, {}),
    "masked-lm": (make_tiny_bert, write_texts, {}),
    "sequence-classification": (make_tiny_bert, write_classified, {"classes": CLASSES}),
    "dual-encoder": (make_tiny_clip, write_pictures, {}),
    "denoising": (make_tiny_pipeline, _captioned, {}),
}


def job_of(root: Path, family: ModelFamily) -> TrainingJob:
    """Few steps on few records, and a check of all of them."""
    make, write, named = PARTS[family]
    root.mkdir()
    task, model = FamilyTask(family=family, **named), make(root / "model")
    found = linear_modules(model, task)
    length = PLACES if family == "denoising" else 96 if family == "causal-lm" else 32
    changes = {"sequence_length": length, "learning_rate": Decimal("0.01")}
    return TrainingJob(
        model_dir=model,
        layout=AdapterLayout(rank=4, alpha=8, seed=3, targets=found.modules + found.head),
        recipe=tiny_recipe(local_steps=6).model_copy(update=changes),
        round=1,
        task=task,
        train_records=write(root / "train.jsonl", TRAINED, 0),
        heldout_records=write(root / "held-out.jsonl", HELD_OUT, 1),
        output_dir=root / "work",
        measure_starting=False,
        measure_local=False,
        leak_check=CHECK,
    )


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, LeakFigures | None]]:
    root = tmp_path_factory.mktemp("leaks of families")
    ranks = ResidentRanks(root, KEEP_SECONDS)
    try:
        jobs = {family: job_of(root / family, family) for family in FAMILIES}
        yield {family: run_training(job, ranks=ranks).leaks for family, job in jobs.items()}
    finally:
        ranks.end()


def test_every_family_has_a_part_here() -> None:
    assert set(PARTS) == set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_check_of_any_family_says_how_well_trained_records_are_told_from_others(
    family: str, figures: dict[str, LeakFigures | None]
) -> None:
    leaks = figures[family]
    assert leaks is not None
    assert not leaks.is_cut
    assert (leaks.heldout, leaks.heldout_in_all) == (HELD_OUT, HELD_OUT)
    assert 2 <= leaks.trained == leaks.trained_in_all <= TRAINED
    assert leaks.membership is not None
    assert 0 <= leaks.membership.low < leaks.membership.high <= 1


@pytest.mark.parametrize("family", FAMILIES)
def test_only_a_family_that_continues_text_has_a_figure_of_answers_that_come_back(
    family: str, figures: dict[str, LeakFigures | None]
) -> None:
    leaks = figures[family]
    assert leaks is not None
    assert (leaks.verbatim is not None) == (family == "causal-lm")
