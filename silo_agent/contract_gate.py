"""The data gate of one silo: its contract file, its data, its findings key."""

import logging
from dataclasses import dataclass
from pathlib import Path

from data_contracts.dataset.contract import DataContract, load_contract
from data_contracts.errors import DataStewardError, SiloOperatorError
from infra.clock import Clock
from silo_agent.config import SiloConfig
from silo_agent.data_gate import GateOutcome, check_data, write_splits
from silo_agent.local_trainer import Splits
from silo_agent.policy import ContractTerms

log = logging.getLogger("silo-agent")

MIN_KEY_BYTES = 32


@dataclass
class ContractGate:
    """Satisfies `silo_agent.agent.DataGate`; remembers the digest of the findings it last saw."""

    config: SiloConfig
    clock: Clock

    def terms(self) -> ContractTerms | None:
        """Digest and purposes of the contract as it is now; None when it is unusable."""
        try:
            contract = self.contract()
        except DataStewardError as error:
            log.warning("%s", error)
            return None
        return ContractTerms(contract.digest, contract.purposes)

    def check(self) -> GateOutcome:
        """Judge the data; raises DataStewardError when the contract file is unusable."""
        return check_data(
            self.contract(), self._data_root(), self._findings_key(), now=self.clock.now()
        )

    def contract(self) -> DataContract:
        """The parsed contract."""
        return load_contract(self.config.path(self.config.data.contract))

    def splits(self, findings_digest: str) -> Splits:
        """Training and held-out records of the very data that the verdict was given for."""
        files = write_splits(
            self.contract(),
            self._data_root(),
            self.config.home / "work" / "splits",
            findings_key=self._findings_key(),
            findings_digest=findings_digest,
        )
        return Splits(train=files.train, heldout=files.heldout)

    def _data_root(self) -> Path:
        return self.config.path(self.config.data.root)

    def _findings_key(self) -> bytes:
        path = self.config.path(self.config.keys.findings)
        try:
            key = path.read_bytes()
        except OSError as error:
            key, found = b"", error.strerror or str(error)
        else:
            found = f"{len(key)} bytes"
        if len(key) < MIN_KEY_BYTES:
            raise SiloOperatorError(
                f"findings key {path}",
                expected=f"a file of at least {MIN_KEY_BYTES} secret bytes",
                found=found,
                action="restore it from its backup, or create it with `silo-agent init`",
            )
        return key
