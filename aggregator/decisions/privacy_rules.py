"""What can be wrong with what a silo says of its private training, computed anew from what it says.

Nobody but the silo knows how many units it has, what it charged before, and whether it added the
noise; that its statement fits the plan and adds up is asked here, and again by whoever audits.
"""

from collections.abc import Iterable

from data_contracts.privacy.accountant import NoGuaranteeError, PrivateSteps, least_epsilon_of
from data_contracts.protocol.records import RoundPlan, Submission, Verdict
from data_contracts.protocol.records.privacy_terms import PrivacyStatement, PrivacyTerms

LOWER_TOTAL = "privacy.lower_total"


def is_lower(statement: PrivacyStatement, earlier: Iterable[PrivacyStatement]) -> bool:
    """Whether a silo says less of its population than in a statement that it signed before.

    Every training is one more, and a total at one delta never gets less. At a larger delta the same
    trainings have a smaller epsilon, so a total is held against those at its own delta or a larger
    one. Another population is another total.
    """
    return any(
        statement.entries <= told.entries
        or (statement.delta <= told.delta and statement.epsilon_lifetime < told.epsilon_lifetime)
        for told in earlier
        if told.population == statement.population
    )


def privacy_fault(plan: RoundPlan, verdict: Verdict, submission: Submission) -> str | None:
    """The rule by which a submission is not what its plan asks for under privacy, or None."""
    terms, statement = plan.privacy, verdict.privacy
    if terms is None:
        return None if statement is None else "privacy.not_planned"
    if statement is None:
        return "privacy.missing"
    if _told_more(plan, submission):
        return "privacy.told_more"
    return _statement_fault(plan, terms, statement)


def _told_more(plan: RoundPlan, submission: Submission) -> bool:
    """Whether it says what depends on what was drawn, which is not in its epsilon."""
    losses = (submission.first_step_loss, submission.last_step_loss)
    told = (*losses, submission.leaks)
    is_told = any(figure is not None for figure in told)
    return is_told or submission.tokens != plan.recipe.tokens_per_round


def _statement_fault(
    plan: RoundPlan, terms: PrivacyTerms, statement: PrivacyStatement
) -> str | None:
    planned = (terms.unit, terms.noise_multiplier, plan.recipe.local_steps)
    if planned != (statement.unit, statement.noise_multiplier, statement.steps):
        return "privacy.other_terms"
    if statement.epsilon_lifetime > statement.epsilon_budget:
        return "privacy.over_budget"
    return "privacy.understated" if _is_understated(statement) else None


def _is_understated(statement: PrivacyStatement) -> bool:
    steps = PrivateSteps(statement.sampling_rate, statement.noise_multiplier, statement.steps)
    try:
        least = least_epsilon_of([steps], statement.delta)
    except NoGuaranteeError:
        return True
    return not least <= statement.epsilon <= statement.epsilon_lifetime
