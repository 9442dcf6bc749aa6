"""What the silo itself is told of every rule: exact counts, limits in words, and rows."""

import re
from pathlib import Path
from typing import Any

import pytest

from data_contracts.dataset.contract import DataContract, parse_contract
from data_contracts.dataset.contract.quality_rules import checked_rule
from data_contracts.dataset.findings.store import sqlite_url
from data_contracts.dataset.suite.rule_details import (
    BrokenRow,
    RuleDetail,
    SetDetails,
    set_details,
)
from tests.data_contracts.dataset.contract_samples import (
    replaced,
    sample_contract,
    sample_record,
    sample_records,
    write_lines,
)
from tests.data_contracts.dataset.findings_samples import Looked, look

FILE = Path("sets/records.jsonl")
SOURCE = "      - {name: source, logicalType: string}\n"
Records = list[dict[str, Any] | bytes]


def with_fields(*fields: str, terms: str = "") -> DataContract:
    stated = "".join(f"      - {{name: {field}}}\n" for field in fields)
    stated = re.sub(r"name: (\w+):(\w+)", r"name: \1, logicalType: \2", stated)
    return parse_contract((replaced((SOURCE, SOURCE + stated)) + terms).encode(), "c.yaml")


def details_of(looked: Looked, most_rows: int = 20) -> SetDetails:
    return set_details(looked.contract, sqlite_url(looked.findings.path), most_rows)


def detail(looked: Looked, rule: str, most_rows: int = 20) -> RuleDetail:
    (found,) = [d for d in details_of(looked, most_rows).rules if d.rule == rule]
    return found


def test_every_rule_of_the_suite_has_details_in_its_order(tmp_path: Path) -> None:
    write_lines(tmp_path / FILE, sample_records())
    looked = look(tmp_path)
    details = details_of(looked)
    assert [d.rule for d in details.rules] == list(looked.outcomes())
    assert details.records == 40
    assert not any(d.broken or d.rows for d in details.rules)
    assert (details.repeated_ids, details.repeated_id_rows, details.keyed_ids) == (0, (), {})


@pytest.mark.parametrize("broken", [1, 9, 10, 39, 40])
def test_counts_are_exact_where_others_are_told_nothing(tmp_path: Path, broken: int) -> None:
    records = [sample_record(n, licence="GPL-3.0-only" if n < broken else "MIT") for n in range(40)]
    write_lines(tmp_path / FILE, records)
    found = detail(look(tmp_path), "licence.allowed", most_rows=5)
    assert found.broken == broken
    assert found.found == f"{broken} of 40"
    assert found.allowed == "none"
    assert [row.row for row in found.rows] == list(range(1, 1 + min(broken, 5)))


BREAKING: dict[str, tuple[DataContract, Records, str, str]] = {
    "a licence that is not listed": (
        sample_contract(),
        [sample_record(40, licence="GPL-3.0-only")],
        "licence.allowed",
        "states GPL-3.0-only: not on the contract's list",
    ),
    "no licence": (
        sample_contract(),
        [sample_record(40, licence=None)],
        "licence.allowed",
        "states no licence",
    ),
    "a listed licence that does not permit the use": (
        sample_contract(("[MIT, ", "[MIT, CC-BY-ND-4.0, ")),
        [sample_record(40, licence="CC-BY-ND-4.0")],
        "licence.allowed",
        "states CC-BY-ND-4.0: allows no derivatives, and training makes one",
    ),
    "a licence with what no page should hold": (
        sample_contract(),
        [sample_record(40, licence="GPL\u202e\x1b[31m\n3")],
        "licence.allowed",
        "states GPL[31m3: cannot be read as a licence",
    ),
    "another licence than the package claims": (
        with_fields(terms="  - property: fl.packageLicence\n    value: MIT\n"),
        [sample_record(40, licence="LicenseRef-Own")],
        "licence.claims_agree",
        "states LicenseRef-Own, not MIT",
    ),
    "an empty answer": (
        sample_contract(),
        [sample_record(40, answer=" ")],
        "records.not_empty",
        "question or answer is empty",
    ),
    "personal data of two kinds": (
        sample_contract(),
        [sample_record(40, answer="Jane, jane.roe@clinic.example.org, GB82WEST12345698765432.")],
        "personal_data.limit",
        "e-mail address under a public suffix; international bank account number with its "
        "check digits",
    ),
    "no consent": (
        with_fields("consent:boolean"),
        [sample_record(40, consent=False)],
        "consent.given",
        "says that there is no consent",
    ),
    "an opt-out": (
        with_fields("tdm_reservation:string"),
        [sample_record(40, tdm_reservation="1")],
        "opt_out.none",
        "rights are reserved, or what it says of them cannot be read",
    ),
    "a row that is no record": (
        sample_contract(),
        [b"{"],
        "records.readable",
        "is no record",
    ),
    "an answer that is too long": (
        sample_contract(),
        [sample_record(40, answer="x" * 1501)],
        "contract.answer-length",
        "answer of 1,501 characters",
    ),
}


