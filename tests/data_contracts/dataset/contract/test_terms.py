"""The federation's terms: every policy, its default, and where an error points."""

from collections.abc import Iterator
from decimal import Decimal

import pytest

from data_contracts.dataset.contract import parse_contract
from data_contracts.dataset.contract.terms import EGRESS
from data_contracts.dataset.personal_data.kinds import DEFAULT_KINDS
from data_contracts.errors import DataStewardError
from tests.data_contracts.dataset.contract_samples import CONTRACT, sample_contract

SIGNER = "a" * 64
TERMS = f"""\
  - property: fl.uses
    value: [research, commercial]
  - property: fl.attestations
    value: [{{of: "DUO:0000021", by: "Ethics board", on: "2026-01-01T00:00:00Z"}}]
  - property: fl.copyright
    value:
      registries: [{{name: press, signer: {SIGNER}}}]
      maxCoveragePerMille: 50
      maxRecordsPerMille: 1
  - property: fl.optOut
    value: {{evidenceRequired: true, maxAgeDays: 90}}
  - property: fl.personalData
    value: {{kinds: [email_address, phone_number], maxRecordsPerMille: 2}}
  - property: fl.balance
    value: {{maxMajorityPerMille: 800}}
  - property: fl.drift
    value: {{maxPsiThousandths: 100}}
  - property: fl.images
    value: {{registry: known, maxHammingDistance: 20, maxUnsafePerMille: 5}}
  - property: fl.retention
    value: {{days: 7}}
  - property: fl.egress
    value: {{allow: [local-adapter, losses]}}
  - property: fl.packageLicence
    value: MIT
"""


def with_terms(terms: str) -> bytes:
    return (CONTRACT + terms).encode()


def term(name: str, value: str) -> bytes:
    return with_terms(f"  - property: {name}\n    value: {value}\n")


def test_defaults_refuse_more_rather_than_less() -> None:
    terms = sample_contract().terms
    assert terms.uses == ("research",)
    assert terms.copyright.max_records_per_mille == 0
    assert terms.personal_data.max_records_per_mille == 0
    assert set(terms.personal_data.kinds) == DEFAULT_KINDS
    assert terms.opt_out.evidence_required is False
    assert terms.egress.allow == EGRESS
    assert terms.balance is None


def test_every_policy_is_read() -> None:
    terms = parse_contract(with_terms(TERMS), "c.yaml").terms
    assert terms.uses == ("research", "commercial")
    assert terms.attested() == {"DUO:0000021"}
    assert terms.copyright.registries[0].signer == SIGNER
    assert terms.copyright.max_coverage_per_mille == 50
    assert terms.opt_out.max_age_days == 90
    assert terms.personal_data.kinds == ("email_address", "phone_number")
    assert terms.balance is not None
    assert terms.balance.max_majority_per_mille == 800
    assert terms.images.registry == "known"
    assert terms.retention.days == 7
    assert terms.egress.allow == ("local-adapter", "losses")
    assert terms.package_licence == "MIT"
    assert terms.licence_terms[0].terms().licence == "LicenseRef-Own"


PRIVACY = "{population: ward, unit: subject, epsilon: '8', delta: '0.00001'}"


def test_a_privacy_budget_is_read_as_written() -> None:
    budget = parse_contract(term("fl.privacy", PRIVACY), "c.yaml").terms.privacy
    assert budget is not None
    assert (budget.population, budget.unit) == ("ward", "subject")
    assert (budget.epsilon, budget.delta) == (Decimal("8"), Decimal("0.00001"))


