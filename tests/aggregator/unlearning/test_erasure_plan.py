"""Which rounds a silo's part is in, what is gone on from, and what it takes to have them again."""

from typing import Any

import pytest

from aggregator.unlearning.erasure_plan import ErasurePlan, erasure_plan
from aggregator.unlearning.hindrances import hindrances, reservations
from aggregator.unlearning.past_round import PastRound, Work, line_of, with_part_of
from data_contracts.protocol.records.plan_terms import ReplayOf
from tests.aggregator.unlearning.rounds import adapter, asked, past

STORY = [
    past(1, None, "ab"),
    past(2, "run-a/1", "abx"),
    past(3, "run-a/2", "ab", cohort="abx"),
]
"""silo-x joins at round 2, and misses round 3, which starts from what it was in."""


def rules(history: list[PastRound], plan: ErasurePlan) -> list[str]:
    return [found.rule for found in hindrances(history, plan)]


def rounds(plan: ErasurePlan) -> list[int]:
    return [each.past.record.round for each in plan.again]


def test_a_part_is_in_what_it_counted_in_and_in_all_that_starts_from_that() -> None:
    assert list(with_part_of(STORY, "silo-x")) == [
        adapter("run-a/2").digest,
        adapter("run-a/3").digest,
    ]


def test_it_is_gone_on_from_the_last_adapter_that_it_never_touched() -> None:
    plan = erasure_plan(STORY, asked())
    assert plan.first is STORY[1]
    assert (plan.start, plan.start_round) == (adapter("run-a/1"), 1)
    assert rounds(plan) == [2, 3]
    assert plan.revoked == tuple(sorted(adapter(f"run-a/{n}").digest for n in (2, 3)))
    assert rules(STORY, plan) == []


def test_it_costs_what_the_others_had_done() -> None:
    plan = erasure_plan(STORY, asked())
    assert [each.silos for each in plan.again] == [("silo-a", "silo-b")] * 2
    assert plan.trainings == 4
    assert plan.cost == Work(steps=20, tokens=400)


def test_a_silo_of_the_first_round_leads_back_to_the_seed() -> None:
    history = [past(1, None, "abx"), past(2, "run-a/1", "ab")]
    plan = erasure_plan(history, asked())
    assert (plan.start, plan.start_round, rounds(plan)) == (None, 0, [1, 2])


def test_a_part_in_a_held_round_is_in_no_adapter() -> None:
    history = [past(1, None, "ab"), past(2, "run-a/1", "abx", "held"), past(3, "run-a/1", "ab")]
    plan = erasure_plan(history, asked())
    assert plan.first is None and plan.revoked == ()
    assert rules(history, plan) == ["unlearn.nothing"]


def test_a_held_round_in_between_is_had_again_and_an_aborted_attempt_is_not() -> None:
    history = [
        past(1, None, "ab"),
        past(2, "run-a/1", "abx"),
        past(3, "run-a/2", "ab", "aborted"),
        past(3, "run-a/2", "ab", "held", attempt=2, entry=4),
        past(4, "run-a/2", "ab", entry=5),
    ]
    plan = erasure_plan(history, asked())
    assert [(e.past.record.round, e.past.record.attempt) for e in plan.again] == [
        (2, 1),
        (3, 2),
        (4, 1),
    ]


def test_a_round_whose_blobs_are_gone_is_had_again_as_well() -> None:
    kept = {adapter("run-a/1").digest}
    plan = erasure_plan(STORY, asked(is_kept=lambda ref: ref.digest in kept))
    assert rounds(plan) == [2, 3]


def test_where_the_start_is_gone_an_earlier_one_is_taken() -> None:
    history = [past(1, None, "ab"), past(2, "run-a/1", "ab"), past(3, "run-a/2", "abx")]
    kept = {adapter("run-a/1").digest}
    plan = erasure_plan(history, asked(is_kept=lambda ref: ref.digest in kept))
    assert (plan.start, rounds(plan)) == (adapter("run-a/1"), [2, 3])
    assert plan.revoked == (adapter("run-a/3").digest,)
    assert erasure_plan(history, asked(is_kept=lambda ref: False)).start is None


def test_from_the_seed_on_request() -> None:
    plan = erasure_plan(STORY, asked(from_seed=True))
    assert (plan.start, rounds(plan)) == (None, [1, 2, 3])
    assert adapter("run-a/1").digest not in plan.revoked


def test_the_line_of_a_replay_goes_back_into_the_run_that_it_repeats() -> None:
    repeated = ReplayOf(erasure_digest="1" * 64, plan_digest=STORY[1].plan.digest)
    again = past(2, "run-a/1", "ab", run="run-b", replay=repeated, entry=5)
    history = [*STORY, again, past(3, "run-b/2", "ab", run="run-b", entry=6)]
    assert line_of(history, "run-b") == [STORY[0], *history[3:]]
    plan = erasure_plan(history, asked("silo-b", "a", run="run-b"))
    assert plan.start is None
    assert [(e.past.record.run, e.past.record.round) for e in plan.again] == [
        ("run-a", 1),
        ("run-b", 2),
        ("run-b", 3),
    ]
    assert len(plan.revoked) == 5


def test_what_is_revoked_already_is_neither_revoked_again_nor_gone_on_from() -> None:
    history = [past(1, None, "aby"), past(2, "run-a/1", "abx"), past(3, "run-a/2", "ab")]
    plan = erasure_plan(history, asked(revoked={adapter("run-a/1").digest}))
    assert (plan.start, rounds(plan)) == (None, [1, 2, 3])


@pytest.mark.parametrize(
    ("history", "changes", "rule"),
    [
        ([past(1, None, "x")], {}, "unlearn.only_silo"),
        ([*STORY, past(4, "run-a/3", "", "open", cohort="ab")], {}, "unlearn.round_under_way"),
        (STORY, {"letters": "abx"}, "unlearn.is_member"),
        (STORY, {"model_digest": "f" * 64}, "unlearn.other_model"),
        (STORY, {"silo": "silo-z"}, "unlearn.nothing"),
    ],
    ids=["only-silo", "under-way", "member", "model", "nothing"],
)
def test_why_it_cannot_be_had(history: list[PastRound], changes: Any, rule: str) -> None:
    assert rules(history, erasure_plan(history, asked(**changes))) == [rule]


def test_an_older_attempt_without_an_end_was_given_up() -> None:
    history = [past(1, None, "", "open", cohort="ab", run="run-0"), *STORY]
    assert rules(history, erasure_plan(history, asked())) == []


def test_others_who_left_meanwhile_are_named() -> None:
    history = [past(1, None, "abcx"), past(2, "run-a/1", "ab")]
    plan = erasure_plan(history, asked(letters="ab"))
    assert [each.silos for each in plan.again] == [("silo-a", "silo-b")] * 2
    assert reservations(plan)[0].startswith("silo-c counted too and left since")


def test_compression_costs_the_last_digits_unless_the_seed_is_gone_on_from() -> None:
    history = [past(1, None, "ab"), past(2, "run-a/1", "abx", compression="int8")]
    told = [
        any("compression" in s for s in reservations(erasure_plan(history, asked(from_seed=f))))
        for f in (False, True)
    ]
    assert told == [True, False]


def test_with_the_same_seeds_it_is_said_that_the_difference_tells() -> None:
    same, other = erasure_plan(STORY, asked()), erasure_plan(STORY, asked(other_seeds=True))
    assert any("--other-seeds" in sentence for sentence in reservations(same))
    assert other.has_other_seeds and reservations(other) == ()
