"""What a silo operator or data steward sees of a check in a terminal: progress, then the outcome.

Nothing here leaves the silo, so counts are exact and rows are named.
"""

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
from rich.table import Column, Table
from rich.text import Text

from data_contracts.errors import SiloOperatorError
from infra.terminal import say
from silo_agent.gate.contract_gate import ContractGate
from silo_agent.gate.outcome import GateOutcome
from silo_agent.gate.steward_figures import StewardFigures
from silo_agent.gate.steward_page import expiry_words, open_in_browser, write_page
from silo_agent.gate.steward_view import RuleState, ShownRow, ShownRule, StewardView, steward_view

ROWS_IN_TERMINAL = 5
_STYLES: dict[RuleState, str] = {"fails": "bold red", "warns": "yellow", "holds": "green"}


def _check_with_progress(gate: ContractGate, console: Console) -> GateOutcome:
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


def print_view(view: StewardView, console: Console) -> None:
    """Every rule in a table, then what breaks those that do not hold, by row."""
    contract, terms = view.contract, view.contract.terms
    say(console, f"contract      {contract.id}, version {contract.version}")
    say(console, f"expires       {expiry_words(terms.expires, view.checked_at)}")
    console.print(_table(view))
    for rule in view.in_state("fails", "warns"):
        _print_broken(rule, console)
    for note in view.notes:
        say(console, f"  {note}")
    _print_repeated_ids(view, console)
    if view.records:
        say(
            console,
            f"records       {view.records:,} offered: {view.train_records:,} for training, "
            f"{view.heldout_records:,} held out, {view.left_out:,} left out",
        )


def show_page(view: StewardView, home: Path, console: Console) -> None:
    """Write the steward's page, say where it is, and open it where there is a screen."""
    page = write_page(view, home)
    say(console, f"page          {page}")
    if not open_in_browser(page):
        say(console, "              no browser could be started here; open the file in one")


def _table(view: StewardView) -> Table:
    table = Table(Column("rule", no_wrap=True), "outcome", "found", "allowed")
    for rule in view.rules:
        outcome = Text(rule.state, style=_STYLES[rule.state])
        table.add_row(Text(rule.rule), outcome, Text(rule.found), Text(rule.allowed))
    return table


def _print_broken(rule: ShownRule, console: Console) -> None:
    counted = f" Found: {rule.found}; allowed: {rule.allowed}." if rule.found else ""
    say(console, f"{rule.rule} {rule.state}: {rule.sentence}{counted}")
    _print_rows(rule.rows, rule.more, rule.other_kind, console)


def _print_repeated_ids(view: StewardView, console: Console) -> None:
    if view.repeated_ids:
        say(console, f"ids           {view.repeated_ids:,} records have the id of an earlier one")
        more = view.repeated_ids - len(view.repeated_id_rows)
        _print_rows(view.repeated_id_rows, more, "earlier", console)


def _print_rows(rows: tuple[ShownRow, ...], more: int, other_kind: str, console: Console) -> None:
    for row in rows[:ROWS_IN_TERMINAL]:
        other = _named(row.other, row.other_record) if row.other else ""
        like = f" as the {other_kind} {other}" if other else ""
        say(console, f"  {_named(row.row, row.record)}: {row.reason}{like}")
    more += max(0, len(rows) - ROWS_IN_TERMINAL)
    if more:
        say(console, f"  and {more:,} more; --open lists further ones")


def _named(row: int, record: str) -> str:
    return f"row {row} ({record})" if record else f"row {row}"


def check_shown(
    gate: ContractGate, console: Console, figures: StewardFigures, *, open_page: bool
) -> GateOutcome:
    """Check the data and show what was found, in a browser too where `open_page` says so, with the
    `figures` of earlier rounds."""
    outcome = _check_with_progress(gate, console)
    view = steward_view(gate, outcome, figures)
    print_view(view, console)
    if open_page:
        show_page(view, gate.config.home, console)
    return outcome


def require_passed(outcome: GateOutcome) -> None:
    """Raise SiloOperatorError for an outcome with which a round would be refused."""
    if not outcome.passed:
        raise SiloOperatorError(
            "data contract",
            expected="every critical rule to hold",
            found=", ".join(
                o.rule for o in outcome.outcomes if not o.success and o.severity == "critical"
            ),
            action="correct the data or the contract; rounds are refused until then",
        )
