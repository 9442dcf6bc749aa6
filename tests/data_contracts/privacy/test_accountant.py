"""Known answers of the accountant, and what it refuses."""

import logging
import subprocess
import sys
from decimal import Decimal

import pytest

from data_contracts.privacy.accountant import (
    NoGuaranteeError,
    PrivateSteps,
    epsilon_of,
    least_epsilon_of,
)

DELTA = Decimal("0.00001")


def _steps(rate: str, noise: str, steps: int) -> PrivateSteps:
    return PrivateSteps(Decimal(rate), Decimal(noise), steps)


ABADI = _steps("0.01", "4", 10_000)
"""The example of Abadi et al. 2016, whose moments accountant gives 1.26."""


def test_the_known_answer_of_the_privacy_loss_distributions() -> None:
    # 0.9470 by dp-accounting 0.6.0, rounded up.
    assert epsilon_of([ABADI], DELTA) == Decimal("0.947")


def test_the_known_answer_of_the_cross_check() -> None:
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent, rdp

    accountant = rdp.RdpAccountant()
    accountant.compose(
        SelfComposedDpEvent(PoissonSampledDpEvent(0.01, GaussianDpEvent(4.0)), 10_000)
    )
    assert accountant.get_epsilon(1e-5) == pytest.approx(1.0355, abs=1e-4)


@pytest.mark.parametrize(
    ("steps", "epsilon"),
    [
        # Gaussian mechanism without sampling, sigma 1, one step: 4.377 is the exact root of the
        # curve of Balle and Wang 2018 at delta 1e-5.
        (_steps("1", "1", 1), Decimal("4.377")),
        (_steps("0.032", "1", 100), Decimal("2.256")),
    ],
    ids=["no-sampling", "short"],
)
def test_other_known_answers_within_the_grid(steps: PrivateSteps, epsilon: Decimal) -> None:
    assert abs(epsilon_of([steps], DELTA) - epsilon) <= Decimal("0.002")


def test_it_is_rounded_up_and_never_to_nothing() -> None:
    tiny = _steps("0.001", "1000", 10)
    assert epsilon_of([tiny], DELTA) == Decimal("0.001")
    assert least_epsilon_of([ABADI], DELTA) == Decimal("0.946")
    assert least_epsilon_of([tiny], DELTA) == 0


def test_equal_trainings_are_one_longer_training() -> None:
    halves = [_steps("0.01", "4", 5_000)] * 2
    assert epsilon_of(halves, DELTA) == epsilon_of([ABADI], DELTA)


def test_a_list_reveals_less_than_the_sum_of_its_parts_and_more_than_any() -> None:
    parts = [ABADI, _steps("0.02", "3", 2_000)]
    together = epsilon_of(parts, DELTA)
    alone = [epsilon_of([part], DELTA) for part in parts]
    assert max(alone) < together < sum(alone)
    assert epsilon_of(reversed(parts), DELTA) == together


@pytest.mark.parametrize("noise", ["0.000001", "0.05"])
def test_noise_that_hides_nothing_is_refused_with_a_message(noise: str) -> None:
    with pytest.raises(NoGuaranteeError, match=r"expected an epsilon of at most 1000; found .*"):
        epsilon_of([_steps("0.5", noise, 1_000)], DELTA)


def test_the_library_does_not_warn_into_the_silos_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        epsilon_of([_steps("0.5", "0.81", 1_000)], DELTA)
    assert caplog.records == []


def test_whoever_accounts_for_nothing_does_not_load_the_library() -> None:
    program = (
        "import sys, data_contracts.privacy.accountant as a; from decimal import Decimal as D;"
        "a.epsilon_of([], D('0.1')); print('dp_accounting' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert found.stdout == "False\n"
