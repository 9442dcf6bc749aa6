"""Whole rounds of dual encoders over pictures with captions, to the folder that a user loads.

Gates, ranks, merge, evaluation and publication are real, the model is a random CLIP; storage and
the coordinator are in memory.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from aggregator.federated_round import finish_latest_report
from aggregator.settings.federation import TaskSection
from tests.silo_agent.families.family_rounds import (
    RECIPE,
    SILOS,
    founded,
    loaded_as_the_card_says,
    report_of,
)
from tests.silo_agent.test_pictures_in_gate import PAIRS
from tests.simulator.federation import SimulatedFederation
from tests.tiny_encoders import COLOURS, SIDE, make_tiny_clip

pytestmark = pytest.mark.long

PICTURES, LENGTH = 130, 24


def caption_of(number: int) -> str:
    """Its colour in words, and what makes it a caption of its own."""
    return f"{list(COLOURS)[number % len(COLOURS)]} {number}"


def write_pictures(folder: Path, first: int) -> None:
    """Pictures of one colour with noise, wider than high."""
    for number in range(first, first + PICTURES):
        rng = np.random.default_rng(number)
        colour = list(COLOURS.values())[number % len(COLOURS)]
        noise = rng.integers(-40, 40, size=(SIDE, SIDE + 16, 3))
        pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def rows(first: int) -> list[dict[str, Any]]:
    """The metadata of one silo's pictures."""
    numbers = range(first, first + PICTURES)
    return [{"file_name": f"{n}.png", "TEXT": caption_of(n), "LICENSE": "MIT"} for n in numbers]


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[SimulatedFederation]:
    """Three silos with pictures of their own, founded."""
    model = make_tiny_clip(tmp_path / "clip")
    sets = {name: rows(200 * n) for n, name in enumerate(SILOS)}
    recipe = {**RECIPE, "sequence_length": LENGTH, "sequences_per_step": 8}
    task = TaskSection(family="dual-encoder")
    with founded(tmp_path, model, task, recipe, PAIRS, sets, "metadata.jsonl") as made:
        for n, name in enumerate(SILOS):
            write_pictures(made.silos[name].home / "data" / "sets", 200 * n)
        yield made


def test_dual_encoders_go_through_rounds_to_a_folder_that_transformers_loads(
    federation: SimulatedFederation,
) -> None:
    report = report_of(federation, federation.open())
    assert report.outcome == "published", report.rule
    for summary in report.silos:
        losses = summary.losses
        assert summary.outcome == "admitted" and losses is not None
        assert losses.candidate < losses.starting and losses.right is not None
    finish_latest_report(federation.coordinator())
    heldout = federation.silos["silo-a"].home / "work" / "splits" / "heldout.jsonl"
    records = [json.loads(line) for line in heldout.read_text().splitlines()]
    pictures = [Image.open(record["image"]) for record in records]
    captions = [record["answer"] for record in records]
    loaded = loaded_as_the_card_says(federation, captions=captions, pictures=pictures)
    signed = next(silo.losses for silo in report.silos if silo.silo == "silo-a")
    assert signed is not None and signed.right is not None
    assert len(records) < 64, "one block holds them all"
    logits = loaded["model"](**loaded["inputs"]).logits_per_image.detach().double().numpy()
    nats = (_nats(logits) + _nats(logits.T)) / 2
    assert nats == pytest.approx(float(signed.candidate), abs=1e-4)
    right = float((loaded["nearest"].numpy() == np.arange(len(records))).mean())
    assert right == pytest.approx(float(signed.right.candidate), abs=1e-6)


def _nats(logits: np.ndarray) -> float:
    """Mean cross entropy of the diagonal."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    found = np.log(np.exp(shifted).sum(axis=1)) - np.diag(shifted)
    return float(found.mean())
