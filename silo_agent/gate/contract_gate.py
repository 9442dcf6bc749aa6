"""The data gate of one silo: its contract file, its data, its findings key, its registries."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from data_contracts.dataset.contract import DataContract, load_contract
from data_contracts.dataset.contract.agreement import Parties, read_agreement
from data_contracts.dataset.findings.keyed import Keyed
from data_contracts.dataset.findings.profile import Profile
from data_contracts.dataset.sources.places import DataRoot
from data_contracts.errors import DataStewardError, SiloOperatorError
from infra.clock import Clock, SystemClock
from infra.disk.durable_files import write_durably
from infra.disk.file_digests import FileDigests
from silo_agent.config import SiloConfig
from silo_agent.gate.data_gate import DataCheck, Progress, check_data, kept_outcome
from silo_agent.gate.outcome import GateOutcome, KeptOutcomes
from silo_agent.gate.registries import ReferencesError, SiloReferences
from silo_agent.gate.row_names import RowNames, names_of
from silo_agent.gate.silo_data import SiloData
from silo_agent.gate.splits import Splits, forget_unused_splits, write_splits
from silo_agent.policy.contract_terms import ContractTerms
from silo_agent.restarts import with_restarts

if TYPE_CHECKING:
    from data_contracts.dataset.copyright.registry import Registry

log = logging.getLogger("silo-agent")

MIN_KEY_BYTES = 32
FILE_DIGESTS_NAME = "file-digests.json"
BASELINE_NAME = "accepted-profile.json"
GATE_DIRECTORY = Path("work/gate")
SPLITS_DIRECTORY = Path("work/splits")


@dataclass
class ContractGate:
    """Satisfies `silo_agent.collaborators.DataGate`.

    With `child` records are looked at in a process of their own, as a long-running agent does: it
    is called with what is to be told of the progress, and gives what `check` does.
    """

    config: SiloConfig
    clock: Clock
    child: Callable[[Progress], GateOutcome] | None = None
    _why_none: str = field(default="", init=False)

    def terms(self, parties: Parties) -> ContractTerms | None:
        """What policy and release need of the contract; None when it is unusable or not agreed.

        `parties` are those of the memberships that the silo knows. Why is logged once per change:
        a contract that is withdrawn during training is asked about for hours.
        """
        try:
            contract = self.contract()
            agreement = read_agreement(self._contract_path(), contract.digest, parties)
        except DataStewardError as error:
            if str(error) != self._why_none:
                log.warning("%s", error)
            self._why_none = str(error)
            return None
        self._why_none = ""
        return ContractTerms.of(contract, agreement.envelope)

    def check(self, progress: Progress = lambda records: None) -> GateOutcome:
        """Judge the data.

        Raises DataStewardError when the contract file is unusable, CheckDiedError when the
        process that looks at the data died every time.
        """
        retention = timedelta(days=self.contract().terms.retention.days)
        forget_unused_splits(self.config.home / SPLITS_DIRECTORY, retention)
        child = self.child
        if child is None:
            return check_data(self._inputs(), progress)
        kept = kept_outcome(self._inputs())
        return kept or with_restarts(lambda: child(progress), self.config.agent.max_restarts)

    def forget_unused(self) -> None:
        """Delete outcomes and splits, which hold text, that were not used for the contract's
        retention; a contract that cannot be read says nothing of it."""
        try:
            retention = timedelta(days=self.contract().terms.retention.days)
            kept = self._kept()
        except (DataStewardError, SiloOperatorError):
            return
        forget_unused_splits(self.config.home / SPLITS_DIRECTORY, retention)
        kept.forget_unused(retention)

    def expected_records(self) -> int | None:
        """About how many records a check will look at; None when that is unknown."""
        return self._data(self.contract(), self._file_digests()).expected_records()

    def contract(self) -> DataContract:
        """The parsed contract."""
        return load_contract(self._contract_path())

    def splits(self, findings_digest: str) -> Splits:
        """Training and held-out records of the very data that the verdict was given for."""
        contract, outcome = self.contract(), self.check()
        if outcome.findings_digest != findings_digest or outcome.key is None:
            raise DataStewardError(
                "data set",
                expected="the very data that the contract was checked on",
                found="other findings than those of the verdict",
                action="let nobody write the data during a round, then start the round again",
            )
        try:
            return write_splits(
                outcome,
                self._kept().findings_path(outcome.key),
                self._data(contract, self._file_digests()),
                self.config.home / SPLITS_DIRECTORY,
                Keyed(self._findings_key()),
                contract.terms.canaries,
            )
        except DataStewardError:
            # Whatever was wrong with what was kept, the next check looks again.
            self._kept().forget(outcome.key)
            raise

    def findings(self, outcome: GateOutcome) -> Path | None:
        """The findings table of an outcome, for the steward; None when nothing was looked at."""
        return self._kept().findings_path(outcome.key) if outcome.key else None

    def row_names(self, keyed_ids: Mapping[int, str]) -> RowNames:
        """The ids that rows of a finding have in the data, which are read for it once more."""
        data = self._data(self.contract(), self._file_digests())
        return names_of(data.records(), keyed_ids, Keyed(self._findings_key()))

    def remember(self, findings_digest: str) -> None:
        """Measure drift from these findings on: their round was accepted."""
        kept = self._kept()
        outcome = kept.with_findings(findings_digest)
        if outcome is not None and outcome.key is not None:
            profile = kept.profile(outcome.key)
            if self._baseline() != profile:
                write_durably(self.config.home / BASELINE_NAME, profile)

    def registries(self) -> "tuple[Registry, ...]":
        """The copyright registries of the contract; raises DataStewardError where one fails."""
        try:
            return self._inputs().references.load(self.clock.now()).registries
        except ReferencesError as error:
            raise DataStewardError(
                "copyright registries of the contract",
                expected="every one that it names, signed and not expired",
                found=str(error),
                action="put the registry back, or have its signer renew it",
            ) from None

    def _inputs(self) -> DataCheck:
        contract, key = self.contract(), self._findings_key()
        digests = self._file_digests()
        return DataCheck(
            contract=contract,
            data=self._data(contract, digests),
            references=SiloReferences(
                self.config.federation, contract, self._registries(), digests
            ),
            kept=KeptOutcomes(self.config.home / GATE_DIRECTORY, key),
            findings_key=key,
            now=self.clock.now(),
            baseline=self._baseline(),
        )

    def _kept(self) -> KeptOutcomes:
        return KeptOutcomes(self.config.home / GATE_DIRECTORY, self._findings_key())

    def _data(self, contract: DataContract, digests: FileDigests) -> SiloData:
        database = self.config.data.database
        return SiloData(
            source=contract.source,
            root=DataRoot(
                self.config.path(self.config.data.root), self.config.data.allow_hard_links
            ),
            database=self.config.path(database) if database else None,
            digests=digests,
        )

    def _file_digests(self) -> FileDigests:
        return FileDigests(self.config.home / FILE_DIGESTS_NAME)

    def _contract_path(self) -> Path:
        return self.config.path(self.config.data.contract)

    def _registries(self) -> Path:
        return self.config.path(self.config.data.registries)

    def _baseline(self) -> bytes | None:
        """The profile of the last accepted round; a damaged one is none."""
        path = self.config.home / BASELINE_NAME
        try:
            data = path.read_bytes()
            Profile.from_json(data)
        except (OSError, ValueError):
            return None
        return data

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


def contract_gate(config: SiloConfig) -> ContractGate:
    """The gate of the silo of this configuration; it needs no storage."""
    return ContractGate(config, SystemClock())