@pytest.mark.parametrize(
    ("name", "value", "path"),
    [
        ("fl.copyright", "{registrys: []}", "[fl.copyright].registrys"),
        ("fl.copyright", "{registries: [{name: x}]}", "[fl.copyright].registries[0].signer"),
        (
            "fl.copyright",
            f"{{registries: [{{name: ../x, signer: {SIGNER}}}]}}",
            "[fl.copyright].registries[0].name",
        ),
        ("fl.optOut", "{maxAgeDays: 0}", "[fl.optOut].maxAgeDays"),
        ("fl.optOut", "{max_age_days: 3}", "[fl.optOut].max_age_days"),
        ("fl.personalData", "{kinds: [everything]}", "[fl.personalData].kinds[0]"),
        ("fl.personalData", "{kinds: []}", "[fl.personalData].kinds"),
        ("fl.personalData", "{maxRecordsPerMille: 1001}", "[fl.personalData].maxRecordsPerMille"),
        ("fl.personalData", "{maxRecordsPerMille: '1'}", "[fl.personalData].maxRecordsPerMille"),
        ("fl.personalData", "{maxRecordsPerMille: true}", "[fl.personalData].maxRecordsPerMille"),
        ("fl.personalData", "[]", "[fl.personalData]"),
        ("fl.egress", "{allow: [raw-records]}", "[fl.egress].allow[0]"),
        ("fl.privacy", PRIVACY.replace("'8'", "'0'"), "[fl.privacy].epsilon"),
        ("fl.privacy", PRIVACY.replace("'8'", "8"), "[fl.privacy].epsilon"),
        ("fl.privacy", PRIVACY.replace("'8'", "'1001'"), "[fl.privacy].epsilon"),
        ("fl.privacy", PRIVACY.replace("0.00001", "0"), "[fl.privacy].delta"),
        ("fl.privacy", PRIVACY.replace("0.00001", "0.5"), "[fl.privacy].delta"),
        ("fl.privacy", PRIVACY.replace("subject", "patient"), "[fl.privacy].unit"),
        ("fl.privacy", PRIVACY.replace("population: ward, ", ""), "[fl.privacy].population"),
        ("fl.egress", "{allow: []}", "[fl.egress].allow"),
        ("fl.retention", "{days: 99999}", "[fl.retention].days"),
        ("fl.uses", "[military]", "[fl.uses][0]"),
        ("fl.balance", "{}", "[fl.balance].maxMajorityPerMille"),
        ("fl.packageLicence", "Proprietary", "[fl.packageLicence][0]"),
        ("fl.duoCodes", '["DUO:9999999"]', "[fl.duoCodes]"),
    ],
)
def test_a_wrong_value_is_refused_with_its_path(name: str, value: str, path: str) -> None:
    with pytest.raises(DataStewardError) as error:
        parse_contract(term(name, value), "c.yaml")
    assert f"customProperties{path}" in error.value.problem or path in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ("id: sample", "id: sample\nstatus: draft", "status"),
        (
            "id: sample",
            "id: sample\nslaProperties: [{property: retention, value: 1}]",
            "slaProperties",
        ),
        (
            "{name: id, logicalType: string}",
            "{name: id, logicalType: string, unique: true}",
            "schema[0].properties[0].unique",
        ),
    ],
)
def test_a_promise_that_nobody_would_keep_is_refused(old: str, new: str, path: str) -> None:
    with pytest.raises(DataStewardError) as error:
        parse_contract(CONTRACT.replace(old, new, 1).encode(), "c.yaml")
    assert error.value.problem.endswith(f": {path}")


def test_a_term_of_another_vendor_is_no_way_to_switch_it_off() -> None:
    text = CONTRACT.replace("property: fl.expires", "vendor: acme\n    property: fl.expires")
    with pytest.raises(DataStewardError, match=r"expected fl\.\* without another vendor"):
        parse_contract(text.encode(), "c.yaml")


def test_a_long_table_name_is_refused_by_its_path() -> None:
    text = CONTRACT.replace(
        "    type: local\n    path: sets/records.jsonl\n    format: jsonl",
        "    type: custom\n    format: sql",
    ).replace("  - name: records", f"  - name: records\n    physicalName: {'t' * 64}")
    with pytest.raises(DataStewardError) as error:
        parse_contract(text.encode(), "c.yaml")
    assert error.value.problem.endswith("schema[0].physicalName")


def test_safe_harbor_needs_a_person_for_every_identifier() -> None:
    policy = "{safeHarbor: true}"
    with pytest.raises(DataStewardError, match="none of A, B, C, G, H") as error:
        parse_contract(term("fl.personalData", policy), "c.yaml")
    assert error.value.problem.endswith("customProperties[fl.attestations]")
    letters = "ABCDEFGHIJKLMNOPQR"
    vouched = ", ".join(f'{{of: {x}, by: B, on: "2026-01-01T00:00:00Z"}}' for x in letters)
    both = f"  - property: fl.attestations\n    value: [{vouched}]\n"
    contract = parse_contract(term("fl.personalData", policy) + both.encode(), "c.yaml")
    assert contract.terms.attested() == set(letters)


@pytest.mark.parametrize("taken", ["LicenseRef-Gemma-Terms", "LicenseRef-Own"])
def test_a_known_licence_cannot_be_given_other_terms(taken: str) -> None:
    start = CONTRACT.index("      - id: LicenseRef-Own\n")
    row = CONTRACT[start : CONTRACT.index("  - property: fl.duplicates")]
    text = CONTRACT.replace(row, row + row.replace("LicenseRef-Own", taken, 1))
    with pytest.raises(DataStewardError, match="expected an id that has no terms yet"):
        parse_contract(text.encode(), "c.yaml")


