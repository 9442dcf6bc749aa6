"""What a contract file may say, and where the error points when it says something else."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from data_contracts.dataset.contract import load_contract, parse_contract
from data_contracts.dataset.contract.terms import DEFAULT_MINIMUM_COHORT
from data_contracts.errors import DataStewardError
from data_contracts.protocol.artifact import digest_of_bytes
from tests.data_contracts.dataset.contract_samples import CONTRACT, replaced, sample_contract

NO_COHORT = ("  - property: fl.minimumCohort\n    value: 12\n", "")
BOUND = "            max_value: 500\n"


def test_contract_is_read_into_one_value(tmp_path: Path) -> None:
    path = tmp_path / "contract.yaml"
    path.write_text(CONTRACT)
    contract = load_contract(path)
    assert contract.digest == digest_of_bytes(CONTRACT.encode())
    assert contract.purposes == ("Question answering", "Summaries")
    terms = contract.terms
    assert terms.licences == ("LicenseRef-Own", "MIT")
    assert terms.duo_codes == ("DUO:0000042",)
    assert (terms.minimum_records, terms.minimum_cohort) == (20, 12)
    assert (contract.source.format, contract.source.path) == ("jsonl", "sets/records.jsonl")
    assert terms.expires == datetime(2030, 1, 1, tzinfo=UTC)
    assert [rule.rule for rule in contract.rules] == ["contract.answer-length"]
    assert contract.is_current(datetime(2029, 12, 31, tzinfo=UTC))
    assert not contract.is_current(datetime(2030, 1, 1, tzinfo=UTC))


def test_minimum_cohort_has_a_default() -> None:
    assert sample_contract(NO_COHORT).terms.minimum_cohort == DEFAULT_MINIMUM_COHORT


def test_expiry_may_be_written_without_quotes() -> None:
    contract = sample_contract(('"2030-01-01T00:00:00Z"', "2030-01-01T00:00:00Z"))
    assert contract.terms.expires == datetime(2030, 1, 1, tzinfo=UTC)


def test_a_vendor_keeps_its_own_properties() -> None:
    extra = CONTRACT + "  - {property: other, value: 1, vendor: soda}\n"
    assert parse_contract(extra.encode(), "c").id == "sample"


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ("id: sample", "idd: sample", "idd"),
        ("  purpose: |", "  purpse: x\n  purpose: |", "description.purpse"),
        ("    format: jsonl", "    format: jsonl\n    pth: x", "servers[0].pth"),
        ("severity: critical", "severty: critical", "schema[0].quality[0].severty"),
        (
            "{name: subject, logicalType: string}",
            "{name: subject, logicalTyp: string}",
            "schema[0].properties[1].logicalTyp",
        ),
        ("fl.minimumCohort", "fl.minimumCohorts", "customProperties[fl.minimumCohorts]"),
        (BOUND, BOUND + "            mostlyy: 1\n", "implementation.kwargs.mostlyy"),
        ("          kwargs:", "          args: {}\n          kwargs:", "implementation.args"),
    ],
)
def test_unknown_key_is_refused_with_its_path(old: str, new: str, path: str) -> None:
    with pytest.raises(DataStewardError) as error:
        parse_contract(replaced((old, new)).encode(), "clinic.yaml")
    assert "clinic.yaml" in error.value.problem
    assert error.value.problem.endswith(path)
    assert "unknown key" in error.value.found


@pytest.mark.parametrize(
    "path", ["../x.jsonl", "/etc/passwd", "a/../../x", "''", "'a\\b'", "'*.jsonl'", ".", "'C:x'"]
)
def test_data_path_cannot_escape(path: str) -> None:
    text = replaced(("path: sets/records.jsonl", f"path: {path}"))
    with pytest.raises(DataStewardError, match=r"servers\[0\]\.path: expected a file relative"):
        parse_contract(text.encode(), "c.yaml")


@pytest.mark.parametrize(
    ("argument", "name"),
    [
        ("row_condition: subject_id == 'x'", "row_condition"),
        ("condition_parser: pandas", "condition_parser"),
        ("result_format: COMPLETE", "result_format"),
        ("regex: '(a+)+'", "regex"),
    ],
)
def test_a_rule_cannot_select_rows(argument: str, name: str) -> None:
    text = replaced((BOUND, BOUND + f"            {argument}\n"))
    with pytest.raises(DataStewardError) as error:
        parse_contract(text.encode(), "c.yaml")
    assert error.value.problem.endswith(f"schema[0].quality[0].implementation.kwargs.{name}")


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ("expect_column_values_to_be_between", "unexpected_rows_expectation", "type"),
        ("expect_column_values_to_be_between", "expect_column_values_to_match_regex", "type"),
        ("column: answer_characters", "column: subject_id", "kwargs.column"),
        (BOUND, "            max_value: '500'\n", "kwargs.max_value"),
        (BOUND, "            max_value: true\n", "kwargs.max_value"),
        (BOUND, "            max_value: 10\n            min_value: 20\n", "kwargs.min_value"),
        (BOUND, "            max_value: 500\n            min_value: 500\n", "kwargs"),
        (BOUND, "            max_value: 505\n", "kwargs.max_value"),
        (BOUND, BOUND + "            mostly: 0.995\n", "kwargs.mostly"),
        (BOUND, BOUND + "            mostly: 1.5\n", "kwargs.mostly"),
        (BOUND, "", "kwargs"),
    ],
)
def test_rules_are_on_an_allow_list(old: str, new: str, path: str) -> None:
    with pytest.raises(DataStewardError) as error:
        parse_contract(replaced((old, new)).encode(), "c.yaml")
    assert error.value.problem.endswith(f"schema[0].quality[0].implementation.{path}")


def test_sql_and_library_rules_are_refused() -> None:
    custom = "        type: custom\n        engine: great-expectations\n"
    for other in ("        type: text\n", "        type: sql\n        query: select 1\n"):
        with pytest.raises(DataStewardError, match=r"schema\[0\]\.quality\[0\]"):
            parse_contract(replaced((custom, other)).encode(), "c.yaml")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("[MIT, LicenseRef-Own]", "[MIT, Proprietary]", r"\[fl.licences\]\[1\]: expected a lic"),
        ("[MIT, LicenseRef-Own]", "[NOASSERTION]", r"\[fl.licences\]\[0\]: expected a licence"),
        ("[MIT, LicenseRef-Own]", "[]", r"\[fl.licences\]: expected"),
        ("value: 12", "value: 1", r"\[fl.minimumCohort\]: expected"),
        ("value: 20", "value: 020", r"\[fl.minimumRecords\]: expected"),
        ("value: 20", "value: .nan", r"\[fl.minimumRecords\]: expected"),
        ("DUO:0000042", "DUO:42", r"\[fl.duoCodes\]\[0\]: expected"),
        ("2030-01-01T00:00:00Z", "2030-01-01", r"\[fl.expires\]: expected"),
        ("fl.expires", "fl.licences", r"\[fl.licences\]: expected the property once"),
        ("v3.2.0", "v3.1.0", "apiVersion: expected v3.2.0; found 'v3.1.0'"),
        ("    path: sets", "    pfad: sets", r"servers\[0\]"),
        ("type: local", "type: s3", r"servers\[0\]"),
        ("name: source", "name: sauce", r"schema\[0\].properties\[5\].name: expected one of id,"),
        ("    Question answering\n    Summaries\n", "", "description.purpose: expected 1 to 20"),
        (
            "    logicalType: object",
            "    logicalType: object\n    customProperties: [{property: fl.expires, value: x}]",
            r"schema\[0\].customProperties\[0\].property: expected fl\.\* at the top level",
        ),
    ],
)
def test_unusable_values_are_refused(old: str, new: str, expected: str) -> None:
    with pytest.raises(DataStewardError, match=expected):
        parse_contract(replaced((old, new)).encode(), "c.yaml")


@pytest.mark.parametrize(
    "term", ["fl.licences", "fl.minimumRecords", "fl.expires"], ids=lambda term: term[3:]
)
def test_terms_that_must_be_stated(term: str) -> None:
    lines = CONTRACT.splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if term in line)
    text = "".join(lines[:at] + lines[at + 2 :])
    with pytest.raises(DataStewardError, match=r"customProperties\[" + term):
        parse_contract(text.encode(), "c.yaml")


def test_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataStewardError, match=r"none\.yaml: expected a readable contract file"):
        load_contract(tmp_path / "none.yaml")
