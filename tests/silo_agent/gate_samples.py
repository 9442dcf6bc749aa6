"""A silo's gate over a home directory on disk: the real contract, data, key and registries."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from infra.disk.durable_files import write_durably
from infra.signing_keys import create_key
from infra.storage.config import StorageSection
from silo_agent.config import DataSection, SiloConfig
from silo_agent.first_day.templates import config_text
from silo_agent.gate.check_process import check_in_child
from silo_agent.gate.contract_gate import ContractGate
from silo_agent.gate.outcome import GateOutcome
from tests.data_contracts.dataset.contract_samples import CONTRACT, write_lines
from tests.simulator.fake_clock import FakeClock

NOW = datetime(2027, 1, 1, tzinfo=UTC)
FINDINGS_KEY = b"k" * 32


class SampleSilo:
    """A home directory with the sample contract; `gate` is made anew, as after a restart."""

    def __init__(self, home: Path, contract: str = CONTRACT) -> None:
        self.home = home
        self.clock = FakeClock(NOW)
        self.config = SiloConfig(
            silo="silo-one",
            federation="fed-one",
            storage=StorageSection(endpoint_url="http://127.0.0.1:1"),
            data=DataSection(database=Path("keys/database-url")),
            home=home,
        )
        write_durably(home / "keys" / "findings.key", FINDINGS_KEY)
        self.write_contract(contract)

    @property
    def gate(self) -> ContractGate:
        """A fresh gate."""
        return ContractGate(self.config, self.clock)

    @property
    def gate_in_child(self) -> ContractGate:
        """A fresh gate as a running agent has it."""
        return ContractGate(self.config, self.clock, partial(check_in_child, self.home))

    @property
    def data_file(self) -> Path:
        """Where the sample contract expects its records."""
        return self.home / "data" / "sets" / "records.jsonl"

    def write_contract(self, text: str) -> None:
        """Replace the contract."""
        (self.home / "contract.yaml").write_text(text, encoding="utf-8")

    def write_records(self, records: Sequence[dict[str, Any] | bytes]) -> Path:
        """Replace the data set."""
        return write_lines(self.data_file, records)

    def write_config(self) -> None:
        """Configuration and key on disk, for a process that reads them."""
        create_key(self.home / "keys" / "signing-key.pem")
        config = config_text(
            self.config.silo,
            self.config.federation,
            self.config.storage.endpoint_url,
            device="cpu",
            ranks=1,
        )
        write_durably(self.home / "silo-agent.toml", config.encode())

    def check(self) -> GateOutcome:
        """What the gate finds now."""
        return self.gate.check()


def failing(outcome: GateOutcome) -> list[str]:
    """Ids of the rules that do not hold."""
    return [rule.rule for rule in outcome.outcomes if not rule.success]
