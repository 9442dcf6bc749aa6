"""Words of the page: outcomes, rules, times and limits, without the vocabulary of any library."""

from datetime import datetime
from decimal import Decimal

from data_contracts.dataset.suite.rule_sentences import sentence, tolerated
from data_contracts.protocol.records import RoundReport
from data_contracts.protocol.records.merge_spec import MergeRule
from data_contracts.protocol.records.verdict import RuleOutcome

OUTCOMES = {
    "published": "The merged adapter was published.",
    "held": "The merged adapter was held back; the previous one stays in force.",
    "aborted": "The attempt was aborted; no adapter was published.",
}
SHARED_A_PUBLISHED = (
    "The merged factor A was taken over; each institution keeps the adapter that it makes of it, "
    "and none was published for others."
)
DECISIONS = {
    "evaluation.not_worse": "On held-out data of the institutions it was not worse than before.",
    "evaluation.quorum": "Too few institutions evaluated it.",
    "evaluation.mean_worse": "On average over the institutions it was worse than before.",
    "evaluation.silo_worse": "For at least one institution it was worse than the plan tolerates.",
    "robust.alarm": "An institution stands out among too few others; a person decides.",
    "quorum.not_reached": "Too few submissions were admitted.",
    "merge.unusable": "What came out of the merge was no adapter that anybody could use.",
    "masking.too_few": "Too few institutions said what the others needed to hide their changes, or "
    "to open the sum; nothing was opened.",
    "masking.not_opened": "What institutions revealed did not open the sum.",
    "operator.abort": "The federation operator ended it.",
    "coordinator.revoked": "The coordinator's key was revoked; the round is tried again.",
    "evidence.erased": "What an institution had sent was erased from storage; the round is tried "
    "again.",
    "silo.revoked": "The key of an institution whose submission counted was revoked.",
}
REJECTIONS = {
    "attempt.aborted": "What it sent was in order, but the attempt was aborted.",
    "cohort.not_named": "The plan does not name it.",
    "silo.revoked": "Its key was revoked, so nothing that it signed counts.",
    "silo.withdrew": "It took away what it had sent before that could be kept.",
    "silo.equivocation": "It signed two different records for one purpose.",
    "acceptance.missing": "It sent an adapter without having accepted the plan.",
    "acceptance.not_agreed": "Its acceptance carries no agreement, signed by both sides, to the "
    "data contract that the plan names.",
    "verdict.missing": "It sent an adapter without an outcome of its data contract.",
    "verdict.other_contract": "It checked its data under another contract than the plan names.",
    "verdict.contradictory": "It calls its data contract passed although a critical rule fails.",
    "verdict.incomplete": "Its outcome leaves out a question that every contract asks.",
    "verdict.too_long": "Its outcome claims to hold for longer than any may.",
    "verdict.expired": "The outcome of its data contract had expired.",
    "submission.other_verdict": "Its adapter rests on another outcome than the one it signed.",
    "masking.not_planned": "It sent a masked change, which the plan does not ask for.",
    "masking.other_book": "Its change is masked under another list than the others'.",
    "masking.not_listed": "It is not among the institutions that had sealed shares for each other.",
    "submission.late": "It was late.",
    "submission.too_few_steps": "It says that it did fewer steps than the plan asks for at the "
    "least.",
    "submission.too_many_steps": "It says that it did more steps than the plan has.",
    "submission.too_many_tokens": "It says that it trained on more than its steps can hold.",
    "privacy.missing": "It does not say what its training was charged, as a private plan asks.",
    "privacy.not_planned": "It speaks of differential privacy, which the plan does not ask for.",
    "privacy.other_terms": "It trained with another unit, other noise or other steps than planned.",
    "privacy.over_budget": "By its own word it has spent more than its privacy budget.",
    "privacy.understated": "Its training reveals more than it says, computed from what it says.",
    "privacy.lower_total": "It says that all its trainings together reveal less than it signed "
    "before.",
    "privacy.told_more": "It told losses, tokens or a leak check of its training, which a private "
    "plan keeps in.",
    "adapter.too_large": "Its adapter is larger than the plan allows.",
    "free_rider.copied": "Its adapter is a copy, of another institution's or of the start.",
}
_REJECTION_KINDS = {
    "binding.": "A record of it belongs to another round, plan or institution.",
    "adapter.": "Its adapter is not of the form, or not within the bounds, that the plan asks for.",
    "privacy.": "What it says of its private training is not what the plan asks for.",
    "masking.": "Its masked change is not of the form that the plan asks for.",
    "blob.": "Its adapter in storage is not the one that it signed, or cannot be read.",
}
MERGES: dict[MergeRule, str] = {
    "stack_truncate": "the weighted sum of all changes, cut to the agreed rank",
    "average": "the weighted averages of both factors",
    "frozen_a": "the weighted average of the one factor that was trained",
    "alternating": "the weighted average of the factor whose turn it was",
    "fedsvd": "the weighted average of the trained factor, both factors turned afterwards",
    "residual": "the weighted averages of both factors, and what they miss beside them",
    "zero_pad": "the weighted averages of both factors, smaller ones filled up with zeros",
    "sketch": "the weighted sum of all changes, cut to the agreed rank",
    "fed_sb": "the weighted sum of all changes: from the second round on of small cores between "
    "fixed factors, which is all that institutions send then",
    "shared_a": "the weighted average of the factor A, which is all that institutions send; each "
    "keeps its own factor B, and with it the only adapter that a model can load",
}
RECORDS = {
    "membership": "who belongs to the federation",
    "round-plan": "what was asked of whom",
    "mask-roster": "whose keys hide the changes",
    "share-book": "who sealed shares for whom",
    "close": "whose submission counts",
    "countersigned-close": "who saw that list before the sum was opened",
    "candidate": "the merged adapter",
    "decision": "published or held",
    "abort": "why the attempt ended",
    "acceptance": "takes part, under which agreement",
    "refusal": "does not take part, and why",
    "verdict": "outcome of its data contract",
    "mask-keys": "fresh keys for this attempt",
    "sealed-shares": "shares of its secrets, sealed for the others",
    "submission": "its adapter, by digest",
    "countersignature": "has seen whose changes are summed",
    "revealed-shares": "shares that open the sum",
    "evaluation": "losses on its held-out data",
}
_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_NO_COUNT = "the number stays in the institution"


