"""What a rule allows and what was found, in words with numbers; for people inside the silo only.

Exact numbers are for those who hold the data: `records.verdict` says what others may be told.
"""

from data_contracts.dataset.contract.quality_rules import QualityRule
from data_contracts.dataset.suite.built_in_rules import (
    BETWEEN,
    DISTINCT,
    IN_SET,
    NOT_NULL,
    OF_RECORDS,
)
from data_contracts.dataset.suite.rule_sentences import OWN_RULE_PREFIX, tolerated

WORDS_OF_COLUMNS = {
    "readable": "readable",
    "licence_allowed": "licence allowed",
    "licence_agrees": "licence as claimed",
    "is_empty": "empty",
    "has_control_tokens": "spells a control token",
    "is_duplicate": "repeats an earlier record",
    "is_near_duplicate": "nearly repeats an earlier record",
    "leaks": "also held out",
    "opted_out": "opted out",
    "opt_out_evidence": "evidence about an opt-out",
    "copyright_hit": "repeats a registered work",
    "has_personal_data": "has personal data",
    "consent": "consent",
    "synthetic": "synthetic",
    "prompt_characters": "question",
    "answer_characters": "answer",
    "licence": "licence",
    "split": "split",
    "language": "language",
    "subject_id": "subject",
    "text_digest": "text",
}
"""A finding that a contract's own rule may look at, as people call it."""

_DIFFERENT = {
    "usable_text": "different texts",
    "usable_subject": "different subjects",
    "usable_split": "of 2 splits",
    "subject_id": "different subjects",
    "text_digest": "different texts",
}
_MEASURES = {"psi_thousandths": "stability index", "majority_per_mille": "largest label"}


def allowed_words(rule: QualityRule) -> str:
    """What `rule` allows, such as "none", "at most 50 of 1,000" or "20 or more"."""
    if rule.column in _MEASURES and rule.type in (BETWEEN, NOT_NULL):
        return _of_measure(rule)
    if rule.type not in OF_RECORDS:
        return "training and held out" if rule.column == "usable_split" else _between(rule)
    broken_per_mille = round(1000 * (1 - rule.mostly))
    if not rule.rule.startswith(OWN_RULE_PREFIX):
        return tolerated(broken_per_mille)
    kept = f"at least {1000 - broken_per_mille:,} of 1,000" if broken_per_mille else "all"
    return f"{_wanted(rule)}, in {kept}"


def found_words(rule: QualityRule, broken: int, looked_at: int) -> str:
    """What was found of a rule about records: `broken` of the `looked_at` that say something."""
    if not broken:
        return f"none of {looked_at:,}"
    if rule.rule.startswith(OWN_RULE_PREFIX):
        return f"otherwise in {broken:,} of {looked_at:,}"
    per_mille = 1000 * broken / looked_at
    share = f", {per_mille:,.0f} of 1,000" if rule.mostly < 1 and per_mille >= 1 else ""
    return f"{broken:,} of {looked_at:,}{share}"


def counted_words(rule: QualityRule, number: int | None) -> str:
    """What was found of a rule about the whole set: `number` is None where nothing was measured."""
    column = rule.column or ""
    if rule.type == DISTINCT:
        return f"{number or 0:,} {_DIFFERENT.get(column, 'different')}"
    if column not in _MEASURES:
        return f"{number or 0:,} records"
    if number is None:
        return "no label" if column == "majority_per_mille" else "nothing to compare with"
    return _measured(column, number)


def _wanted(rule: QualityRule) -> str:
    named = WORDS_OF_COLUMNS.get(rule.column or "", rule.column or "")
    if rule.type == BETWEEN:
        return f"{named} of {_between(rule)} characters"
    if rule.type == IN_SET:
        return f"{named}: {' or '.join(value_words(value) for value in rule.value_set or ())}"
    return f"{named} stated"


def value_words(value: object) -> str:
    """A value of the findings as people say it; what cannot be printed is left out."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "".join(letter for letter in str(value) if letter.isprintable())[:80]


def _between(rule: QualityRule) -> str:
    low, high = rule.min_value, rule.max_value
    if low is None or low == high:
        return f"at most {high:,}"
    return f"{low:,} or more" if high is None else f"{low:,} to {high:,}"


def _of_measure(rule: QualityRule) -> str:
    if rule.type == NOT_NULL:
        return "labels in some records"
    return f"at most {_measured(rule.column or '', rule.max_value or 0)}"


def _measured(column: str, number: int) -> str:
    if column == "psi_thousandths":
        return f"{number / 1000:.3f}"
    return f"{number:,} of 1,000 labelled records"
