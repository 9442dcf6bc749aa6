"""Whole rounds of the family denoising, to the folder that diffusers loads.

Gates, ranks, merge, evaluation and publication are real, the pipeline is a random one; storage and
the coordinator are in memory.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aggregator.federated_round import finish_latest_report
from aggregator.settings.federation import TaskSection
from tests.silo_agent.families.family_rounds import (
    RECIPE,
    SILOS,
    founded,
    loaded_as_the_card_says,
    report_of,
)
from tests.silo_agent.families.tiny_denoising import OwnParts, PictureSilo, heldout_of
from tests.silo_agent.test_pictures_in_gate import PAIRS
from tests.simulator.federation import SimulatedFederation
from tests.tiny_pipelines import PLACES, SIDE, coloured_picture, make_tiny_pipeline

pytestmark = pytest.mark.long

PICTURES = 40


def rows(first: int) -> list[dict[str, Any]]:
    """The metadata of one silo's pictures."""
    return [
        {"file_name": f"{n}.png", "TEXT": coloured_picture(n)[1], "LICENSE": "MIT"}
        for n in range(first, first + PICTURES)
    ]


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[SimulatedFederation]:
    """Three silos with pictures of their own, founded."""
    model = make_tiny_pipeline(tmp_path / "pipeline")
    sets = {name: rows(100 * n) for n, name in enumerate(SILOS)}
    recipe = {**RECIPE, "sequence_length": PLACES, "sequences_per_step": 8}
    task = TaskSection(family="denoising")
    with founded(tmp_path, model, task, recipe, PAIRS, sets, "metadata.jsonl") as made:
        for first, name in zip((0, 100, 200), SILOS, strict=True):
            folder = made.silos[name].home / "data" / "sets"
            for number in range(first, first + PICTURES):
                (folder / f"{number}.png").write_bytes(coloured_picture(number)[0])
        yield made


def test_denoising_goes_through_rounds_to_a_folder_that_diffusers_loads(
    federation: SimulatedFederation,
) -> None:
    plans = [federation.open()]
    reports = [report_of(federation, plans[-1])]
    plans.append(federation.open())
    reports.append(report_of(federation, plans[-1]))
    for report in reports:
        told = [(silo.silo, silo.outcome, silo.rule) for silo in report.silos]
        assert report.outcome == "published", (report.rule, told)
        for summary in report.silos:
            losses = summary.losses
            assert summary.outcome == "admitted" and losses is not None
            assert losses.candidate < losses.starting and losses.right is None
    finish_latest_report(federation.coordinator())
    layout = plans[-1].record.layout
    home = federation.silos["silo-a"].home
    heldout = home / "work" / "splits" / "heldout.jsonl"
    silo = PictureSilo(home, federation.model_dir, heldout, heldout, layout)
    own = OwnParts(silo)
    own.put(silo, federation.coordinator().published / "adapter_model.safetensors")
    signed = next(each.losses for each in reports[-1].silos if each.silo == "silo-a")
    assert signed is not None
    measured = own.errors(heldout_of(silo)).mean().item()
    assert measured == pytest.approx(float(signed.candidate), abs=1e-5)
    loaded = loaded_as_the_card_says(federation, text="a picture of the red square")
    assert loaded["picture"].size == (SIDE, SIDE)
    assert loaded["pipe"].get_active_adapters() == ["default_0"]
