"""Findings of record files with the real detectors, and the table read back."""

import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data_contracts.dataset.contract import DataContract
from data_contracts.dataset.findings.checks import Checks, References
from data_contracts.dataset.findings.collect import Findings, collect_findings
from data_contracts.dataset.findings.profile import Profile
from data_contracts.dataset.sources.reading import read_source
from data_contracts.dataset.suite.expectations import evaluate
from data_contracts.protocol.records.verdict import RuleOutcome
from tests.data_contracts.dataset.contract_samples import sample_contract

KEY = b"k" * 32
NOW = datetime(2027, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Looked:
    """Findings with the contract that they were made for."""

    findings: Findings
    contract: DataContract

    def column(self, name: str) -> list[Any]:
        """One column of the table, in the order of the rows."""
        with sqlite3.connect(self.findings.path) as connection:
            query = f"SELECT {name} FROM findings ORDER BY row"  # noqa: S608
            return [row[0] for row in connection.execute(query)]

    def outcomes(self) -> dict[str, RuleOutcome]:
        """Outcome of every rule, by its id."""
        url = f"sqlite:///{self.findings.path}"
        return {outcome.rule: outcome for outcome in evaluate(self.contract, url)}

    def failing(self) -> list[str]:
        """Ids of the rules that do not hold."""
        return [rule for rule, outcome in self.outcomes().items() if not outcome.success]


def look(
    root: Path,
    contract: DataContract | None = None,
    *,
    key: bytes = KEY,
    references: References | None = None,
    previous: Profile | None = None,
) -> Looked:
    """Findings of the contract's data below `root`."""
    contract = contract or sample_contract()
    findings = collect_findings(
        read_source(contract.source, root),
        Checks(contract, references or References(), NOW),
        key,
        root / "gate" / "findings.sqlite",
        previous=previous,
    )
    return Looked(findings, contract)
