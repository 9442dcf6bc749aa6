"""From a silo's settings for precision and base weights to its jobs, and to what it is told."""

from pathlib import Path
from typing import Any

import pytest

from data_contracts.errors import SiloOperatorError
from silo_agent.collaborators import GlobalAdapter
from silo_agent.config import TrainingSection
from silo_agent.gate.splits import Splits
from silo_agent.readiness.checklist import Item
from silo_agent.readiness.facts import look
from silo_agent.readiness.precision import precision
from silo_agent.training.engine_spec import PINNED
from silo_agent.training.jobs import LocalJobs, measured
from silo_agent.training.precision import (
    PRECISION_NAME,
    Machine,
    Outcome,
    Seconds,
    lacks_bfloat16,
)
from silo_agent.training.quantisation import is_installed
from silo_agent.watching.agent_view import said_lines, view_agent
from tests.aggregator.federation_samples import START
from tests.silo_agent.test_silo_layout import drawn_adapter
from tests.silo_agent.test_steps_of_a_silo import PLAN, StoppedSilo, silo
from tests.silo_agent.training.test_memory_plan import config_with

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


@pytest.mark.parametrize("settings", [{"zero_stage": 1}, {"zero_stage": "auto"}, {}])
def test_quantised_weights_are_trained_at_stage_1_or_2_where_the_package_is(
    silo: StoppedSilo, settings: dict[str, Any]
) -> None:
    local, splits, start = jobs(silo, base_weights="8-bit", **settings)
    if not is_installed():
        with pytest.raises(SiloOperatorError, match=r"pip install 'consortia\[quantised\]'"):
            local.training(start, splits)
        return
    job = local.training(start, splits)
    assert (job.base_weights, job.zero_stage in (1, 2), job.measures) == ("8-bit", True, False)


def item(home: Path, **training: Any) -> Item:
    config = config_with(TrainingSection(**training), home)
    return precision(look(config, START, storage=False))


def test_check_says_how_a_model_is_held_and_what_is_slow_or_missing(tmp_path: Path) -> None:
    found = item(tmp_path, precision="float32")
    assert (found.name, found.state) == ("precision", "there")
    assert found.detail == "float32 (precision in silo-agent.toml says so)"
    half = item(tmp_path, precision="bfloat16")
    assert half.state == ("warning" if lacks_bfloat16() else "there")
    assert item(tmp_path, precision="bfloat16", device="cuda").state == "there"
    small = item(tmp_path, base_weights="4-bit", precision="float32")
    assert small.state == ("there" if is_installed() else "wrong")
    if not is_installed():
        assert "consortia[quantised]" in small.next_step


def test_status_shows_what_was_measured_and_nothing_where_nothing_was(tmp_path: Path) -> None:
    assert [line for line in said_lines(view_agent(tmp_path)) if line.startswith("speed")] == []
    machine = Machine(device="cpu", processor="a processor", torch="2.0", threads=1)
    outcome = Outcome(machine=machine, seconds=Seconds(float32=1.0, bfloat16=0.4))
    (tmp_path / PRECISION_NAME).write_text(outcome.model_dump_json())
    assert (
        "speed   measured here: bfloat16 has 2.50 times the speed of float32 (a processor)"
        in said_lines(view_agent(tmp_path))
    )


def test_another_setting_begins_a_training_anew(silo: StoppedSilo) -> None:
    prints = {silo.job(PLAN, **each).fingerprint() for each in ({}, OTHERWISE)}
    assert len(prints) == 2
    assert Path(silo.home / "work").exists()