def test_a_missing_term_is_named() -> None:
    start = CONTRACT.index("  - property: fl.expires")
    with pytest.raises(DataStewardError, match="expected a value: it has no default; found noth"):
        parse_contract(CONTRACT[:start].encode(), "c.yaml")


def hostile_contracts() -> Iterator[tuple[str, bytes]]:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    yield "yaml bomb", bomb.encode()
    yield "deep nesting", b"a: " + b"[" * 5000
    yield "a tag that would build an object", b"a: !!python/object/apply:os.system [id]"
    yield "a million keys", b"".join(b"k%d: 1\n" % n for n in range(50_000))
    yield "two documents", CONTRACT.encode() + b"---\n" + CONTRACT.encode()
    yield "a duplicate key", CONTRACT.encode() + b"id: other\n"
    yield "not UTF-8", b"\xff\xfe" + CONTRACT.encode("utf-16-le")
    yield "a number as a key", b"1: x\n" + CONTRACT.encode()
    yield "a list where an object belongs", b"- x\n"
    yield "nothing", b""


@pytest.mark.parametrize(
    "data", [data for _, data in hostile_contracts()], ids=[name for name, _ in hostile_contracts()]
)
def test_a_hostile_file_is_refused_by_rule(data: bytes) -> None:
    with pytest.raises(DataStewardError):
        parse_contract(data, "hostile.yaml")


RULE = """\
      - id: answer-length
        type: custom
        engine: great-expectations
        severity: critical
        implementation:
"""


@pytest.mark.parametrize(
    ("implementation", "found"),
    [
        ("{type: expect_column_values_to_match_regex, kwargs: {regex: '(a+)+$'}}", "type"),
        ("{type: expect_column_values_to_match_like_pattern, kwargs: {}}", "type"),
        ("{type: unexpected_rows_expectation, kwargs: {unexpected_rows_query: select}}", "type"),
        ("{type: expect_query_results_to_match_comparison, kwargs: {}}", "type"),
        ("{type: [expect_column_values_to_be_in_set], kwargs: {}}", "type"),
        ("expect_column_values_to_be_in_set", "implementation"),
        ("{type: expect_column_values_to_not_be_null, kwargs: {column: [consent]}}", "column"),
        ("{type: expect_column_values_to_not_be_null, kwargs: {column: {a: b}}}", "column"),
        (
            "{type: expect_column_values_to_be_in_set, kwargs: {column: readable, "
            "value_set: [true], row_condition: subject_id==1}}",
            "row_condition",
        ),
        (
            "{type: expect_column_values_to_be_in_set, "
            "kwargs: {column: record_id, value_set: [x]}}",
            "column",
        ),
        (
            "{type: expect_column_values_to_be_in_set, kwargs: {column: label, value_set: [x]}}",
            "column",
        ),
        (
            "{type: expect_column_values_to_be_in_set, kwargs: {column: readable, "
            "value_set: ['true']}}",
            "value_set[0]",
        ),
        (
            "{type: expect_table_row_count_to_be_between, kwargs: {min_value: 41, max_value: 99}}",
            "min_value",
        ),
        (
            "{type: expect_table_row_count_to_be_between, kwargs: {min_value: 40, max_value: 40}}",
            "kwargs",
        ),
        (
            "{type: expect_column_unique_value_count_to_be_between, "
            "kwargs: {column: subject_id, max_value: 13}}",
            "max_value",
        ),
    ],
)
def test_a_rule_that_could_single_out_a_record_is_refused(implementation: str, found: str) -> None:
    start = CONTRACT.index(RULE)
    end = CONTRACT.index("customProperties:")
    text = CONTRACT[:start] + RULE.rstrip("\n") + f" {implementation}\n" + CONTRACT[end:]
    with pytest.raises(DataStewardError) as error:
        parse_contract(text.encode(), "c.yaml")
    assert found in error.value.problem


def test_a_series_of_rules_cannot_narrow_a_count_down() -> None:
    kwargs = "{type: expect_table_row_count_to_be_between, kwargs: {min_value: %d}}"
    rules = "".join(
        RULE.replace("answer-length", f"rows-{n}").rstrip("\n") + f" {kwargs % (10 * n)}\n"
        for n in (1, 2)
    )
    end = CONTRACT.index("customProperties:")
    with pytest.raises(DataStewardError, match="one rule for each type and column"):
        parse_contract((CONTRACT[:end] + rules + CONTRACT[end:]).encode(), "c.yaml")
