"""What a private plan makes of a silo's training: one stage, no baseline, its own secret."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.records import RoundPlan, Verdict
from data_contracts.protocol.records.privacy_terms import PrivacyTerms
from infra.storage.config import StorageSection
from silo_agent.collaborators import GlobalAdapter
from silo_agent.config import SiloConfig, TrainingSection
from silo_agent.gate.splits import Splits
from silo_agent.privacy.ledger import PrivacyLedger
from silo_agent.training.jobs import LocalJobs
from silo_agent.training.memory_plan import chosen_for
from silo_agent.training.private_job import NO_SECRET, private_part, with_secret
from silo_agent.training.private_stage import in_private_stage, is_private_stage
from tests.silo_agent.privacy.ledger_samples import FINDINGS, NOW, digest, written
from tests.silo_agent.privacy.test_taking_back import verdicts_of
from tests.silo_agent.test_policy import PLAN, SILO

TERMS = PrivacyTerms(
    unit="record",
    clipping_norm=Decimal("0.5"),
    noise_multiplier=Decimal("2"),
    records_per_unit=3,
)
PRIVATE = PLAN.model_copy(update={"privacy": TERMS})
FIXED: dict[str, Any] = {"micro_batch": 1, "gradient_checkpointing": False}


class KnownModel(LocalJobs):
    """The model's files are another test's."""

    def _model_dir(self, records: Path) -> Path:
        return records.parent


def config(home: Path, **training: Any) -> SiloConfig:
    return SiloConfig(
        silo=SILO,
        federation=PLAN.federation,
        storage=StorageSection(endpoint_url="http://127.0.0.1:1"),
        training=TrainingSection(**FIXED | {"ranks": 1} | training),
        home=home,
    )


def splits(home: Path) -> Splits:
    for name in ("train.jsonl", "heldout.jsonl"):
        (home / name).write_text("{}\n")
    return Splits(home / "train.jsonl", home / "heldout.jsonl")


def verdict(home: Path) -> Verdict:
    return verdicts_of(written(home, 1))[0]


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_private_plan_is_trained_in_stage_1_whatever_is_set(tmp_path: Path, stage: Any) -> None:
    there = config(tmp_path, zero_stage=stage)
    assert chosen_for(tmp_path, PRIVATE, there).zero_stage == 1
    assert chosen_for(tmp_path, PLAN, there).zero_stage == stage


@pytest.mark.parametrize(
    ("training", "is_open"),
    [
        ({}, True),
        ({"zero_stage": "auto"}, True),
        ({"zero_stage": 1}, True),
        ({"zero_stage": 2}, False),
        ({"zero_stage": 3}, False),
        ({"zero_stage": "auto", "offload": "cpu", "device": "cuda"}, False),
        ({"zero_stage": 1, "base_weights": "8-bit", "device": "cuda"}, False),
        ({"zero_stage": 1, "base_weights": "4-bit", "device": "cuda"}, True),
    ],
    ids=["default", "auto", "1", "2", "3", "offload", "8-bit-cuda", "4-bit-cuda"],
)
def test_what_a_person_has_set_leaves_private_training_open_or_not(
    training: dict[str, Any], is_open: bool
) -> None:
    section = TrainingSection(**training)
    assert is_private_stage(section) is is_open
    assert in_private_stage(section).zero_stage == 1


def test_the_job_has_the_numbers_of_plan_and_statement_and_no_baseline(tmp_path: Path) -> None:
    made = splits(tmp_path)
    private = private_part(tmp_path, PRIVATE, verdict(tmp_path), made)
    assert private is not None
    assert private.sampling_rate == Decimal("0.032")
    assert private.expected_units == PLAN.recipe.sequences_per_step
    assert (private.clipping_norm, private.noise_multiplier) == (Decimal("0.5"), Decimal("2"))
    assert (private.records_per_unit, private.units) == (3, None)
    there = config(tmp_path, silo_only_baseline=True)
    job = KnownModel(there, PRIVATE).training(GlobalAdapter(None), made, private)
    assert not job.silo_only.enabled
    assert not job.measure_local
    assert job.zero_stage == 1
    plain = KnownModel(there, PLAN).training(GlobalAdapter(None), made)
    assert plain.silo_only.enabled
    assert plain.private is None


def test_the_same_job_has_the_same_secret_and_another_has_another(tmp_path: Path) -> None:
    made, said = splits(tmp_path), verdict(tmp_path)
    there = config(tmp_path)

    def job(plan: RoundPlan = PRIVATE) -> Path:
        private = private_part(tmp_path, plan, said, made)
        found = KnownModel(there, plan).training(GlobalAdapter(None), made, private)
        named = with_secret(tmp_path, said, found, NOW).private
        assert named is not None
        return named.secret

    first = job()
    assert first != NO_SECRET
    assert first.read_bytes() == job().read_bytes()
    recipe = PLAN.recipe.model_copy(update={"seed": 99})
    other = job(PRIVATE.model_copy(update={"recipe": recipe}))
    assert other.read_bytes() != b""
    assert not first.exists(), "what was not released is given up"
    charges = [each for _, each in PrivacyLedger(tmp_path).read().charges()]
    assert [each.entries for each in charges] == [1, 2]
    assert charges[1].plan_digest == digest(1)
    assert charges[1].findings_digest == FINDINGS


def test_a_verdict_without_a_statement_trains_nothing(tmp_path: Path) -> None:
    said = verdict(tmp_path).model_copy(update={"privacy": None})
    with pytest.raises(SiloOperatorError, match="a statement of what its private training"):
        private_part(tmp_path, PRIVATE, said, splits(tmp_path))


def test_a_silo_only_adapter_of_before_is_not_measured_in_a_private_round(tmp_path: Path) -> None:
    jobs = KnownModel(config(tmp_path), PRIVATE)
    path = jobs.silo_only_path(PRIVATE.round)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no adapter; nobody looks")
    assert jobs.silo_only() is None
