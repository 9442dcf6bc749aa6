"""Every rule type against Great Expectations itself, on SQLite and on a real PostgreSQL."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from data_contracts.dataset.contract import DataContract
from data_contracts.dataset.contract.quality_rules import ALLOWED_TYPES, QualityRule, checked_rule
from data_contracts.dataset.findings.columns import SUMMARY, TABLE
from data_contracts.dataset.suite.built_in_rules import suites_of
from data_contracts.dataset.suite.expectations import evaluate
from data_contracts.dataset.suite.required_rules import REQUIRED_RULES
from data_contracts.protocol.records.verdict import RuleOutcome
from tests.data_contracts.dataset.contract_samples import (
    sample_contract,
    sample_record,
    sample_records,
    write_lines,
)
from tests.data_contracts.dataset.findings_samples import look

FILE = Path("sets/records.jsonl")
COUNT = "expect_table_row_count_to_be_between"
LENGTH = "expect_column_values_to_be_between"
IN_SET = "expect_column_values_to_be_in_set"
PRESENT = "expect_column_values_to_not_be_null"
DISTINCT = "expect_column_unique_value_count_to_be_between"


def outcomes_of(
    root: Path, contract: DataContract | None = None, rules: tuple[QualityRule, ...] = ()
) -> dict[str, RuleOutcome]:
    contract = contract or sample_contract()
    contract = contract.model_copy(update={"rules": (*contract.rules, *rules)})
    return look(root, contract).outcomes()


def test_good_data_passes_every_rule(tmp_path: Path) -> None:
    write_lines(tmp_path / FILE, sample_records())
    outcomes = outcomes_of(tmp_path)
    assert all(outcome.success for outcome in outcomes.values())
    assert {*outcomes, "contract.current", "data.available"} >= REQUIRED_RULES
    assert list(outcomes)[-2:] == ["contract.answer-length", "drift.since_last_round"]
    counted = [o for rule, o in outcomes.items() if rule != "drift.since_last_round"]
    assert {outcome.element_count for outcome in counted} == {40}
    assert {outcome.unexpected_count for outcome in counted} == {0}


def test_importing_turns_analytics_off() -> None:
    assert os.environ["GX_ANALYTICS_ENABLED"] == "false"


@pytest.mark.parametrize(
    ("broken", "count"), [(1, None), (9, None), (10, 10), (35, None), (40, 40)]
)
def test_disallowed_licences_are_counted_with_small_cells_hidden(
    tmp_path: Path, broken: int, count: int | None
) -> None:
    records = [sample_record(n, licence="GPL-3.0-only" if n < broken else "MIT") for n in range(40)]
    write_lines(tmp_path / FILE, records)
    outcome = outcomes_of(tmp_path)["licence.allowed"]
    assert not outcome.success
    assert outcome.unexpected_count == count


@pytest.mark.parametrize(
    ("records", "rule"),
    [
        ([*sample_records(), sample_record(99, licence=None)], "licence.allowed"),
        (sample_records(19), "records.minimum"),
        ([sample_record(n, subject=f"s{n % 11}") for n in range(40)], "cohort.minimum"),
        ([*sample_records(), sample_record(99, answer=" ")], "records.not_empty"),
        ([*sample_records(), *sample_records(9)], "duplicates.exact"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_violation_fails_its_rule_and_no_other(
    tmp_path: Path, records: list[dict[str, object]], rule: str
) -> None:
    write_lines(tmp_path / FILE, records)
    failing = [name for name, outcome in outcomes_of(tmp_path).items() if not outcome.success]
    assert failing == [rule]


def test_empty_data_fails_by_rule(tmp_path: Path) -> None:
    write_lines(tmp_path / FILE, [])
    outcomes = outcomes_of(tmp_path)
    assert not outcomes["records.minimum"].success
    assert not outcomes["cohort.minimum"].success
    assert outcomes["records.minimum"].element_count == 0


RULES: tuple[tuple[str, dict[str, object], bool, int], ...] = (
    (COUNT, {"min_value": 40, "max_value": 50}, True, 0),
    (COUNT, {"max_value": 30}, False, 0),
    (LENGTH, {"column": "answer_characters", "max_value": 10}, False, 40),
    (LENGTH, {"column": "prompt_characters", "min_value": 10, "mostly": 0.5}, True, 0),
    (LENGTH, {"column": "prompt_characters", "max_value": 10, "mostly": 0.5}, False, 40),
    (IN_SET, {"column": "licence", "value_set": ["MIT", "ISC"]}, True, 0),
    (IN_SET, {"column": "readable", "value_set": [False]}, False, 40),
    (IN_SET, {"column": "split", "value_set": ["train", "heldout"]}, True, 0),
    (PRESENT, {"column": "subject_id"}, True, 0),
    (PRESENT, {"column": "language", "mostly": 0.5}, False, 40),
    (DISTINCT, {"column": "subject_id", "min_value": 50}, False, 0),
    (DISTINCT, {"column": "text_digest", "min_value": 40, "max_value": 50}, True, 0),
)


def contract_with(rules: tuple[tuple[str, dict[str, object], bool, int], ...]) -> DataContract:
    made = tuple(
        checked_rule(f"contract.r{n}", "warning", {"type": kind, "kwargs": kwargs})
        for n, (kind, kwargs, _, _) in enumerate(rules)
    )
    return sample_contract().model_copy(update={"rules": made})


def in_postgresql(findings: Path, url: str) -> str:
    """The findings tables in the PostgreSQL at `url`, as a silo's warehouse would hold them."""
    engine = sa.create_engine(url)
    for table in (TABLE, SUMMARY):
        with sqlite3.connect(findings) as lite:
            lite.row_factory = sqlite3.Row
            columns = lite.execute(f"PRAGMA table_info({table})").fetchall()
            rows = [dict(row) for row in lite.execute(f"SELECT * FROM {table}")]  # noqa: S608
        kinds = {"INTEGER": sa.BigInteger, "BOOLEAN": sa.Boolean, "TEXT": sa.Text}
        made = sa.Table(
            table, sa.MetaData(), *(sa.Column(c["name"], kinds[c["type"]]()) for c in columns)
        )
        flags = {c["name"] for c in columns if c["type"] == "BOOLEAN"}
        typed = [
            {k: bool(v) if k in flags and v is not None else v for k, v in row.items()}
            for row in rows
        ]
        with engine.begin() as connection:
            made.drop(connection, checkfirst=True)
            made.create(connection)
            connection.execute(made.insert(), typed)
    engine.dispose()
    return url


