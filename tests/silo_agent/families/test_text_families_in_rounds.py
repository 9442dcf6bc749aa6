"""Whole rounds of the families of text beside causal models, to the folder that a user loads.

Gates, ranks, merge, evaluation and publication are real, the model is a random BERT without a head;
storage and the coordinator are in memory.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aggregator.federated_round import finish_latest_report
from aggregator.settings.federation import TaskSection
from tests.data_contracts.dataset.forms.form_samples import (
    LABEL,
    PLAIN,
    TEXT,
    form_contract,
    record,
)
from tests.silo_agent.families.family_rounds import (
    RECIPE,
    SILOS,
    founded,
    loaded_as_the_card_says,
    report_of,
)
from tests.simulator.federation import SimulatedFederation
from tests.tiny_encoders import CLASSES, WORDS_OF, make_tiny_bert

pytestmark = pytest.mark.long

RECORDS, LENGTH = 130, 48
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
    classes = CLASSES if request.param == "sequence-classification" else None
    task = TaskSection(family=request.param, classes=classes)
    recipe = {**RECIPE, "sequence_length": LENGTH, "sequences_per_step": 8}
    contract = CLASSIFIED if classes else PLAIN
    sets = {name: rows(request.param, 200 * n) for n, name in enumerate(SILOS)}
    with founded(tmp_path, model, task, recipe, contract, sets) as made:
        yield made


def test_a_family_of_text_goes_through_rounds_to_a_folder_that_transformers_loads(
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
    loaded = loaded_as_the_card_says(federation, text="transfer between [MASK] banks")
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