@pytest.mark.parametrize(
    ("contract", "records", "rule", "reason"), BREAKING.values(), ids=list(BREAKING)
)
def test_a_row_says_why_it_breaks_a_rule(
    tmp_path: Path, contract: DataContract, records: Records, rule: str, reason: str
) -> None:
    write_lines(tmp_path / FILE, [*sample_records(), *records])
    found = detail(look(tmp_path, contract), rule)
    assert found.rows == (BrokenRow(41, reason),)


def test_what_does_not_state_a_value_is_not_counted_as_looked_at(tmp_path: Path) -> None:
    consents = [False, True, None] * 13
    write_lines(tmp_path / FILE, [sample_record(n, consent=c) for n, c in enumerate(consents)])
    looked = look(tmp_path, with_fields("consent:boolean"))
    assert detail(looked, "consent.given").found == "13 of 26"


def test_a_repetition_names_the_record_that_it_repeats(tmp_path: Path) -> None:
    words = [" ".join(f"w{n}x{k}" for k in range(60)) for n in range(40)]
    answers = [*words, words[3], words[3], f"{words[7]} more", words[0]]
    write_lines(
        tmp_path / FILE, [sample_record(n, prompt="", answer=a) for n, a in enumerate(answers)]
    )
    strict = (
        "maxExactPerMille: 100, maxNearPerMille: 1000",
        "maxExactPerMille: 0, maxNearPerMille: 0",
    )
    looked = look(tmp_path, sample_contract(strict))
    assert detail(looked, "duplicates.exact").rows == (
        BrokenRow(41, "the same text", 4),
        BrokenRow(42, "the same text", 4),
        BrokenRow(44, "the same text", 1),
    )
    assert detail(looked, "duplicates.near").rows == (BrokenRow(43, "nearly the same text", 8),)


def test_a_share_is_shown_beside_a_limit_that_is_one(tmp_path: Path) -> None:
    write_lines(tmp_path / FILE, [*sample_records(), *sample_records(10)])
    found = detail(look(tmp_path), "duplicates.exact")
    assert (found.found, found.allowed) == ("10 of 50, 200 of 1,000", "at most 100 of 1,000")


def test_leakage_names_the_held_out_record_and_what_they_share(tmp_path: Path) -> None:
    text = " ".join(f"word{n}" for n in range(80))
    records = [
        sample_record(0, split="train", answer=text, prompt=""),
        sample_record(1, split="heldout", answer=f"{text} more", prompt=""),
        sample_record(2, split="train", subject="one"),
        sample_record(3, split="heldout", subject="one"),
        sample_record(4, split="train", prompt="p", answer="the very same"),
        sample_record(5, split="heldout", prompt="p", answer="the very same"),
        sample_record(6, split="train", prompt="q", answer="both the same", subject="two"),
        sample_record(7, split="heldout", prompt="q", answer="both the same", subject="two"),
    ]
    write_lines(
        tmp_path / FILE, [*records, *(sample_record(n, split="train") for n in range(9, 40))]
    )
    assert detail(look(tmp_path, with_fields("split:string")), "split.no_leakage").rows == (
        BrokenRow(1, "nearly the same text", 2),
        BrokenRow(3, "the same subject", 4),
        BrokenRow(5, "the same text", 6),
        BrokenRow(7, "the same subject and text", 8),
    )


