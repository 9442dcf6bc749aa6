"""An old plan once more: what it keeps to the letter, and what belongs to the moment."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from aggregator.planning.inputs import PlanInputs
from aggregator.planning.starting_point import StartingPoint
from aggregator.unlearning.repeated_plan import repeated_plan_of
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.records import RoundPlan
from data_contracts.protocol.records.masking_terms import MaskingTerms
from data_contracts.protocol.records.merge_spec import MergeSpec
from data_contracts.protocol.trusted_feed import FeedPosition
from tests.aggregator.unlearning.rounds import adapter, members, past
from tests.data_contracts.erasure_samples import erasure
from tests.infra.record_samples import NOW, membership

LATER = timedelta(days=30)
OLD = past(2, "run-a/1", "abx", quorum=3, evaluation_quorum=3).plan
ERASED = erasure(9, "0" * 64, silo="silo-x")
OF_THE_MOMENT = {
    "issued_at",
    "run",
    "feed_number",
    "previous_digest",
    "membership_digest",
    "cohort",
    "contracts",
    "quorum",
    "evaluation_quorum",
    "submit_by",
    "evaluate_by",
    "expires_at",
    "program",
    "erasure",
    "replay",
}


def inputs(letters: str = "ab", **changes: Any) -> PlanInputs:
    fields: dict[str, Any] = {
        "membership": replace(membership(), record=members(letters)),
        "head": FeedPosition(9, ERASED.digest),
        "base_model": OLD.record.base_model,
        "layout": OLD.record.layout,
        "contract_digests": {f"silo-{letter}": "d" * 64 for letter in letters},
        "starting": StartingPoint(adapter=adapter("run-a/1")),
        "prompt_date": None,
        "now": NOW + LATER,
    }
    return PlanInputs(**fields | changes)


def again(**changes: Any) -> RoundPlan:
    return repeated_plan_of(OLD, ERASED, inputs(**changes), 1)


def test_everything_but_what_belongs_to_the_moment_is_as_it_was() -> None:
    plan, old = again(), OLD.record
    changed = {f for f in RoundPlan.model_fields if getattr(plan, f) != getattr(old, f)}
    assert changed <= OF_THE_MOMENT
    assert (plan.round, plan.recipe, plan.layout) == (old.round, old.recipe, old.layout)
    assert plan.cohort == ("silo-a", "silo-b")
    assert plan.run == ERASED.record.replay_run


def test_deadlines_are_as_long_as_they_were_and_quorums_no_larger_than_the_cohort() -> None:
    plan, old = again(), OLD.record
    assert plan.submit_by - plan.issued_at == old.submit_by - old.issued_at
    assert plan.evaluate_by - plan.issued_at == old.evaluate_by - old.issued_at
    assert (plan.quorum, plan.evaluation_quorum) == (2, 2)


def test_it_says_what_it_repeats_and_why() -> None:
    replay = again().replay
    assert replay is not None
    assert (replay.erasure_digest, replay.plan_digest) == (ERASED.digest, OLD.digest)


def test_other_seeds_are_those_of_the_erasure() -> None:
    shifted = erasure(9, "0" * 64, silo="silo-x", seed_offset=500)
    plan = repeated_plan_of(OLD, shifted, inputs(), 1)
    assert plan.recipe.seed == OLD.record.recipe.seed + 500


def test_a_factor_is_trained_by_what_was_published_without_the_silo() -> None:
    """Where a round before is held this time, nothing has been published, and B comes first."""
    merge = MergeSpec(rule="alternating", weight_cap_tokens=100)
    recipe = OLD.record.recipe.model_copy(update={"trained_factors": "a"})
    old = past(2, "run-a/1", "abx", merge=merge, recipe=recipe).plan
    plan = repeated_plan_of(old, ERASED, inputs(starting=StartingPoint()), 1)
    assert plan.recipe.trained_factors == "b"


def test_masks_are_of_the_silos_that_are_left() -> None:
    terms = MaskingTerms(
        threshold=4,
        keys_by=NOW + timedelta(minutes=10),
        shares_by=NOW + timedelta(minutes=20),
        reveal_by=NOW + timedelta(minutes=90),
    )
    merge = MergeSpec(rule="average", weight_cap_tokens=100)
    changes: dict[str, Any] = {"masking": terms, "trust_mode": "confidential", "merge": merge}
    old = past(2, "run-a/1", "abcx", quorum=4, **changes).plan
    plan = repeated_plan_of(old, ERASED, inputs("abc"), 1)
    assert plan.masking is not None
    assert (plan.masking.threshold, plan.quorum) == (3, 3)
    assert plan.masking.reveal_by == terms.reveal_by + LATER


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"contract_digests": {"silo-a": "d" * 64}}, "a contract in force with each"),
        ({"letters": "c"}, "a contract in force with each"),
        (
            {"base_model": OLD.record.base_model.model_copy(update={"digest": "9" * 64})},
            "the base model of round 2",
        ),
    ],
    ids=["no-contract", "nobody-left", "other-model"],
)
def test_what_cannot_be_repeated_is_said(changes: Any, expected: str) -> None:
    with pytest.raises(FederationOperatorError) as caught:
        again(**changes)
    assert expected in caught.value.expected
