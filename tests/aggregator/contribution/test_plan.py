"""Leave-one-out is known first, and a computation that was killed goes on where it was."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest

from aggregator.contribution.coalitions import Coalition, leave_one_out_coalitions
from aggregator.contribution.plan import (
    ContributionPlan,
    Losses,
    LossJournal,
    contribution_plan,
    measured,
)
from aggregator.contribution.values import SequenceLosses, leave_one_out
from data_contracts.errors import FederationOperatorError

SILOS = [f"silo-{number}" for number in range(6)]
PLAN = contribution_plan(SILOS, "shapley", bound_to="round-one")
TOKENS = np.array([7.0, 1.0, 30.0])


class KilledError(Exception):
    pass


def loss_of(coalition: Coalition) -> SequenceLosses:
    """A third has no short decimal form, so a digit lost on the way to disk would show."""
    return SequenceLosses(TOKENS * (5 - len(coalition) / 3) + len("".join(coalition)), TOKENS)


class Meter:
    """Measures coalitions, and is killed in the batch with the number `dies_in`."""

    def __init__(self, dies_in: int | None = None) -> None:
        self.asked: list[list[Coalition]] = []
        self._dies_in = dies_in

    def __call__(self, batch: Sequence[Coalition]) -> Losses:
        if len(self.asked) == self._dies_in:
            raise KilledError
        self.asked.append(list(batch))
        return {coalition: loss_of(coalition) for coalition in batch}


def same(found: Losses, expected: Iterable[Coalition]) -> bool:
    return set(found) == set(expected) and all(
        np.array_equal(found[c].nats, loss_of(c).nats)
        and np.array_equal(found[c].tokens, loss_of(c).tokens)
        for c in found
    )


def test_leave_one_out_then_the_start_then_the_rest_each_once() -> None:
    first = leave_one_out_coalitions(SILOS)
    assert list(PLAN.coalitions[: len(first) + 1]) == [*first, frozenset()]
    assert len(PLAN.coalitions) == len(set(PLAN.coalitions)) == 64
    few = contribution_plan(SILOS, "leave-one-out", bound_to="round-one")
    assert few.coalitions == PLAN.coalitions[: len(first) + 1]
    alone = contribution_plan(["one"], "leave-one-out", bound_to="x")
    assert alone.coalitions == (frozenset({"one"}), frozenset())


def test_eleven_silos_are_told_to_ask_for_leave_one_out() -> None:
    silos = [f"silo-{number}" for number in range(11)]
    with pytest.raises(FederationOperatorError, match="ask for leave-one-out"):
        contribution_plan(silos, "shapley", bound_to="x")
    assert len(contribution_plan(silos, "leave-one-out", bound_to="x").coalitions) == 13


def test_what_was_measured_before_an_interruption_is_kept_bit_for_bit(tmp_path: Path) -> None:
    journal = LossJournal(tmp_path, PLAN)
    with pytest.raises(KilledError):
        measured(PLAN, journal, Meter(dies_in=2))
    assert same(journal.known(), PLAN.coalitions[:32])
    seen: list[tuple[int, int]] = []
    rest = Meter()
    losses = measured(PLAN, journal, rest, on_measured=lambda *done: seen.append(done))
    assert [c for batch in rest.asked for c in batch] == list(PLAN.coalitions[32:])
    assert seen == [(48, 64), (64, 64)]
    assert same(losses, PLAN.coalitions)
    fresh = measured(PLAN, LossJournal(tmp_path / "fresh", PLAN), Meter())
    assert PLAN.values(losses) == PLAN.values(fresh)
    nothing = Meter()
    measured(PLAN, journal, nothing)
    assert nothing.asked == []


def test_leave_one_out_is_ready_after_the_first_batch(tmp_path: Path) -> None:
    journal = LossJournal(tmp_path, PLAN)
    with pytest.raises(KilledError):
        measured(PLAN, journal, Meter(dies_in=1))
    few = contribution_plan(SILOS, "leave-one-out", bound_to="round-one")
    known = LossJournal(tmp_path, few).known()
    assert same(known, few.coalitions)
    nothing = Meter()
    assert few.values(measured(few, LossJournal(tmp_path, few), nothing)) == leave_one_out(known)
    assert nothing.asked == []


def test_measurements_of_other_inputs_are_not_taken(tmp_path: Path) -> None:
    measured(PLAN, LossJournal(tmp_path, PLAN), Meter())
    other = contribution_plan(SILOS, "shapley", bound_to="round-two")
    assert LossJournal(tmp_path, other).known() == {}
    assert not {PLAN.key(c) for c in PLAN.coalitions} & {other.key(c) for c in other.coalitions}


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b'{"nats": [1.0',
        b"[]",
        b"\xff\xfe",
        b'{"nats": [1.0], "tokens": []}',
        b'{"nats": [NaN], "tokens": [1.0]}',
        b'{"tokens": [1.0]}',
    ],
)
def test_a_damaged_entry_is_measured_again(tmp_path: Path, damage: bytes) -> None:
    journal = LossJournal(tmp_path, PLAN)
    measured(PLAN, journal, Meter())
    hurt = PLAN.coalitions[9]
    (tmp_path / f"{PLAN.key(hurt)}.json").write_bytes(damage)
    again = Meter()
    assert same(measured(PLAN, journal, again), PLAN.coalitions)
    assert again.asked == [[hurt]]


def slowly(directory: Path) -> None:
    """Run in a process that the test kills: every coalition is a line of output."""

    class Slow(LossJournal):
        def add(self, coalition: Coalition, losses: SequenceLosses) -> None:
            super().add(coalition, losses)
            sys.stdout.write(f"{len(coalition)}\n")
            sys.stdout.flush()
            time.sleep(0.01)

    measured(PLAN, Slow(directory, PLAN), Meter())


def test_a_process_killed_in_the_middle_of_a_batch_loses_only_that_moment(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from tests.aggregator.contribution.test_plan import slowly\n"
        "slowly(Path(sys.argv[1]))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(20)]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert all(lines)
    known = LossJournal(tmp_path, PLAN).known()
    assert 20 <= len(known) < 64
    assert same(known, PLAN.coalitions[: len(known)])
    rest = Meter()
    assert same(measured(PLAN, LossJournal(tmp_path, PLAN), rest), PLAN.coalitions)
    assert sum(len(batch) for batch in rest.asked) == 64 - len(known)


def test_a_plan_without_all_losses_gives_no_values() -> None:
    losses = {coalition: loss_of(coalition) for coalition in PLAN.coalitions[:5]}
    few = ContributionPlan("leave-one-out", PLAN.coalitions[:8], "round-one")
    for plan, message in ((PLAN, "coalitions, found 5"), (few, "found none")):
        with pytest.raises(ValueError, match=message):
            plan.values(losses)
