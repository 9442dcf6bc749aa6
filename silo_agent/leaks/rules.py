"""Whether a local adapter may leave, by what the leak check has measured of it.

Each rule has a fixed sentence, which is all that leaves; figures and limits stay in the silo. The
refusal itself tells that a limit was passed, and which.
"""

from data_contracts.errors import SiloOperatorError
from silo_agent.leaks.figures import Exposure, LeakFigures
from silo_agent.policy.leak_check import FEWEST_RECORDS, LeakCheck
from silo_agent.policy.plan_context import PolicyRefusal

MEMBERSHIP = PolicyRefusal(
    "release.membership",
    "The adapter tells records that it was trained on from others better than the silo allows.",
)
VERBATIM = PolicyRefusal(
    "release.verbatim",
    "The adapter repeats records that it was trained on more often than the silo allows.",
)
EXPOSURE = PolicyRefusal(
    "release.exposure",
    "The adapter gives canaries away, which were planted among the records, more than the silo "
    "allows.",
)
TOO_FEW = PolicyRefusal(
    "release.too_few", "Too few records could be measured to say what the adapter tells of them."
)
UNCHECKED = PolicyRefusal(
    "release.unchecked", "What the adapter tells of the silo's records was not measured."
)
SURE = 0.01
"""A difference that chance makes more seldom is one."""


def objection(figures: LeakFigures | None, check: LeakCheck) -> PolicyRefusal | None:
    """Why an adapter with these figures does not leave, or None; without figures it does not, where
    the check is on."""
    if not check.is_on:
        return None
    if figures is None:
        return UNCHECKED
    if figures.membership is not None and figures.membership.low > check.max_auc:
        return MEMBERSHIP
    if _repeats(figures, check.max_verbatim):
        return VERBATIM
    if _exposes(figures, check.max_exposure):
        return EXPOSURE
    return TOO_FEW if is_too_few(figures, check) and check.too_few == "refuse" else None


def too_few_fault(trained: int, heldout: int, check: LeakCheck) -> SiloOperatorError | None:
    """Why a silo with so many records cannot let any adapter go, for its own people alone."""
    if not check.is_on or check.too_few == "allow" or min(trained, heldout) >= FEWEST_RECORDS:
        return None
    return SiloOperatorError(
        "leak check",
        expected=f"{FEWEST_RECORDS} records for training and as many held out",
        found=f"{trained:,} and {heldout:,}",
        action='add records, or set too_few = "allow" under [leak_check] in policy.toml, so that '
        "limits hold for what can be measured; rounds are refused until then",
    )


def is_too_few(figures: LeakFigures, check: LeakCheck) -> bool:
    """Whether figures that pass the limits say little, for want of records or of time."""
    is_few = figures.fewest < FEWEST_RECORDS or figures.membership is None
    return is_few or _shows_too_little(figures.exposure, check.max_exposure)


def _shows_too_little(found: Exposure | None, limit: float) -> bool:
    """Whether canaries were trained on, and could not be seen to be over the limit."""
    if found is None or not found.of_planted:
        return False
    return not found.planted or found.most <= limit


def _exposes(figures: LeakFigures, limit: float) -> bool:
    told = figures.exposure
    return told is not None and told.mean > limit and told.chance < SURE


def _repeats(figures: LeakFigures, limit: float) -> bool:
    told = figures.verbatim
    return told is not None and told.excess > limit and told.chance < SURE
