"""The life of a run's residuals: retries, rounds that were not merged, backups, resets."""

import shutil
from pathlib import Path

import pytest

from data_contracts.adapters.block_quantisation import SCHEMES
from data_contracts.protocol.artifact import digest_of_bytes
from silo_agent.compression.error_feedback import Compressed, LocalRound, compress
from silo_agent.compression.residual_state import Carry, ErrorFeedback, RoundBefore
from tests.silo_agent.compression.adapter_samples import LAYOUT, moved, random_adapter

NOTHING = RoundBefore(submitted=None, merged=False)


def start_of(round_number: int) -> str:
    return digest_of_bytes(b"start of round %d" % round_number)


class Rounds:
    """Plays rounds of one silo against the state under `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.feedback = ErrorFeedback(directory / "state", "run-a")
        self.before = NOTHING

    def carry(self, number: int, starting: str | None = None, rank: int = 3) -> Carry:
        layout = LAYOUT.model_copy(update={"rank": rank})
        return self.feedback.carried_into(number, layout, starting or start_of(number), self.before)

    def play(
        self, number: int, starting: str | None = None, merged: bool = True, rebases: bool = False
    ) -> tuple[Carry, Compressed]:
        carry, carried = self.feedback.open(self.carry(number, starting))
        start = random_adapter(0)
        round_ = LocalRound(moved(start, number), start, SCHEMES["int4"], "both")
        files = self.feedback.files(number, self.directory / f"sent-{number}", rebases)
        result = compress(round_, carried, files)
        self.feedback.keep(number, LAYOUT, starting or start_of(number), carry, result)
        self.before = RoundBefore(submitted=result.sent.digest, merged=merged)
        return carry, result


@pytest.fixture
def rounds(tmp_path: Path) -> Rounds:
    return Rounds(tmp_path)


def origin(carry: Carry) -> int | None:
    return carry.record.round if carry.record else None


@pytest.mark.parametrize("rebases", [False, True])
def test_each_round_continues_from_the_one_before(rounds: Rounds, rebases: bool) -> None:
    carries = [rounds.play(number, rebases=rebases)[0] for number in range(1, 6)]
    assert [origin(carry) for carry in carries] == [None, 1, 2, 3, 4]
    assert carries[0].reason == "nothing compressed was sent in round 0"
    assert carries[1].reason == "left by round 1"
    state = {path.name.partition(".")[0] for path in (rounds.directory / "state/run-a").iterdir()}
    assert state == {"0004", "0005"}


def test_the_state_survives_a_new_process(rounds: Rounds) -> None:
    rounds.play(1)
    rounds.feedback = ErrorFeedback(rounds.directory / "state", "run-a")
    assert origin(rounds.carry(2)) == 1
    carry, carried = rounds.feedback.open(rounds.carry(2))
    assert carry == rounds.carry(2)
    assert carried is not None


def test_every_attempt_of_a_round_continues_from_the_same_and_sends_the_same(
    rounds: Rounds,
) -> None:
    rounds.play(1)
    before = rounds.before
    first = rounds.play(2)
    rounds.before = before
    assert rounds.play(2) == first


def test_what_was_not_merged_changes_nothing(rounds: Rounds) -> None:
    """Rounds 3 and 4 are held: their starts stay that of round 3, and so does the residual."""
    rounds.play(1)
    rounds.play(2)
    carries = [rounds.play(number, starting=start_of(3))[0] for number in (3, 4, 5)]
    assert [origin(carry) for carry in carries] == [2, 2, 2]
    assert carries[2].reason == "went into round 4, not merged"
    before = rounds.before
    rounds.before = before.model_copy(update={"merged": True})
    assert origin(rounds.carry(6)) == 5


def test_a_retry_of_a_round_after_one_that_was_not_merged(rounds: Rounds) -> None:
    rounds.play(1)
    rounds.play(2, starting=start_of(2))
    before = rounds.before
    first = rounds.play(3, starting=start_of(2))
    rounds.before = before
    assert rounds.play(3, starting=start_of(2)) == first


def test_a_submission_that_the_close_left_out(rounds: Rounds) -> None:
    rounds.play(1)
    rounds.play(2, merged=False)
    assert origin(rounds.carry(3)) == 1
    rounds.before = rounds.before.model_copy(update={"submitted": None})
    assert origin(rounds.carry(3)) is None


def test_a_first_round_that_was_not_merged(rounds: Rounds) -> None:
    rounds.play(1, merged=False)
    carry = rounds.carry(2)
    assert rounds.feedback.open(carry) == (carry, None)
    assert carry.record is None
    assert carry.reason == "round 1 was not merged and continued from none"


def test_factors_that_were_rebased_without_this_silo(rounds: Rounds) -> None:
    """The residual of round 1 is one of factors, and round 2 gave out others."""
    rounds.play(1)
    rounds.play(2, merged=False, rebases=True)
    assert rounds.carry(3).reason == "the factors were re-based since"
    assert origin(rounds.carry(3, starting=start_of(2))) == 1


def test_products_outlive_rebasing(rounds: Rounds) -> None:
    rounds.play(1, rebases=True)
    rounds.play(2, merged=False, rebases=True)
    carry = rounds.carry(3)
    opened, carried = rounds.feedback.open(carry)
    assert origin(opened) == origin(carry) == 1
    assert carried
    assert carried.factors


def test_another_layout_starts_from_none(rounds: Rounds) -> None:
    rounds.play(1)
    assert rounds.carry(2, rank=2).reason == "the layout of the adapter changed"


def test_a_silo_that_sat_out_starts_from_none(rounds: Rounds) -> None:
    rounds.play(1)
    rounds.before = NOTHING
    assert rounds.carry(3).reason == "nothing compressed was sent in round 2"


def restored(rounds: Rounds, backup: Path) -> None:
    """The state as it was when `backup` was made of it."""
    shutil.rmtree(rounds.directory / "state")
    shutil.copytree(backup, rounds.directory / "state")


def test_after_a_restored_backup_nothing_of_it_is_sent_twice(rounds: Rounds) -> None:
    """The residual of round 1 went into round 2: round 3 begins without, and says why."""
    rounds.play(1)
    shutil.copytree(rounds.directory / "state", rounds.directory / "backup")
    rounds.play(2)
    restored(rounds, rounds.directory / "backup")
    carry, first = rounds.play(3)
    assert carry.record is None
    assert carry.reason.startswith("expected the state that belongs to")
    assert carry.reason.endswith(
        "found none that this agent wrote: what earlier rounds left unsent is given up"
    )
    fresh = Rounds(rounds.directory / "fresh")
    fresh.before = rounds.before.model_copy(update={"submitted": None})
    assert fresh.play(3)[1] == first
    assert origin(rounds.carry(4)) == 3


def test_every_attempt_after_a_restored_backup_sends_the_same(rounds: Rounds) -> None:
    rounds.play(1)
    shutil.copytree(rounds.directory / "state", rounds.directory / "backup")
    rounds.play(2)
    restored(rounds, rounds.directory / "backup")
    before = rounds.before
    first = rounds.play(3)
    rounds.before = before
    assert rounds.play(3) == first


def test_the_state_of_another_submission_is_given_up(rounds: Rounds) -> None:
    _, played = rounds.play(1)
    rounds.before = RoundBefore(submitted="0" * 64, merged=True)
    carry = rounds.carry(2)
    assert carry.record is None
    assert f"belongs to {'0' * 64}, found one for {played.sent.digest}:" in carry.reason


def test_a_round_that_was_played_before_does_not_continue_from_what_came_after(
    rounds: Rounds,
) -> None:
    rounds.play(1)
    before = rounds.before
    for number in (2, 3):
        rounds.play(number)
    rounds.before = before
    assert rounds.carry(2).record is None


def test_what_went_into_a_round_that_was_not_merged_may_be_gone(rounds: Rounds) -> None:
    rounds.play(1)
    rounds.play(2, merged=False)
    rounds.directory.joinpath("state/run-a/0001.json").unlink()
    carry = rounds.carry(3)
    assert carry.record is None
    assert "what went into round 2, not merged, is gone" in carry.reason


@pytest.mark.parametrize("kind", ["residual", "factors"])
def test_damaged_or_missing_files_are_given_up(rounds: Rounds, kind: str) -> None:
    rounds.play(1, rebases=True)
    path = rounds.directory / f"state/run-a/0001.{kind}.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    assert origin(rounds.carry(2)) == 1
    for _ in range(2):
        carry, carried = rounds.feedback.open(rounds.carry(2))
        assert (carry.record, carried) == (None, None)
        assert f"0001.{kind}.safetensors is missing or damaged" in carry.reason
        path.unlink(missing_ok=True)
    assert rounds.play(2)[0].record is None
    assert origin(rounds.carry(3)) == 2


def test_a_damaged_record_is_given_up(rounds: Rounds) -> None:
    rounds.play(1)
    path = rounds.directory / "state/run-a/0001.json"
    for text in (path.read_text().replace("run-a", "run-b"), "{}"):
        path.write_text(text)
        assert rounds.carry(2).record is None
        assert "found none that this agent wrote" in rounds.carry(2).reason


def test_a_reset_holds_for_every_attempt_of_the_next_round_only(rounds: Rounds) -> None:
    rounds.feedback.reset()
    rounds.play(1)
    before = rounds.before
    rounds.feedback.reset()
    assert list((rounds.directory / "state/run-a").iterdir()) == []
    carry, first = rounds.play(2)
    assert carry.record is None
    rounds.before = before
    assert rounds.play(2)[1] == first
    assert origin(rounds.carry(3)) == 2


def test_runs_do_not_share_state(rounds: Rounds) -> None:
    rounds.play(1)
    other = ErrorFeedback(rounds.directory / "state", "run-b")
    assert other.carried_into(2, LAYOUT, start_of(2), rounds.before).record is None
    assert origin(rounds.carry(2)) == 1