def headline(report: RoundReport) -> str:
    """What became of the attempt, in a sentence."""
    if report.outcome == "published" and report.merge.rule == "shared_a":
        return SHARED_A_PUBLISHED
    return OUTCOMES[report.outcome]


def day(at: datetime) -> str:
    """A UTC instant as a date, whatever the locale: 3 March 2026."""
    return f"{at.day} {_MONTHS[at.month - 1]} {at.year}"


def moment(at: datetime) -> str:
    """With the time: 3 March 2026, 09:05 UTC."""
    return f"{day(at)}, {at:%H:%M} UTC"


def duration(seconds: float) -> str:
    """In the two largest units that say something: 2 hours 5 minutes."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = ((days, "day"), (hours, "hour"), (minutes, "minute"), (rest, "second"))
    said = [f"{count} {name}{'' if count == 1 else 's'}" for count, name in units if count]
    return " ".join(said[:2]) or "no time"


def refusal_by_contract(rule: str) -> str:
    """`rule` is `verdict.` and the failing rule of the silo's own contract."""
    asked = sentence(rule.removeprefix("verdict."), "")
    return f"Its data failed its own contract, which asks: {asked}"


def rejection(rule: str) -> str:
    """Why a submission does not count; a rule of a later version has a sentence of its kind."""
    known = REJECTIONS.get(rule)
    kinds = (says for prefix, says in _REJECTION_KINDS.items() if rule.startswith(prefix))
    return known or next(kinds, "The coordinator did not count it.")


def counted(outcome: RuleOutcome) -> str:
    """How many records break a rule, as far as that may be said."""
    if _about_the_set(outcome):
        return "one number about the whole set"
    if outcome.type == "precondition":
        return "asked before any record was read"
    if not outcome.element_count:
        return _NO_COUNT
    if outcome.unexpected_count is None:
        return f"withheld, of {outcome.element_count:,} records"
    return f"{outcome.unexpected_count:,} of {outcome.element_count:,} records"


def limit(outcome: RuleOutcome) -> str:
    """What the contract allows; empty where a rule is yes or no."""
    if outcome.rule == "drift.since_last_round" and outcome.at_most is not None:
        return f"a population stability index of at most {Decimal(outcome.at_most) / 1000}"
    if outcome.rule == "labels.balance" and outcome.at_most is not None:
        return f"{tolerated(outcome.at_most)} with one label"
    bounds = (("at least", outcome.at_least), ("at most", outcome.at_most))
    said = [f"{word} {bound:,}" for word, bound in bounds if bound is not None]
    if outcome.tolerated_per_mille is not None:
        said.append(tolerated(outcome.tolerated_per_mille))
    return ", ".join(said)


def _about_the_set(outcome: RuleOutcome) -> bool:
    return outcome.at_least is not None or outcome.at_most is not None
