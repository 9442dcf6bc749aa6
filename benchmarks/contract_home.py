"""A silo's home directory for the contract benchmark: keys, contract, registry, records."""

import json
import secrets
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from data_contracts.dataset.copyright.registry_builder import RegistryTerms, build_registry
from data_contracts.protocol.envelope import Verified, seal
from data_contracts.protocol.records import Verdict
from infra.clock import SystemClock
from infra.disk.durable_files import write_durably
from infra.signing_keys import SigningKey, create_key, load_key
from infra.storage.config import StorageSection
from silo_agent.config import SiloConfig
from silo_agent.gate.contract_gate import ContractGate
from silo_agent.gate.outcome import GateOutcome

FEDERATION, SILO, REGISTRY = "benchmark", "silo-one", "works"
REGISTERED_WORKS = 500
SIGNING_KEY = Path("keys/signing-key.pem")

CONTRACT = """\
apiVersion: v3.2.0
kind: DataContract
id: benchmark
version: 1.0.0
status: active
description:
  purpose: Measuring the gate
servers:
  - {{server: silo, type: local, path: records.jsonl, format: jsonl}}
schema:
  - name: records
    logicalType: object
    properties:
      - {{name: id, logicalType: string}}
      - {{name: subject, logicalType: string}}
      - {{name: prompt, logicalType: string}}
      - {{name: answer, logicalType: string}}
      - {{name: licence, logicalType: string}}
      - {{name: source, logicalType: string}}
customProperties:
  - property: fl.licences
    value: [MIT, CC-BY-4.0, Apache-2.0]
  - property: fl.minimumRecords
    value: 1000
  - property: fl.expires
    value: "2100-01-01T00:00:00Z"
  - property: fl.copyright
    value: {{registries: [{{name: works, signer: {signer}}}]}}
  - property: fl.personalData
    value: {{maxRecordsPerMille: 10}}
"""


def make_home(home: Path, records: Iterable[dict[str, str]]) -> None:
    """Write everything that the gate needs; the registry is of works that are not in the data."""
    create_key(home / SIGNING_KEY)
    write_durably(home / "keys" / "findings.key", secrets.token_bytes(32))
    signer = SigningKey(Ed25519PrivateKey.generate())
    _write_registry(home / "registries", signer)
    contract = CONTRACT.format(signer=signer.public_key_hex)
    write_durably(home / "contract.yaml", contract.encode())
    data = home / "data" / "records.jsonl"
    data.parent.mkdir()
    with data.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record) + "\n")


def open_gate(home: Path) -> ContractGate:
    """The product's own gate on this home."""
    config = SiloConfig(
        silo=SILO,
        federation=FEDERATION,
        storage=StorageSection(endpoint_url="http://127.0.0.1:1"),
        home=home,
    )
    return ContractGate(config, SystemClock())


def sign_verdict(outcome: GateOutcome, home: Path) -> Verified[Verdict]:
    """The outcome as a signed verdict, as every round has it anew."""
    return seal(
        Verdict(
            federation=FEDERATION,
            issued_at=SystemClock().now(),
            run="run-one",
            round=1,
            attempt=1,
            plan_digest="0" * 64,
            silo=SILO,
            contract_digest=outcome.contract_digest,
            findings_digest=outcome.findings_digest,
            passed=outcome.passed,
            outcomes=outcome.outcomes,
            licences=outcome.licences,
            expires_at=outcome.expires_at,
        ),
        load_key(home / SIGNING_KEY),
    )


def _write_registry(directory: Path, signer: SigningKey) -> None:
    now = SystemClock().now()
    key = secrets.token_bytes(32)
    terms = RegistryTerms(
        federation=FEDERATION,
        name=REGISTRY,
        rights_holder="Nobody",
        issued_at=now,
        expires_at=now + timedelta(days=1),
    )
    works = (
        " ".join(f"work{work}word{word}" for word in range(2000))
        for work in range(REGISTERED_WORKS)
    )
    build_registry(works, terms, key, signer, directory)
    write_durably(directory / f"{REGISTRY}.key", key)
