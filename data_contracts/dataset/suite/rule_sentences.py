"""What every rule of a data contract asks, in words that a steward or a compliance officer reads.

`sentence` is the one place of these words: the steward's page, `silo-agent check` and whatever
shows a verdict take them from here. A sentence says what is so when the rule holds, so beside
"fails" it reads as what was asked for. It names no library, no column and no number: bounds stand
in the contract. Verdicts come from other institutions too, perhaps of a later version, so every id
and every type has a sentence, known or not.
"""

OWN_RULE_PREFIX = "contract."
"""Ids of the rules that a contract adds begin so, and that of one precondition."""

PRECONDITION = "precondition"
"""Type of what is asked before any record is looked at."""

_OF_RULES = {
    "contract.current": "The data contract has not expired.",
    "copyright.registries": "Every registry that the contract names is there and in force.",
    "data.available": "The data could be read, and did not change during the check.",
    "records.readable": "Every row of the data is a record that can be read.",
    "records.not_empty": "No text that a record cannot do without is empty.",
    "text.control_tokens": "No record spells a control token of a language model.",
    "records.minimum": "Enough records with different texts may be trained on.",
    "cohort.minimum": "The records that may be trained on are about enough different subjects.",
    "licence.allowed": "Every record has a licence that the contract lists and that permits the "
    "use.",
    "licence.count": "The data state no more different licences than a verdict can name.",
    "licence.claims_agree": "Every record has the licence that its package claims.",
    "licence.of_pictures": "Every picture has a licence that what lies beside it says of it.",
    "opt_out.none": "No record's owner has reserved text and data mining.",
    "opt_out.evidence": "For every record somebody looked for an opt-out, recently enough.",
    "copyright.overlap": "Records do not repeat passages of registered works.",
    "personal_data.limit": "Records hold no personal data of the kinds that the contract names.",
    "consent.given": "No record says that the person has not consented.",
    "duplicates.exact": "Few enough records have the very text of an earlier one.",
    "duplicates.near": "Few enough records have nearly the text of an earlier one.",
    "split.no_leakage": "Few enough training records share text or subject with held-out ones.",
    "split.both_present": "There are records to train on and records held out.",
    "images.allowed": "Every picture can be read, is on no list and scores within the limits.",
    "labels.present": "Records have labels.",
    "labels.balance": "No label has too large a share of the labelled records.",
    "drift.since_last_round": "The data are much like those of the last accepted round.",
}

_OF_TYPES = {
    "expect_table_row_count_to_be_between": "The number of records is within the contract's "
    "bounds.",
    "expect_column_values_to_be_between": "Lengths of questions or answers are within the "
    "contract's bounds.",
    "expect_column_values_to_be_in_set": "What is stated or found about records is among what the "
    "contract accepts.",
    "expect_column_values_to_not_be_null": "Records state what the contract wants stated.",
    "expect_column_unique_value_count_to_be_between": "The number of different subjects or texts "
    "is within the contract's bounds.",
}

_OF_ANY_OWN_RULE = "A rule that the institution's contract adds is kept."
_OF_ANY_RULE = "A rule of the data contract is kept."


def sentence(rule_id: str, type: str) -> str:  # noqa: A002
    """One sentence for a rule of a verdict: `rule_id` and `type` as its outcome states them.

    Preconditions and built-in rules are known by their id, a contract's own by their type. Never
    raises; the result repeats neither argument.
    """
    if rule_id.startswith(OWN_RULE_PREFIX) and type != PRECONDITION:
        return _OF_TYPES.get(type, _OF_ANY_OWN_RULE)
    return _OF_RULES.get(rule_id, _OF_ANY_RULE)


def tolerated(per_mille: int) -> str:
    """How many of the records may break a rule, in words."""
    return f"at most {per_mille:,} of 1,000" if per_mille else "none"
