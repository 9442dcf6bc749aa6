"""Contract rules as Great Expectations; nothing else imports that library.

It runs in the database that holds the findings, through its own SQL engine: SQLite on one machine,
a warehouse where the data outgrow it. The table holds no text, the result format is BOOLEAN_ONLY,
and of the results only success is read: observed values, exception texts and metadata stay unread,
because each of them can carry a value. Counts are taken in SQL (`counts`) and small cells are
suppressed, so an outcome is fit to leave the silo.

Importing this module takes several seconds; callers import it when they need it.
"""

import logging
import os

os.environ["GX_ANALYTICS_ENABLED"] = "false"

from collections.abc import Sequence
from typing import Any

import great_expectations as gx
import sqlalchemy as sa
from great_expectations.expectations.registry import get_expectation_impl

from data_contracts.dataset.contract import DataContract
from data_contracts.dataset.contract.quality_rules import QualityRule
from data_contracts.dataset.findings.columns import TABLE
from data_contracts.dataset.small_cells import reported_total, reported_unexpected
from data_contracts.dataset.suite.built_in_rules import OF_RECORDS, suites_of
from data_contracts.dataset.suite.counts import broken_counts
from data_contracts.errors import DataStewardError
from data_contracts.protocol.records.verdict import RuleOutcome

for _name in ("great_expectations", "great_expectations.datasource.fluent"):
    logging.getLogger(_name).setLevel(logging.WARNING)

Rules = Sequence[QualityRule]


def evaluate(contract: DataContract, database: str) -> tuple[RuleOutcome, ...]:
    """Outcome of every rule on the findings in `database` (an SQLAlchemy URL), in a stable order.

    Raises DataStewardError when a rule of the contract cannot be evaluated at all.
    """
    context = _context()
    engine = sa.create_engine(database)
    try:
        with engine.connect() as connection:
            return tuple(
                outcome
                for table, rules in suites_of(contract).items()
                for outcome in _outcomes(context, connection, database, table, rules)
            )
    finally:
        engine.dispose()


def _context() -> Any:
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    return context


def _batch_definition(context: Any, database: str, table: str) -> Any:
    if database.startswith("sqlite"):
        source = context.data_sources.add_sqlite(table, connection_string=database)
    elif database.startswith("postgresql"):
        source = context.data_sources.add_postgres(table, connection_string=database)
    else:
        source = context.data_sources.add_sql(table, connection_string=database)
    return source.add_table_asset(table, table_name=table).add_batch_definition_whole_table("all")


def _suite(table: str, rules: Rules) -> Any:
    """One expectation for each question: the library drops the second of two equal ones."""
    suite = gx.ExpectationSuite(name=table)
    for rule in {_question(rule): rule for rule in rules}.values():
        suite.add_expectation(_expectation(rule))
    return suite


def _question(rule: QualityRule) -> QualityRule:
    """What a rule asks, whatever it is called and however much it matters."""
    return rule.model_copy(update={"rule": "question", "severity": "critical"})


def _expectation(rule: QualityRule) -> Any:
    stated = rule.model_dump(include={"column", "min_value", "max_value", "value_set"})
    arguments = {name: value for name, value in stated.items() if value is not None}
    if rule.type in OF_RECORDS:
        arguments["mostly"] = rule.mostly
    if rule.value_set is not None:
        arguments["value_set"] = list(rule.value_set)
    return get_expectation_impl(rule.type)(**arguments, meta={"rule": rule.rule})


def _outcomes(
    context: Any, connection: sa.Connection, database: str, table: str, rules: Rules
) -> list[RuleOutcome]:
    successes = _successes(context, database, table, rules)
    reflected = sa.Table(table, sa.MetaData(), autoload_with=connection)
    total, broken = broken_counts(connection, reflected, rules)
    # The summary is one row about everybody: its counts would only say that it exists.
    counted = table == TABLE
    return [
        RuleOutcome(
            rule=rule.rule,
            type=rule.type,
            success=successes[rule.rule],
            severity=rule.severity,
            element_count=reported_total(total) if counted else 0,
            unexpected_count=reported_unexpected(count, total) if counted else None,
            **(rule.limits if counted else {"at_most": rule.max_value}),
        )
        for rule, count in zip(rules, broken, strict=True)
    ]


def _successes(context: Any, database: str, table: str, rules: Rules) -> dict[str, bool]:
    batch = _batch_definition(context, database, table).get_batch()
    result = batch.validate(_suite(table, rules), result_format="BOOLEAN_ONLY")
    answers: dict[QualityRule, bool] = {}
    asked = {rule.rule: _question(rule) for rule in rules}
    for outcome in result.results:
        rule = outcome.expectation_config.meta["rule"]
        if _raised(outcome.exception_info):
            raise _not_evaluated(rule)
        answers[asked[rule]] = bool(outcome.success)
    return {rule: answers[question] for rule, question in asked.items()}


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
