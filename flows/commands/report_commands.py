"""`consortia report`: verify a round's report offline, and pack its records into one archive."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from infra import command_values as values
from infra.terminal import plain_console, say

report_app = typer.Typer(no_args_is_help=True, help="Verify and export round reports.")
console = plain_console()


@report_app.command("verify")
def report_verify(
    file: Annotated[
        Path,
        typer.Argument(parser=values.existing_file, help="Report as JSON, HTML page or archive."),
    ],
    trust: Annotated[
        Path,
        typer.Option(parser=values.existing_file, help="Membership file, obtained out of band."),
    ],
    adapter: Annotated[
        Path | None,
        typer.Option(
            parser=values.existing_file,
            help="adapter_model.safetensors to check against the report.",
        ),
    ] = None,
    earlier: Annotated[
        list[Path] | None,
        typer.Option(
            parser=values.existing_file,
            help="An earlier report, of any run: under differential privacy no institution may say "
            "less now than it did there. May be given more than once.",
        ),
    ] = None,
) -> None:
    """Check a report offline: one line per claim, exit 1 if any fails."""
    from aggregator.audit.report_audit import audit
    from aggregator.report.files import read_report_file
    from data_contracts.protocol.trust_anchor import load_trust_anchor

    report = read_report_file(file)
    before = [read_report_file(path).bundle for path in earlier or ()]
    claims = audit(report.bundle, load_trust_anchor(trust), adapter, report.page, before)
    styles = {"pass": "green", "fail": "bold red", "not checked": "yellow"}
    table = Table("claim", "outcome", "detail")
    for claim in claims:
        table.add_row(claim.name, Text(claim.outcome, styles[claim.outcome]), claim.detail)
    console.print(table)
    failed = [claim for claim in claims if claim.outcome == "fail"]
    say(console, f"{len(failed)} of {len(claims)} claims fail" if failed else "no claim fails")
    raise typer.Exit(1 if failed else 0)


@report_app.command("export")
def report_export(
    file: Annotated[
        Path, typer.Argument(parser=values.existing_file, help="Report as JSON or HTML page.")
    ],
    into: Annotated[Path, typer.Option(parser=values.file_to_write, help="Archive to write.")],
) -> None:
    """Pack a round's records into one archive."""
    from aggregator.report.archive import export_archive
    from aggregator.report.files import read_report_file

    export_archive(read_report_file(file), into)
    say(console, f"written {into}")