def test_rules_about_the_whole_set_say_what_was_counted(tmp_path: Path) -> None:
    labels = ["a"] * 17 + ["b"]
    write_lines(tmp_path / FILE, [sample_record(n, label=x) for n, x in enumerate(labels)])
    balance = "  - property: fl.balance\n    value: {maxMajorityPerMille: 900}\n"
    contract = with_fields("label:string", terms=balance)
    before = look(tmp_path, contract).findings.profile
    write_lines(tmp_path / FILE, [sample_record(n, label=x) for n, x in enumerate("b" * 18)])
    looked = look(tmp_path, contract, previous=before)
    said = {d.rule: (d.found, d.allowed) for d in details_of(looked).rules}
    assert said["records.minimum"] == ("18 different texts", "20 or more")
    assert said["cohort.minimum"] == ("18 different subjects", "12 or more")
    assert said["split.both_present"] == ("2 of 2 splits", "training and held out")
    assert said["labels.balance"] == (
        "1,000 of 1,000 labelled records",
        "at most 900 of 1,000 labelled records",
    )
    index, limit = said["drift.since_last_round"]
    assert (float(index) > 0.25, limit) == (True, "at most 0.250")


@pytest.mark.parametrize("rule", ["labels.present", "labels.balance", "drift.since_last_round"])
def test_what_was_not_measured_is_said_so(tmp_path: Path, rule: str) -> None:
    write_lines(tmp_path / FILE, sample_records())
    balance = "  - property: fl.balance\n    value: {maxMajorityPerMille: 900}\n"
    found = detail(look(tmp_path, with_fields("label:string", terms=balance)), rule).found
    assert found == ("nothing to compare with" if rule.startswith("drift") else "no label")


OWN: tuple[tuple[str, dict[str, Any], str, str], ...] = (
    ("table_row_count_to_be_between", {"min_value": 50}, "40 records", "50 or more"),
    (
        "column_values_to_be_between",
        {"column": "prompt_characters", "max_value": 10, "mostly": 0.95},
        "otherwise in 40 of 40",
        "question of at most 10 characters, in at least 950 of 1,000",
    ),
    (
        "column_values_to_be_in_set",
        {"column": "licence", "value_set": ["ISC", "0BSD"]},
        "otherwise in 40 of 40",
        "licence: ISC or 0BSD, in all",
    ),
    (
        "column_values_to_be_in_set",
        {"column": "is_empty", "value_set": [True]},
        "otherwise in 40 of 40",
        "empty: yes, in all",
    ),
    (
        "column_values_to_not_be_null",
        {"column": "language", "mostly": 0.5},
        "otherwise in 40 of 40",
        "language stated, in at least 500 of 1,000",
    ),
    (
        "column_unique_value_count_to_be_between",
        {"column": "subject_id", "min_value": 50, "max_value": 100},
        "40 different subjects",
        "50 to 100",
    ),
)


def test_a_contract_s_own_rules_are_told_in_words(tmp_path: Path) -> None:
    rules = tuple(
        checked_rule(f"contract.r{n}", "warning", {"type": f"expect_{kind}", "kwargs": kwargs})
        for n, (kind, kwargs, _, _) in enumerate(OWN)
    )
    write_lines(tmp_path / FILE, sample_records())
    looked = look(tmp_path, sample_contract().model_copy(update={"rules": rules}))
    said = {d.rule: (d.found, d.allowed) for d in details_of(looked).rules}
    assert [said[f"contract.r{n}"] for n in range(len(OWN))] == [own[2:] for own in OWN]
    assert not any("expect_" in words for pair in said.values() for words in pair)


def test_details_hold_no_text_and_no_id(tmp_path: Path) -> None:
    canary = "canary7f3a"
    fields = ("id", "subject", "prompt", "answer", "source")
    texts = [{f: f"{canary} {f} {n % 4}" for f in fields} for n in range(40)]
    write_lines(tmp_path / FILE, [sample_record(n, **t) for n, t in enumerate(texts)])
    details = details_of(look(tmp_path))
    assert details.repeated_ids == 36
    assert details.repeated_id_rows[0] == BrokenRow(5, "the same id", 1)
    assert set(details.keyed_ids) >= {1, 5}
    assert canary not in repr(details)


def test_many_named_rows_are_all_led_back(tmp_path: Path) -> None:
    """More than one query asks for, and more than SQLite once took as arguments."""
    records = [sample_record(n % 700, prompt=f"Question {n}?") for n in range(1400)]
    write_lines(tmp_path / FILE, records)
    details = details_of(look(tmp_path), most_rows=2000)
    assert details.repeated_ids == len(details.repeated_id_rows) == 700
    assert set(details.keyed_ids) >= set(range(1, 1401))
