"""What a silo operator sees of a check: progress while it runs, and the Data Docs afterwards.

Nothing here leaves the silo.
"""

import webbrowser
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from data_contracts.errors import DataStewardError
from infra.terminal import say
from silo_agent.contract_gate import ContractGate
from silo_agent.gate_outcome import GateOutcome

DATA_DOCS = Path("data-docs")


def check_with_progress(gate: ContractGate, console: Console) -> GateOutcome:
    """Run the gate with a bar, the records so far and the time that is left."""
    columns = (
        TextColumn("checking data"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("records", total=gate.expected_records())
        return gate.check(lambda records: progress.update(task, completed=records))


def open_data_docs(gate: ContractGate, outcome: GateOutcome, console: Console) -> None:
    """Render Great Expectations' Data Docs on the findings and open them in a browser."""
    findings = gate.findings(outcome)
    if findings is None or not findings.exists():
        raise DataStewardError(
            "Data Docs",
            expected="data that could be looked at",
            found="none: see the rule that fails above",
            action="correct what it names and check again",
        )
    from data_contracts.dataset.findings.store import sqlite_url
    from data_contracts.dataset.suite.expectations import render_data_docs

    directory = gate.config.home / DATA_DOCS
    page = render_data_docs(gate.contract(), sqlite_url(findings), directory)
    say(console, f"data docs     {page}")
    webbrowser.open(page.as_uri())
