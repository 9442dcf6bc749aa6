"""How sure a change of the mean loss is: by hand, against a bootstrap, where nothing is said."""

import math

import numpy as np
import pytest

from silo_agent.training.loss import RecordSums, change_error, mean_loss

BEFORE: RecordSums = ((8.0, 2), (9.0, 4), (5.0, 1))
AFTER: RecordSums = ((6.0, 2), (8.0, 4), (5.0, 1))


def drawn(records: int, seed: int) -> tuple[RecordSums, RecordSums]:
    """Sums under two models; a record that is hard for one is hard for the other."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(5, 60, records)
    hardness = rng.gamma(4.0, 0.7, records)
    change = rng.normal(-0.15, 0.2, records)
    before = tuple((float(h * t), int(t)) for h, t in zip(hardness, tokens, strict=True))
    after = tuple((b + float(c * t), t) for (b, t), c in zip(before, change, strict=True))
    return after, before


def test_three_records_by_hand() -> None:
    # d = (-2, -1, 0), t = (2, 4, 1): r = -3/7, d - rt = (-8/7, 5/7, 3/7), squares sum to 2.
    assert mean_loss(AFTER) - mean_loss(BEFORE) == pytest.approx(-3 / 7)
    assert change_error(AFTER, BEFORE) == pytest.approx(math.sqrt(3 / 2 * 2) / 7)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_error_is_that_of_drawing_records_again(seed: int) -> None:
    after, before = drawn(60, seed)
    changes = np.array([x - y for (x, _), (y, _) in zip(after, before, strict=True)])
    tokens = np.array([t for _, t in after])
    picks = np.random.default_rng(seed).integers(0, 60, (4000, 60))
    again = changes[picks].sum(axis=1) / tokens[picks].sum(axis=1)
    assert change_error(after, before) == pytest.approx(again.std(), rel=0.08)


def test_two_errors_cover_the_change_of_the_population_as_often_as_they_should() -> None:
    after, before = drawn(20_000, 4)
    true = mean_loss(after) - mean_loss(before)
    covered = 0
    for start in range(0, 20_000, 50):
        some, same = after[start : start + 50], before[start : start + 50]
        error = change_error(some, same)
        assert error is not None
        covered += abs(mean_loss(some) - mean_loss(same) - true) < 1.96 * error
    assert 0.91 < covered / 400 < 0.98


def test_a_pair_is_far_surer_than_two_losses_apart() -> None:
    after, before = drawn(60, 5)
    paired = change_error(after, before)
    nothing: RecordSums = tuple((0.0, tokens) for _, tokens in before)
    one, other = change_error(after, nothing), change_error(before, nothing)
    assert paired is not None and one is not None and other is not None
    assert paired < math.hypot(one, other) / 3


def test_the_same_change_in_every_token_leaves_no_doubt() -> None:
    after = tuple((nats - 0.25 * tokens, tokens) for nats, tokens in BEFORE)
    assert change_error(after, BEFORE) == pytest.approx(0, abs=1e-12)
    assert change_error(BEFORE, BEFORE) == 0


def test_the_direction_does_not_matter() -> None:
    after, before = drawn(12, 6)
    assert change_error(after, before) == pytest.approx(change_error(before, after))


@pytest.mark.parametrize("records", [0, 1])
def test_fewer_than_two_records_say_nothing_of_their_spread(records: int) -> None:
    assert change_error(AFTER[:records], BEFORE[:records]) is None


@pytest.mark.parametrize("before", [(), BEFORE[:2], BEFORE[::-1], ((8.0, 2), (9.0, 3), (5.0, 2))])
def test_sums_of_other_records_are_not_compared(before: RecordSums) -> None:
    with pytest.raises(ValueError, match="expected sums of the same records, found 3 and"):
        change_error(AFTER, before)
