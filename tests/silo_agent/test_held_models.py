"""From a silo's settings for precision and base weights to its jobs, and to what it is told."""

from pathlib import Path
from typing import Any

import pytest

from silo_agent.collaborators import GlobalAdapter
from silo_agent.gate.splits import Splits
from silo_agent.training.engine_spec import PINNED
from silo_agent.training.jobs import LocalJobs, measured
from tests.silo_agent.test_silo_layout import drawn_adapter
from tests.silo_agent.test_steps_of_a_silo import PLAN, StoppedSilo, silo

__all__ = ["silo"]

OTHERWISE: dict[str, Any] = {"precision": "bfloat16"}


def jobs(silo: StoppedSilo, **training: Any) -> tuple[LocalJobs, Splits, GlobalAdapter]:
    found = silo.jobs(PLAN, **training)
    splits = Splits(silo.home / "train.jsonl", silo.home / "heldout.jsonl")
    return found, splits, GlobalAdapter(drawn_adapter(silo.home / "g.safetensors", PLAN.layout))


@pytest.mark.parametrize("settings", [{}, {"precision": "float32"}])
def test_a_silo_that_holds_the_pinned_model_measures_while_it_trains(
    silo: StoppedSilo, settings: dict[str, Any]
) -> None:
    local, splits, start = jobs(silo, **settings)
    job = local.training(start, splits)
    assert (job.precision, job.base_weights) == ("float32", "full")
    assert job.measure_base and job.measure_starting and job.measures
    engine = local.evaluation((measured("candidate", start),), splits.heldout).engine
    assert engine is not None and engine.measures_as(job.engine), "one engine does both"


def test_a_silo_that_holds_another_measures_on_the_pinned_one_alone(silo: StoppedSilo) -> None:
    """Nothing that training saw of losses gets into the book that evaluations are signed from."""
    local, splits, start = jobs(silo, **OTHERWISE)
    job = local.training(start, splits)
    assert (job.precision, job.base_weights) == ("bfloat16", "full")
    assert not (job.measures or job.measure_base or job.measure_starting or job.measure_local)
    evaluation = local.evaluation((measured("candidate", start),), splits.heldout)
    assert evaluation.engine is not None and evaluation.engine.held == PINNED["cpu"]
    plain, _, _ = jobs(silo)
    same = plain.evaluation((measured("candidate", start),), splits.heldout)
    assert evaluation.fingerprint() == same.fingerprint(), "the very losses of another silo"


def test_another_setting_begins_a_training_anew(silo: StoppedSilo) -> None:
    prints = {silo.job(PLAN, **each).fingerprint() for each in ({}, OTHERWISE)}
    assert len(prints) == 2
    assert Path(silo.home / "work").exists()
