"""Contract rules as Great Expectations; nothing else imports that library.

It runs on the findings table, which holds no text, with result format BOOLEAN_ONLY, and of its
results only success is read: its observed values, exception texts and metadata stay unread,
because each of them can carry a value. Counts are taken from the table here and small cells are
suppressed, so an outcome is fit to leave the silo.

Importing this module takes several seconds; callers import it when they need it.
"""

import logging
import os

os.environ["GX_ANALYTICS_ENABLED"] = "false"

from typing import Any

import great_expectations as gx
import pandas as pd
from great_expectations.expectations.registry import get_expectation_impl

from data_contracts.dataset.contract import DataContract
from data_contracts.dataset.quality_rules import QualityRule
from data_contracts.dataset.small_cells import reported_total, reported_unexpected
from data_contracts.errors import DataStewardError
from data_contracts.records.verdict import RuleOutcome

logging.getLogger("great_expectations").setLevel(logging.WARNING)

_IN_SET = "expect_column_values_to_be_in_set"
_BETWEEN = "expect_column_values_to_be_between"
_NOT_NULL = "expect_column_values_to_not_be_null"
_DISTINCT = "expect_column_unique_value_count_to_be_between"


def built_in_rules(contract: DataContract) -> tuple[QualityRule, ...]:
    """The rules that hold for every contract, whatever it says beyond them."""
    return (
        QualityRule(rule="records.readable", type=_IN_SET, column="readable", value_set=(True,)),
        QualityRule(rule="records.not_empty", type=_IN_SET, column="is_empty", value_set=(False,)),
        QualityRule(
            rule="records.minimum",
            type=_DISTINCT,
            column="text_digest",
            min_value=contract.minimum_records,
        ),
        QualityRule(
            rule="cohort.minimum",
            type=_DISTINCT,
            column="subject_id",
            min_value=contract.minimum_cohort,
        ),
        QualityRule(
            rule="licence.allowed", type=_IN_SET, column="licence_allowed", value_set=(True,)
        ),
        QualityRule(rule="split.both_present", type=_DISTINCT, column="split", min_value=2),
    )


def evaluate(contract: DataContract, table: pd.DataFrame) -> tuple[RuleOutcome, ...]:
    """Outcome of every rule on a findings table, built-in rules first, in a stable order."""
    rules = (*built_in_rules(contract), *contract.rules)
    successes = _successes(rules, table)
    return tuple(_outcome(rule, successes[rule.rule], table) for rule in rules)


def _successes(rules: tuple[QualityRule, ...], table: pd.DataFrame) -> dict[str, bool]:
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    source = context.data_sources.add_pandas("findings")
    batch = (
        source.add_dataframe_asset("findings")
        .add_batch_definition_whole_dataframe("whole")
        .get_batch(batch_parameters={"dataframe": table})
    )
    suite = gx.ExpectationSuite(name="contract")
    for rule in rules:
        suite.add_expectation(_expectation(rule))
    result = batch.validate(suite, result_format="BOOLEAN_ONLY")
    successes: dict[str, bool] = {}
    for entry in result.results:
        rule_id = entry.expectation_config.meta["rule"]
        if _raised(entry.exception_info):
            raise _not_evaluated(rule_id)
        successes[rule_id] = bool(entry.success)
    return successes


def _expectation(rule: QualityRule) -> Any:
    stated = rule.model_dump(include={"column", "min_value", "max_value", "value_set"})
    arguments = {name: value for name, value in stated.items() if value is not None}
    if rule.type in (_IN_SET, _BETWEEN, _NOT_NULL):
        arguments["mostly"] = rule.mostly
    if rule.value_set is not None:
        arguments["value_set"] = list(rule.value_set)
    return get_expectation_impl(rule.type)(**arguments, meta={"rule": rule.rule})


def _outcome(rule: QualityRule, success: bool, table: pd.DataFrame) -> RuleOutcome:
    total = len(table)
    return RuleOutcome(
        rule=rule.rule,
        type=rule.type,
        success=success,
        severity=rule.severity,
        element_count=reported_total(total),
        unexpected_count=reported_unexpected(_unexpected(rule, table), total),
    )


def _unexpected(rule: QualityRule, table: pd.DataFrame) -> int:
    """Values that break the rule; 0 for a rule about the whole table. Absent values are skipped."""
    if rule.column is None or rule.type == _DISTINCT:
        return 0
    column = table[rule.column]
    if rule.type == _NOT_NULL:
        return int(column.isna().sum())
    values = column.dropna()
    if rule.type == _IN_SET:
        return int((~values.isin(list(rule.value_set or ()))).sum())
    broken = pd.Series(False, index=values.index)
    if rule.min_value is not None:
        broken |= values < rule.min_value
    if rule.max_value is not None:
        broken |= values > rule.max_value
    return int(broken.sum())


def _raised(exception_info: dict[str, Any]) -> bool:
    """The library gives one report, or one per metric."""
    if "raised_exception" in exception_info:
        return bool(exception_info["raised_exception"])
    return any(report.get("raised_exception") for report in exception_info.values())


def _not_evaluated(rule_id: str) -> DataStewardError:
    return DataStewardError(
        f"contract rule {rule_id}",
        expected="a rule that can be evaluated on the findings",
        found="an exception while evaluating it",
        action="correct or remove the rule in the contract",
    )
