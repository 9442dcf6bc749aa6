"""Whole rounds of the family denoising, to the folder that diffusers loads.

Gates, ranks, merge, evaluation and publication are real, the pipeline is a random one; storage and
the coordinator are in memory.
"""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from aggregator.decisions.stage import Stage
from aggregator.federated_round import finish_latest_report
from aggregator.feed.reading import read_federation, read_report
from aggregator.settings.federation import TaskSection
from tests.silo_agent.test_pictures_in_gate import PAIRS
from tests.silo_agent.training_silo import add_training_silo
from tests.simulator.fake_clock import FakeClock
from tests.simulator.federation import SimulatedFederation
from tests.tiny_pipelines import PLACES, coloured_picture, make_tiny_pipeline

pytestmark = pytest.mark.long

RECORDS = 40
SILOS = ("silo-a", "silo-b")


def add_pictures(home: Path, first: int) -> list[dict[str, Any]]:
    """Write the pictures of a silo, and return the rows of the list beside them."""
    folder, rows = home / "data" / "sets", []
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + RECORDS):
        data, caption = coloured_picture(number)
        (folder / f"{number:04}.png").write_bytes(data)
        rows.append({"file_name": f"{number:04}.png", "TEXT": caption, "LICENSE": "MIT"})
    return rows


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[SimulatedFederation]:
    """Two silos with pictures, founded."""
    made = SimulatedFederation(
        tmp_path, make_tiny_pipeline(tmp_path / "pipeline"), FakeClock(datetime.now(UTC))
    )
    changes = {
        "sequence_length": PLACES,
        "sequences_per_step": 8,
        "learning_rate": Decimal("0.01"),
        "local_steps": 8,
    }
    recipe = made.settings.recipe.model_copy(update=changes)
    task = TaskSection(family="denoising")
    made.settings = made.settings.model_copy(update={"recipe": recipe, "task": task})
    with ExitStack() as ended:
        for number, name in enumerate(SILOS):
            rows = add_pictures(made.directory / "silos" / name, 100 * number)
            silo = add_training_silo(made, name, PAIRS, rows)
            (silo.home / "data" / "sets" / "records.jsonl").rename(
                silo.home / "data" / "sets" / "metadata.jsonl"
            )
            ended.callback(silo.end_ranks)
        made.found()
        yield made


def test_a_run_ends_in_a_folder_that_diffusers_loads(federation: SimulatedFederation) -> None:
    reports = []
    for _ in range(2):
        plan = federation.open()
        assert federation.play(plan)[-1] is Stage.REPORTED
        assert [fault for silo in federation.silos.values() for fault in silo.faults] == []
        c = federation.coordinator()
        report = read_report(c, read_federation(c), plan)
        assert report is not None
        reports.append(report.record)
    for report in reports:
        assert report.outcome == "published", report.rule
        for summary in report.silos:
            losses = summary.losses
            assert summary.outcome == "admitted" and losses is not None
            assert losses.candidate < losses.starting and losses.right is None
    finish_latest_report(federation.coordinator())
    folder = federation.coordinator().published
    card = (folder / "README.md").read_text()
    blocks = "\n".join(re.findall(r"```python\n(.*?)```", card, re.DOTALL))
    code = blocks.replace("/folder/of/the/base/model", str(federation.model_dir))
    names: dict[str, Any] = {"text": "a picture of the red square"}
    # A picture is made in two steps here, which a reader would not.
    code = code.replace("pipe(text)", "pipe(text, num_inference_steps=2)")
    exec(code.replace('"published/"', repr(str(folder))), names)  # noqa: S102
    assert names["picture"].size == (16, 16)
    assert names["pipe"].get_active_adapters() == ["default_0"]
