"""Which canaries were trained on follows from the places of what was trained on."""

from typing import Any

import numpy as np
import pytest

from data_contracts.dataset.contract.canaries import Canaries as Terms
from data_contracts.dataset.findings.keyed import Keyed
from data_contracts.dataset.forms import FORMS
from silo_agent.leaks.canaries import CANDIDATES, planted_lines, reference_lines
from silo_agent.training.leak_part import CanaryPart
from silo_agent.training.ranks.canary_check import canaries_of
from silo_agent.training.ranks.leak_check import side
from silo_agent.training.ranks.packed_records import Shards
from silo_agent.training.ranks.packing import PackingRule
from tests.silo_agent.training.tiny_jobs import TinySilo, shard_of
from tests.tiny_model import write_records

RECORDS, NUMBER, COPIES = 5, 3, 2
RULE = PackingRule(96)


@pytest.fixture(scope="module")
def planted(silo: TinySilo, tmp_path_factory: pytest.TempPathFactory) -> tuple[CanaryPart, Shards]:
    root = tmp_path_factory.mktemp("canaries")
    terms = Terms.model_validate_json(f'{{"number": {NUMBER}, "copies": {COPIES}}}')
    form, keyed = FORMS["instruction"], Keyed(b"k" * 32)
    train = write_records(root / "train.jsonl", RECORDS)
    with train.open("a") as file:
        file.writelines(planted_lines(terms, form, keyed))
    reference = root / "canaries.jsonl"
    reference.write_text("".join(reference_lines(terms, form, keyed)))
    shards: list[Any] = [shard_of(silo.model_dir, path) for path in (train, reference)]
    part = CanaryPart(records=reference, planted=NUMBER, copies=COPIES)
    return part, Shards(shards[0], shards[0], shards[1])


def test_any_copy_of_a_canary_is_that_canary(planted: tuple[CanaryPart, Shards]) -> None:
    part, shards = planted
    places = np.array([0, 2, RECORDS + 1, RECORDS + NUMBER + 1, RECORDS + NUMBER + 2])
    found = canaries_of(part, shards, places, RULE, 1)
    assert found is not None
    assert found.of_planted == 2
    assert sorted(found.planted.records) == [1, 2], "each once, as the reference has it"
    assert sorted(found.candidates.records) == [*range(NUMBER, NUMBER + CANDIDATES)]
    assert found.others(places).tolist() == [0, 2]


def test_where_none_was_trained_on_nothing_is_measured(planted: tuple[CanaryPart, Shards]) -> None:
    part, shards = planted
    found = canaries_of(part, shards, np.array([0, 1]), RULE, 1)
    assert found is not None
    assert (found.of_planted, len(found.planted), len(found.candidates)) == (0, 0, 0)
    assert canaries_of(None, shards, np.array([0, 1]), RULE, 1) is None


def test_a_round_that_trained_on_canaries_alone_has_no_other_record(
    planted: tuple[CanaryPart, Shards],
) -> None:
    part, shards = planted
    places = np.array([RECORDS, RECORDS + 1])
    found = canaries_of(part, shards, places, RULE, 1)
    assert found is not None
    none = side(shards.train, found.others(places), RULE, 10, 1)
    assert (len(none.sequences), none.in_all) == (0, 0)
