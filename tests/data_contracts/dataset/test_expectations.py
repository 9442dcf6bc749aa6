"""Every allowed rule type against Great Expectations itself, with counts that agree."""

import os
from pathlib import Path

import pytest

from data_contracts.dataset.contract import DataContract
from data_contracts.dataset.expectations import evaluate
from data_contracts.dataset.findings import collect_findings
from data_contracts.dataset.licence import LicencePolicy
from data_contracts.dataset.quality_rules import QualityRule, checked_rule
from data_contracts.dataset.records import read_records
from data_contracts.records.verdict import RuleOutcome
from tests.data_contracts.dataset.contract_samples import (
    sample_contract,
    sample_record,
    sample_records,
    write_lines,
)


def outcomes_of(
    path: Path, contract: DataContract | None = None, rules: tuple[QualityRule, ...] = ()
) -> dict[str, RuleOutcome]:
    contract = contract or sample_contract()
    contract = contract.model_copy(update={"rules": (*contract.rules, *rules)})
    findings = collect_findings(read_records(path), b"k" * 32, LicencePolicy(contract.licences))
    return {outcome.rule: outcome for outcome in evaluate(contract, findings.table)}


def test_good_data_passes_every_rule(tmp_path: Path) -> None:
    outcomes = outcomes_of(write_lines(tmp_path / "d.jsonl", sample_records()))
    assert list(outcomes) == [
        "records.readable",
        "records.not_empty",
        "records.minimum",
        "cohort.minimum",
        "licence.allowed",
        "split.both_present",
        "contract.answer-length",
    ]
    assert all(outcome.success for outcome in outcomes.values())
    assert {outcome.element_count for outcome in outcomes.values()} == {40}
    assert {outcome.unexpected_count for outcome in outcomes.values()} == {0}


def test_importing_turns_analytics_off() -> None:
    assert os.environ["GX_ANALYTICS_ENABLED"] == "false"


@pytest.mark.parametrize(
    ("broken", "count"), [(1, None), (9, None), (10, 10), (25, 25), (35, None), (40, 40)]
)
def test_disallowed_licences_are_counted_with_small_cells_hidden(
    tmp_path: Path, broken: int, count: int | None
) -> None:
    records = [sample_record(n, licence="GPL-3.0-only" if n < broken else "MIT") for n in range(40)]
    outcome = outcomes_of(write_lines(tmp_path / "d.jsonl", records))["licence.allowed"]
    assert not outcome.success
    assert outcome.unexpected_count == count


def test_missing_licence_fails(tmp_path: Path) -> None:
    records = [*sample_records(), sample_record(99, licence=None)]
    outcomes = outcomes_of(write_lines(tmp_path / "d.jsonl", records))
    assert [rule for rule, outcome in outcomes.items() if not outcome.success] == [
        "licence.allowed"
    ]


def test_too_few_records_and_subjects_fail(tmp_path: Path) -> None:
    few = outcomes_of(write_lines(tmp_path / "d.jsonl", sample_records(19)))
    assert [rule for rule, outcome in few.items() if not outcome.success] == ["records.minimum"]
    one_subject = [sample_record(n, subject="the same") for n in range(40)]
    cohort = outcomes_of(write_lines(tmp_path / "d.jsonl", one_subject))
    assert [rule for rule, o in cohort.items() if not o.success] == ["cohort.minimum"]


def test_repeating_one_record_does_not_make_a_data_set(tmp_path: Path) -> None:
    records = [sample_record(n, prompt="same", answer="same") for n in range(40)]
    assert not outcomes_of(write_lines(tmp_path / "d.jsonl", records))["records.minimum"].success


def test_empty_data_fails_by_rule(tmp_path: Path) -> None:
    outcomes = outcomes_of(write_lines(tmp_path / "d.jsonl", []))
    assert not outcomes["records.minimum"].success
    assert not outcomes["cohort.minimum"].success
    assert outcomes["records.minimum"].element_count == 0


@pytest.mark.parametrize(
    ("implementation", "success", "count"),
    [
        (("expect_table_row_count_to_be_between", {"min_value": 40, "max_value": 40}), True, 0),
        (("expect_table_row_count_to_be_between", {"max_value": 39}), False, 0),
        (
            ("expect_column_values_to_be_between", {"column": "answer_characters", "max_value": 3}),
            False,
            40,
        ),
        (
            (
                "expect_column_values_to_be_between",
                {"column": "prompt_characters", "min_value": 18, "mostly": 0.5},
            ),
            True,
            10,
        ),
        (
            (
                "expect_column_values_to_be_in_set",
                {"column": "licence", "value_set": ["MIT", "ISC"]},
            ),
            True,
            0,
        ),
        (
            ("expect_column_values_to_be_in_set", {"column": "readable", "value_set": [False]}),
            False,
            40,
        ),
        (("expect_column_values_to_not_be_null", {"column": "subject_id"}), True, 0),
        (
            (
                "expect_column_unique_value_count_to_be_between",
                {"column": "subject_id", "min_value": 41},
            ),
            False,
            0,
        ),
    ],
)
def test_contract_rules_of_every_type(
    tmp_path: Path, implementation: tuple[str, dict[str, object]], success: bool, count: int
) -> None:
    kind, kwargs = implementation
    rule = checked_rule("contract.it", "warning", {"type": kind, "kwargs": kwargs})
    path = write_lines(tmp_path / "d.jsonl", sample_records())
    outcome = outcomes_of(path, rules=(rule,))["contract.it"]
    assert (outcome.success, outcome.unexpected_count) == (success, count)
    assert (outcome.type, outcome.severity) == (kind, "warning")
