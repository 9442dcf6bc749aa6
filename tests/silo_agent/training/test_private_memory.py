"""What private steps take: a gradient for each record that goes through the model at a time."""

from dataclasses import replace
from decimal import Decimal

import pytest

from data_contracts.protocol.records.privacy_terms import PrivacyTerms
from silo_agent.config import TrainingSection
from silo_agent.training.engine_spec import PINNED
from silo_agent.training.memory import estimate, parameters_of
from silo_agent.training.memory_plan import work_of
from silo_agent.training.private_memory import DEVIATIONS, NAME, RECORD_TOKENS, records_at_once
from silo_agent.training.rank_work import Choice
from silo_agent.training.weights_memory import FLOAT32_BYTES
from tests.silo_agent.test_policy import PLAN, SILO
from tests.silo_agent.training.test_memory import LENGTH, QUERY_AND_VALUE, SHAPE, part, work

STAGE_1 = Choice(1)
A_ROW = LENGTH // RECORD_TOKENS


def test_a_plain_training_has_none() -> None:
    assert NAME not in [each.name for each in estimate(SHAPE, work(), STAGE_1).parts]


def test_every_record_of_a_micro_batch_has_a_gradient_and_all_have_one_sum() -> None:
    private = work(private_records=1_000)
    trained = parameters_of(QUERY_AND_VALUE)
    found = estimate(SHAPE, private, STAGE_1)
    assert part(found, NAME) == FLOAT32_BYTES * trained * (A_ROW + 1)
    three = estimate(SHAPE, private, Choice(1, micro_batch=3))
    assert part(three, NAME) == FLOAT32_BYTES * trained * (3 * A_ROW + 1)
    plain = estimate(SHAPE, work(), STAGE_1)
    assert found.total_bytes - plain.total_bytes == part(found, NAME)
    half = estimate(SHAPE, replace(private, trained="b"), STAGE_1)
    assert part(half, NAME) * 2 == part(found, NAME), "of what is trained"


def test_no_more_records_go_through_at_a_time_than_a_step_draws_at_its_largest() -> None:
    many = Choice(1, micro_batch=64)
    found = records_at_once(SHAPE, work(), many, 16)
    assert found == 16 + DEVIATIONS * 4 < 64 * A_ROW
    assert records_at_once(SHAPE, work(), many, 10**6) == 64 * A_ROW


@pytest.mark.parametrize("family", ["masked-lm", "sequence-classification", "denoising"])
def test_of_families_that_do_not_pack_a_row_is_a_record(family: str) -> None:
    alone = work(family=family)
    assert records_at_once(SHAPE, alone, Choice(1, micro_batch=4), 1_000) == 4


def test_a_plan_says_how_many_records_a_step_draws_for_a_rank() -> None:
    training, held, plain = TrainingSection(ranks=2), PINNED["cpu"], PLAN
    assert work_of(plain, SILO, training, held).private_records is None
    terms = PrivacyTerms(
        unit="subject",
        clipping_norm=Decimal("1"),
        noise_multiplier=Decimal("1"),
        records_per_unit=3,
    )
    private = plain.model_copy(update={"privacy": terms})
    units = plain.recipe.sequences_per_step // 2
    assert work_of(private, SILO, training, held).private_records == 3 * units
