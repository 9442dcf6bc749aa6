"""Why a replay cannot be had, and in what it will differ from a federation without the silo. Pure.

Each is a rule that tests name, with the sentence that a person reads.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aggregator.unlearning.erasure_plan import ErasurePlan, RoundAgain
from aggregator.unlearning.past_round import PastRound
from data_contracts.protocol.records.masking_terms import LEAST_MASKED_SILOS


@dataclass(frozen=True)
class Hindrance:
    """Why it cannot be had, and what can be done about it."""

    rule: str
    reason: str
    action: str


def hindrances(history: Sequence[PastRound], plan: ErasurePlan) -> tuple[Hindrance, ...]:
    """All of them; without any, the erasure can be signed."""
    return tuple(_hindrances(history, plan))


def reservations(plan: ErasurePlan) -> tuple[str, ...]:
    """What will not be as in a federation that never had the silo, sentence by sentence."""
    return tuple(_reservations(plan)) if plan.again else ()


def _hindrances(history: Sequence[PastRound], plan: ErasurePlan) -> Iterator[Hindrance]:
    silo, again = plan.asked.silo, plan.again
    if plan.first is None:
        yield Hindrance(
            "unlearn.nothing",
            f"no adapter that run {plan.asked.run} rests on has a part of {silo} in it",
            "nothing has to be done",
        )
    # Silos follow the newest plan alone: an older one without an end was given up.
    if history and history[-1].outcome == "open":
        newest = history[-1].record
        yield Hindrance(
            "unlearn.round_under_way",
            f"round {newest.round} of {newest.run} is under way",
            "wait for its report, or end it with `consortia round abort`",
        )
    if plan.asked.membership.key_of(silo) is not None:
        yield Hindrance(
            "unlearn.is_member",
            f"{silo} is a member, and the next round would train on it again",
            f"take it out first: `consortia federation remove-silo --silo {silo}`",
        )
    if alone := [each for each in again if not each.silos]:
        yield Hindrance(
            "unlearn.only_silo",
            f"{_rounds(alone)}: nobody of its cohort is left but {silo}",
            "there is nothing to train again: begin a new run",
        )
    yield from _of_plans(plan)


def _of_plans(plan: ErasurePlan) -> Iterator[Hindrance]:
    again = plan.again
    least = LEAST_MASKED_SILOS
    masked = [e for e in again if e.past.record.masking and 0 < len(e.silos) < least]
    if masked:
        yield Hindrance(
            "unlearn.too_few_for_masks",
            f"{_rounds(masked)}: confidential mode needs {least} silos, and fewer are left",
            "begin a new run, in auditable mode or with more silos",
        )
    defended = [e for e in again if e.silos and len(e.silos) < _needed_by_defence(e)]
    if defended:
        yield Hindrance(
            "unlearn.too_few_for_defence",
            f"{_rounds(defended)}: its defence needs more silos than are left",
            "begin a new run with another defence",
        )
    if others := [e for e in again if e.past.record.base_model.digest != plan.asked.model_digest]:
        yield Hindrance(
            "unlearn.other_model",
            f"{_rounds(others)}: trained on another base model than base_model.path holds now",
            "put that model back in federation.toml until the replay is through",
        )


def _needed_by_defence(each: RoundAgain) -> int:
    robust = each.past.record.merge.robust
    return 0 if robust is None else robust.silos_needed


def _reservations(plan: ErasurePlan) -> Iterator[str]:
    again, first = plan.again, plan.again[0].past.record
    gone = sorted(
        {s for e in again for s in e.past.counted}
        - {plan.asked.silo}
        - {s for e in again for s in e.silos}
    )
    if gone:
        yield (
            f"{', '.join(gone)} counted too and left since: what they added is lost with the old "
            "adapters, since nobody can train it again."
        )
    if any(e.past.record.privacy for e in again):
        yield (
            "Private rounds are charged to the privacy budgets of the others once more, and draw "
            "new noise: the replay is exact in distribution, not to the bit."
        )
    if any(e.past.record.masking for e in again):
        yield (
            "In confidential mode the others train with other seeds, since two sums of one "
            "training would give away what the silo sent, and round at random: the replay is exact "
            "in distribution, not to the bit."
        )
    elif not plan.has_other_seeds:
        yield (
            "Old and new adapter of the first round differ by what the silo had changed in it: who "
            "has both can compute that. With --other-seeds nobody can to the bit."
        )
    carries = any(e.past.record.compression != "none" for e in again)
    if carries and first.starting_adapter is not None:
        yield (
            "What compression had left unsent before the first of these rounds is kept by no silo "
            "for so long; without it the result has other last digits. --from-seed avoids that."
        )
    if any(e.past.record.recipe.least_steps for e in again):
        yield "Silos may do other numbers of steps than they did then, where plans let them."
    if any(e.past.record.shares_a for e in again):
        yield "Each silo begins its own factors B anew, which stay with it."


def _rounds(again: Sequence[RoundAgain]) -> str:
    numbers = ", ".join(str(each.past.record.round) for each in again)
    return f"round {numbers}" if len(again) == 1 else f"rounds {numbers}"
