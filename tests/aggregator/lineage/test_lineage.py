"""Everything that an adapter goes on from is behind it, and nothing else."""

from dataclasses import replace

import pytest

from aggregator.lineage.lineage import (
    Lineage,
    LineageStep,
    named_adapter,
    rounds_behind,
)
from aggregator.unlearning.past_round import PastRound
from data_contracts.errors import FederationOperatorError
from tests.aggregator.federation_samples import COHORT
from tests.aggregator.test_private_admission import FED, STATEMENT, finished
from tests.aggregator.unlearning.rounds import WORK, adapter, past

HISTORY = [
    past(1, None, "ab"),
    past(2, "run-a/1", "abx"),
    past(3, "run-a/2", "abx", "held"),
    past(4, "run-a/2", "ab", earlier_adapter=adapter("run-a/1")),
    past(2, "run-a/1", "ab", run="run-b", entry=5),
]


def rounds(found: list[PastRound]) -> list[tuple[str, int]]:
    return [(each.record.run, each.record.round) for each in found]


def test_rounds_go_back_to_the_seed_newest_first_without_those_that_gave_nothing() -> None:
    found = rounds_behind(HISTORY, adapter("run-a/4").digest)
    assert rounds(found) == [("run-a", 4), ("run-a", 2), ("run-a", 1)]


def test_a_run_that_goes_on_from_another_has_the_rounds_of_that_behind_it() -> None:
    found = rounds_behind(HISTORY, adapter("run-b/2").digest)
    assert rounds(found) == [("run-b", 2), ("run-a", 1)]


def test_who_was_in_the_adapter_before_the_last_is_in_the_result() -> None:
    history = [
        past(1, None, "x"),
        past(2, None, "ab"),
        past(3, "run-a/2", "ab", earlier_adapter=adapter("run-a/1")),
    ]
    found = rounds_behind(history, adapter("run-a/3").digest)
    lineage = Lineage(found[0].made[0].digest, tuple(map(LineageStep, found)), {})
    assert {silo: [p.record.round for p in of] for silo, of in lineage.rounds_of.items()} == {
        "silo-a": [2, 3],
        "silo-b": [2, 3],
        "silo-x": [1],
    }


def test_epsilon_is_that_of_the_last_training_and_none_where_one_is_not_known_to_be_private() -> (
    None
):
    report = FED.report(finished(STATEMENT))
    counted = dict.fromkeys(COHORT, WORK)
    made = (adapter("a"),)
    private = LineageStep(PastRound(FED.plan, "published", counted, made, report))
    both = Lineage(adapter("a").digest, (private,), {})
    assert both.epsilon_of(COHORT[0]) == STATEMENT.epsilon_lifetime
    assert both.epsilon_of("nobody") is None
    gone = LineageStep(replace(private.past, plan=past(1, None, "a").plan, report=None))
    assert Lineage(both.digest, (private, gone), {}).epsilon_of(COHORT[0]) is None


def test_an_adapter_is_named_by_enough_digits_in_either_case() -> None:
    digest = adapter("run-a/2").digest
    assert named_adapter(HISTORY, digest[:8].upper()) == digest
    assert named_adapter(HISTORY, digest) == digest


@pytest.mark.parametrize(
    ("digits", "found"),
    [
        ("0" * 64, "0 whose digest begins"),
        # That of a held candidate was never published.
        (adapter("run-a/3").digest, "0 whose digest begins"),
    ],
    ids=["nobody's", "held"],
)
def test_what_no_round_published_has_no_lineage(digits: str, found: str) -> None:
    with pytest.raises(FederationOperatorError) as caught:
        named_adapter(HISTORY, digits)
    assert caught.value.found.startswith(found)
