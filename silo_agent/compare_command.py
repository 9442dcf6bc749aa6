"""`silo-agent compare`: whether a synthetic set is different enough from this silo's records."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from data_contracts.dataset.novelty.set_findings import NoveltyLimits, NoveltyRule, SetFindings
from data_contracts.errors import DataStewardError
from infra import command_values as values
from infra.disk.durable_files import aside, private_file
from infra.terminal import plain_console, say
from silo_agent.command_options import HERE, Home
from silo_agent.config import load_config
from silo_agent.gate.contract_gate import contract_gate
from silo_agent.gate.set_check import check_set, kept_rows

console = plain_console()

ROWS_SHOWN = 10
Rows = tuple[int, ...]


def compare(
    records: Annotated[
        Path, typer.Argument(parser=values.existing_file, help="Records, one JSON object a line.")
    ],
    home: Home = HERE,
    kept: Annotated[
        Path | None,
        typer.Option(
            parser=values.file_to_write,
            help="Write the records that are like none of the silo's into this file.",
        ),
    ] = None,
) -> None:
    """Hold a synthetic set against this silo's records: what is copied, what is nearly a copy, and
    whether it remembers what was trained on. Exit 1 if it does. Nothing leaves."""
    limits = NoveltyLimits()
    findings = check_set(contract_gate(load_config(home)), records, limits)
    _show(findings, limits, console)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with aside(kept, records.stat().st_size) as staged, private_file(staged) as file:
            file.writelines(kept_rows(records, findings))
        say(console, f"{findings.records - len(findings.caught()):,} records are in {kept}")
    _require_different(records, findings, limits)


def _show(findings: SetFindings, limits: NoveltyLimits, into: Console) -> None:
    table = Table("rule", "outcome", "found", "allowed")
    broken = findings.broken(limits)
    for rule, (found, allowed) in _told(findings, limits).items():
        outcome = Text("fails", "bold red") if rule in broken else Text("holds", "green")
        table.add_row(rule, outcome, found, allowed)
    into.print(table)
    for rule, rows in _rows(findings).items():
        if rows:
            more = f" and {len(rows) - ROWS_SHOWN:,} more" if len(rows) > ROWS_SHOWN else ""
            say(into, f"{rule}: records {', '.join(map(str, rows[:ROWS_SHOWN]))}{more}")


def _told(findings: SetFindings, limits: NoveltyLimits) -> dict[NoveltyRule, tuple[str, str]]:
    """Of each rule what was found, and what is allowed."""
    near, least = findings.neighbours, f"{limits.least_records:,} on each side"
    told: dict[NoveltyRule, tuple[str, str]] = {
        "synthetic.too_few": ("enough" if near else "fewer", least)
    }
    for rule, rows in _rows(findings).items():
        told[rule] = (f"{len(rows):,} of {findings.records:,}", "0")
    told["synthetic.span"] = (
        f"{told['synthetic.span'][0]}, the longest {findings.longest_span:,} words",
        f"0 of {limits.span_words} words or more",
    )
    if near is not None:
        told["synthetic.nearer_to_train"] = (
            f"{near.nearer / near.texts:.0%}, chance {near.expected:.0%} (p {near.chance:.2g})",
            f"p of {limits.chance:g} or more",
        )
        told["synthetic.neighbour_ratio"] = (
            f"{near.ratio:.2f}, held-out records {near.heldout_ratio:.2f}",
            f"{limits.ratio_share:g} of that of held-out records",
        )
    return told


def _rows(findings: SetFindings) -> dict[NoveltyRule, Rows]:
    return {
        "synthetic.span": findings.spans,
        "synthetic.containment": findings.contained,
        "synthetic.one_source": findings.of_one_source,
        "synthetic.near_copy": findings.near_copies,
        "synthetic.copyright": findings.copyrighted,
    }


def _require_different(records: Path, findings: SetFindings, limits: NoveltyLimits) -> None:
    broken = findings.broken(limits)
    if broken:
        few = " With few records nothing can be said: compare a larger set, or hold out more."
        raise DataStewardError(
            f"set {records.name}",
            expected="records that are different enough from this silo's own",
            found=", ".join(broken),
            action="do not use it; --kept FILE writes those of its records that are like none of "
            "yours, which is no longer the whole set and is compared anew."
            + (few if "synthetic.too_few" in broken else ""),
        )
