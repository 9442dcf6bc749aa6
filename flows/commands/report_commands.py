"""`consortia report`: verify a round's report offline, and pack its records into one archive."""

from pathlib import Path
from typing import Annotated

import typer

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
    """Check a report offline: one line per claim, exit 1 if any fails.

    Erasures that lie beside it, `erasure-*.json`, tell whether its adapter was revoked since.
    """
    from aggregator.audit.report_audit import audit
    from aggregator.report.files import erasures_beside, read_report_file
    from data_contracts.protocol.trust_anchor import load_trust_anchor
    from flows.commands.claims_display import show_claims

    report = read_report_file(file)
    erasures = erasures_beside(file)
    before = [read_report_file(path).bundle for path in earlier or ()]
    trusted = load_trust_anchor(trust)
    claims = audit(report.bundle, trusted, adapter, report.page, erasures=erasures, earlier=before)
    show_claims(console, claims)


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