def on_sqlite(findings: Path, request: pytest.FixtureRequest) -> str:
    return f"sqlite:///{findings}"


def on_postgresql(findings: Path, request: pytest.FixtureRequest) -> str:
    return in_postgresql(findings, request.getfixturevalue("postgresql_url"))


@pytest.mark.long
@pytest.mark.parametrize("place", [on_sqlite, on_postgresql])
def test_rules_of_every_type_in_every_database(
    tmp_path: Path,
    place: Callable[[Path, pytest.FixtureRequest], str],
    request: pytest.FixtureRequest,
) -> None:
    """The same suite, the same outcomes: on one machine, and where the data outgrow it."""
    assert {kind for kind, _, _, _ in RULES} == set(ALLOWED_TYPES)
    write_lines(tmp_path / FILE, sample_records())
    contract = contract_with(RULES)
    url = place(look(tmp_path, contract).findings.path, request)
    found = {outcome.rule: outcome for outcome in evaluate(contract, url)}
    for n, (kind, kwargs, success, count) in enumerate(RULES):
        outcome = found[f"contract.r{n}"]
        assert (outcome.success, outcome.unexpected_count) == (success, count), (kind, kwargs)
        assert (outcome.type, outcome.severity) == (kind, "warning")
    assert [rule for rule, o in found.items() if not o.success and o.severity == "critical"] == []


def test_every_rule_has_a_name_of_its_own() -> None:
    rules = [rule.rule for suite in suites_of(sample_contract()).values() for rule in suite]
    assert len(set(rules)) == len(rules)
