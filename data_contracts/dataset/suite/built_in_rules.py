"""The rules that hold for every contract, whatever it says beyond them.

Each reads one column of the findings or of the summary; the contract's terms set the bounds.
`records.minimum` counts distinct texts and `cohort.minimum` distinct subjects, both among what may
be trained on, so neither repetitions nor refused records make a data set.
"""

from data_contracts.dataset.contract import DataContract
from data_contracts.dataset.contract.quality_rules import QualityRule
from data_contracts.dataset.contract.terms import DataTerms
from data_contracts.dataset.findings.columns import SUMMARY, TABLE

IN_SET = "expect_column_values_to_be_in_set"
BETWEEN = "expect_column_values_to_be_between"
NOT_NULL = "expect_column_values_to_not_be_null"
IS_NULL = "expect_column_values_to_be_null"
DISTINCT = "expect_column_unique_value_count_to_be_between"
OF_RECORDS = (IN_SET, BETWEEN, NOT_NULL, IS_NULL)
"""Types that ask every value of a column; the others ask for one number of the whole table."""


def suites_of(contract: DataContract) -> dict[str, tuple[QualityRule, ...]]:
    """Every rule by the table that it reads, built-in rules first."""
    return {
        TABLE: (*built_in_rules(contract), *contract.rules),
        SUMMARY: summary_rules(contract.terms),
    }


def built_in_rules(contract: DataContract) -> tuple[QualityRule, ...]:
    """The rules over the findings table, in the order in which they are reported."""
    terms = contract.terms
    rules = [
        _flag("records.readable", "readable", True),
        _flag("records.not_empty", "is_empty", False),
        # Told and no more: training takes such text as text.
        _flag("text.control_tokens", "has_control_tokens", False).model_copy(
            update={"severity": "warning"}
        ),
        _distinct("records.minimum", "usable_text", terms.minimum_records),
        _distinct("cohort.minimum", "usable_subject", terms.minimum_cohort),
        _flag("licence.allowed", "licence_allowed", True),
        _flag("opt_out.none", "opted_out", False),
        _flag("copyright.overlap", "copyright_hit", False, terms.copyright.max_records_per_mille),
        _flag(
            "personal_data.limit",
            "has_personal_data",
            False,
            terms.personal_data.max_records_per_mille,
        ),
        _flag("consent.given", "consent", True),
        _flag("duplicates.exact", "is_duplicate", False, terms.duplicates.max_exact_per_mille),
        _flag("duplicates.near", "is_near_duplicate", False, terms.duplicates.max_near_per_mille),
        _flag("split.no_leakage", "leaks", False, terms.duplicates.max_leaking_per_mille),
        _distinct("split.both_present", "usable_split", 2),
    ]
    return (*rules, *_rules_of_terms(contract))


def summary_rules(terms: DataTerms) -> tuple[QualityRule, ...]:
    """The rules over the one row about the whole set."""
    drift = terms.drift.max_psi_thousandths
    rules = [_at_most("drift.since_last_round", "psi_thousandths", drift)]
    if terms.balance is not None:
        most = terms.balance.max_majority_per_mille
        rules.append(_present("labels.present", "majority_per_mille"))
        rules.append(_at_most("labels.balance", "majority_per_mille", most))
    return tuple(rules)


def _rules_of_terms(contract: DataContract) -> list[QualityRule]:
    """Rules that exist only where the contract's terms or data ask for them."""
    terms, rules = contract.terms, []
    if terms.package_licence is not None:
        rules.append(_flag("licence.claims_agree", "licence_agrees", True))
    if terms.opt_out.evidence_required:
        rules.append(_flag("opt_out.evidence", "opt_out_evidence", True))
    if contract.source.format == "image-text":
        rules.append(_absent("licence.of_pictures", "licence_contradicted"))
        rules.append(_absent("images.allowed", "image_refused"))
    return rules


def _flag(rule: str, column: str, wanted: bool, broken_per_mille: int = 0) -> QualityRule:
    return QualityRule(
        rule=rule,
        type=IN_SET,
        column=column,
        value_set=(wanted,),
        mostly=(1000 - broken_per_mille) / 1000,
    )


def _distinct(rule: str, column: str, at_least: int) -> QualityRule:
    return QualityRule(rule=rule, type=DISTINCT, column=column, min_value=at_least)


def _at_most(rule: str, column: str, bound: int) -> QualityRule:
    return QualityRule(rule=rule, type=BETWEEN, column=column, min_value=0, max_value=bound)


def _absent(rule: str, column: str) -> QualityRule:
    return QualityRule(rule=rule, type=IS_NULL, column=column)


def _present(rule: str, column: str) -> QualityRule:
    return QualityRule(rule=rule, type=NOT_NULL, column=column)
