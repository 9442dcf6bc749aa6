"""A silo for whose first round everything is done, so that tests can take one thing away."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from data_contracts.protocol.envelope import seal
from data_contracts.protocol.records import Membership
from data_contracts.protocol.records.membership import Member
from flows.federation.admin import FederationTerms, settings_text
from flows.federation.contract_signing import sign_contract
from infra.disk.durable_files import write_durably
from infra.disk.model_files import model_digest
from infra.signing_keys import create_key, load_key
from silo_agent.config import load_config
from silo_agent.first_day.hand_over import accept_hand_over
from silo_agent.first_day.new_home import NewSilo, create_home
from silo_agent.first_day.templates import LocalModel
from silo_agent.readiness.checklist import Item
from silo_agent.readiness.facts import look
from silo_agent.readiness.machine import machine
from silo_agent.readiness.papers import papers
from tests.model_folders import write_model_folder

PURPOSE = "Coding assistant, research"
NOW = datetime.now(UTC)


class ReadySilo:
    """A silo for which everything was done, up to the first round, without storage."""

    def __init__(self, folder: Path) -> None:
        self.home, self.fed, self.model = folder / "a silo", folder / "fed", folder / "model"
        self.root = create_key(folder / "root.pem")
        self.coordinator = create_key(self.fed / "keys" / "coordinator-key.pem")
        write_model_folder(self.model)
        local = LocalModel("small", "Apache-2.0", model_digest(self.model), self.model)
        new = NewSilo("north", "oncology", "http://127.0.0.1:9", PURPOSE, local, "cpu", 1)
        create_home(self.home, new)
        self.edit("policy.toml", "take_part = false", "take_part = true")
        self.edit("policy.toml", "with_deltas = false", "with_deltas = true")
        self.edit("policy.toml", 'too_few = "refuse"', 'too_few = "allow"')
        self.edit("contract.yaml", "status: draft", "status: active")
        self.edit("contract.yaml", "minimumRecords, value: 100", "minimumRecords, value: 20")
        self._write_records()
        self.be_handed_over(self.membership())
        self.sign()

    def edit(self, name: str, old: str, new: str) -> None:
        """Change a file in the home directory."""
        text = (self.home / name).read_text()
        assert text.count(old) == 1
        (self.home / name).write_text(text.replace(old, new))

    def membership(self, key: str | None = None, federation: str = "oncology") -> Membership:
        """One that names the silo with its own key, or with another."""
        own = load_key(self.home / "keys" / "signing-key.pem").public_key_hex
        return Membership(
            federation=federation,
            issued_at=NOW,
            number=1,
            previous_digest=None,
            expires_at=NOW + timedelta(days=300),
            root_keys=(self.root.public_key_hex,),
            root_threshold=1,
            coordinator_key=self.coordinator.public_key_hex,
            silos=(Member(silo="north", public_key=key or own),),
        )

    def be_handed_over(self, membership: Membership) -> None:
        """What the operator hands over, in its folder, and taken from there."""
        folder = self.fed / "hand-over" / "north"
        envelope = seal(membership, self.root).envelope
        write_durably(folder / "membership.json", envelope)
        write_durably(self.fed / "membership.json", envelope)
        credential = b'access_key = "a"\nsecret_key = "b"\n'
        (folder / "storage-credentials.toml").write_bytes(credential)
        accept_hand_over(load_config(self.home), folder)

    def sign(self) -> None:
        """The silo, then the coordinator."""
        terms = FederationTerms(
            federation="oncology",
            run="run-1",
            purpose=PURPOSE,
            model_name="small",
            model_licence="Apache-2.0",
            model_path=self.model,
            prefect_api_url="http://127.0.0.1:9/api",
            endpoint_url="http://127.0.0.1:9",
        )
        write_durably(self.fed / "federation.toml", settings_text(terms).encode())
        contract = self.home / "contract.yaml"
        assert sign_contract(contract, self.home)[1] == 1
        assert sign_contract(contract, self.fed, "north")[1] == 2

    def items(self, now: datetime = NOW) -> dict[str, Item]:
        """The checklist as it is now."""
        facts = look(load_config(self.home), now, storage=False)
        return {item.name: item for item in [*papers(facts), *machine(facts)]}

    def check(self) -> subprocess.CompletedProcess[str]:
        """The command, in a narrow terminal."""
        command = [sys.executable, "-m", "silo_agent.cli", "check", "--no-storage", "--home"]
        return subprocess.run(
            [*command, str(self.home)],
            env=os.environ | {"COLUMNS": "40"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def _write_records(self) -> None:
        drugs, organs = ("aspirin", "heparin", "digoxin", "warfarin"), ("heart", "lung", "kidney")
        with (self.home / "data" / "records.jsonl").open("w") as file:
            for n in range(60):
                case = f"case {n} of {drugs[n % 4]} and the {organs[n % 3]}"
                record = {
                    "id": str(n),
                    "subject": f"p{n}",
                    "prompt": f"What is the dose in {case}?",
                    "answer": f"In {case} it is {n * 7 % 53} units, {n * 11 % 47} hours apart.",
                    "licence": "CC0-1.0",
                    "source": "teaching cases",
                }
                file.write(json.dumps(record) + "\n")
