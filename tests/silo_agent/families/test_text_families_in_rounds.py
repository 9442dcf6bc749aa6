"""Whole rounds of the families of text beside causal models, to the folder that a user loads.

Gates, ranks, merge, evaluation and publication are real, the model is a random BERT without a head;
storage and the coordinator are in memory.
"""

import json
import random
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
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import RoundPlan
from data_contracts.protocol.records.round_report import RoundReport
from tests.data_contracts.dataset.forms.form_samples import (
    LABEL,
    PLAIN,
    TEXT,
    form_contract,
    record,
)
from tests.silo_agent.training_silo import add_training_silo
from tests.simulator.fake_clock import FakeClock
from tests.simulator.federation import SimulatedFederation
from tests.tiny_encoders import CLASSES, WORDS_OF, make_tiny_bert

pytestmark = pytest.mark.long

RECORDS, LENGTH = 60, 48
CLASSIFIED = form_contract(TEXT + LABEL, f"{{property: fl.classes, value: [{', '.join(CLASSES)}]}}")


def text_of(number: int, label: str) -> str:
    """A text of its own for every number, in words of its class."""
    drawn = random.Random(number)
    return f"number {number} " + " ".join(drawn.choices(WORDS_OF[label].split(), k=6 + number % 7))


def rows(family: str, first: int) -> list[dict[str, Any]]:
    """Records of a silo, other ones for every `first`."""
    found = []
    for number in range(first, first + RECORDS):
        label = CLASSES[number % len(CLASSES)]
        content = {"text": text_of(number, label)}
        if family == "sequence-classification":
            content["label"] = label
        found.append(record(number, **content))
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bert(tmp_path_factory.mktemp("encoder") / "bert")


@pytest.fixture(params=["masked-lm", "sequence-classification"])
def federation(
    request: pytest.FixtureRequest, model: Path, tmp_path: Path
) -> Iterator[SimulatedFederation]:
    """Three silos of one family, founded."""
    family = request.param
    # Deadlines of training are by the clock of the machine.
    made = SimulatedFederation(tmp_path, model, FakeClock(datetime.now(UTC)))
    changes = {
        "sequence_length": LENGTH,
        "sequences_per_step": 8,
        "learning_rate": Decimal("0.01"),
        "local_steps": 8,
    }
    task = TaskSection(
        family=family, classes=CLASSES if family == "sequence-classification" else None
    )
    recipe = made.settings.recipe.model_copy(update=changes)
    made.settings = made.settings.model_copy(update={"recipe": recipe, "task": task})
    contract = CLASSIFIED if task.classes else PLAIN
    with ExitStack() as ended:
        for number, name in enumerate(("silo-a", "silo-b", "silo-c")):
            silo = add_training_silo(made, name, contract, rows(family, 100 * number))
            ended.callback(silo.end_ranks)
        made.found()
        yield made


def report_of(federation: SimulatedFederation, plan: Verified[RoundPlan]) -> RoundReport:
    """What was signed in the end."""
    assert federation.play(plan)[-1] is Stage.REPORTED
    assert [fault for silo in federation.silos.values() for fault in silo.faults] == []
    c = federation.coordinator()
    report = read_report(c, read_federation(c), plan)
    assert report is not None
    return report.record


def loaded_as_the_card_says(federation: SimulatedFederation) -> dict[str, Any]:
    """The names that the code of the card defines, with the base model in the folder it is in."""
    folder = federation.coordinator().published
    card = (folder / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    code = "\n".join(blocks).replace("/folder/of/the/base/model", str(federation.model_dir))
    names: dict[str, Any] = {"text": "transfer between [MASK] banks"}
    exec(code.replace('"published/"', repr(str(folder))), names)  # noqa: S102
    return names


def test_a_family_goes_through_rounds_to_a_folder_that_transformers_loads(
    federation: SimulatedFederation,
) -> None:
    first = report_of(federation, federation.open())
    plan = federation.open()
    second = report_of(federation, plan)
    assert plan.record.layout.wholes, "the model has no head of its own"
    for report in (first, second):
        assert report.outcome == "published", report.rule
        for summary in report.silos:
            losses = summary.losses
            assert summary.outcome == "admitted" and losses is not None
            assert losses.candidate < losses.starting
            assert losses.right is not None and losses.right.candidate >= losses.right.starting
    finish_latest_report(federation.coordinator())
    loaded = loaded_as_the_card_says(federation)
    if plan.record.learned.classes is None:
        assert loaded["found"] in loaded["tokenizer"].get_vocab()
        return
    assert loaded["found"] in CLASSES
    signed = next(silo.losses for silo in second.silos if silo.silo == "silo-a")
    assert signed is not None and signed.right is not None
    nats, right = _heldout(federation, "silo-a", loaded)
    assert nats == pytest.approx(float(signed.candidate), abs=1e-4)
    assert right == pytest.approx(float(signed.right.candidate), abs=1e-6)


def _heldout(
    federation: SimulatedFederation, silo: str, loaded: dict[str, Any]
) -> tuple[float, float]:
    """Mean loss and accuracy of what a user has loaded, on the records that a silo held out."""
    import torch

    path = federation.silos[silo].home / "work" / "splits" / "heldout.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    nats, right = 0.0, 0
    for each in records:
        inputs = loaded["tokenizer"](
            each["text"], truncation=True, max_length=LENGTH, return_tensors="pt"
        )
        with torch.no_grad():
            logits = loaded["model"](**inputs).logits[0]
        label = CLASSES.index(each["label"])
        nats -= logits.log_softmax(dim=-1)[label].item()
        right += int(logits.argmax()) == label
    return nats / len(records), right / len(records)
