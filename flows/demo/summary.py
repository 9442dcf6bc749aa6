"""The demo's last screen: losses, where things lie, how to check them."""

from pathlib import Path
from statistics import fmean

from rich import box
from rich.console import Console
from rich.table import Table

from aggregator.coordinator import Coordinator
from aggregator.publishing.publish import CARD_NAME
from flows.demo.comparison import Comparison
from infra.terminal import command_line, say

SIGNED = "Base and global were measured and signed by the silos."
ALONE = (
    "The rows `only ...` are silo-only adapters, trained for as many local steps and never merged; "
    "this demo, which plays all silos, measured them on everybody's text. In a real "
    "federation no institution's adapter or text reaches another."
)
BESIDE = (
    "The rows `+ ...` are the global adapter with the personal one of that institution beside it, "
    "which acts only on prompts that its gate takes for its own. `global + personal` is what each "
    "has at home: its own pair."
)


def print_summary(
    c: Coordinator, comparison: Comparison, console: Console, *, seconds: float
) -> None:
    """Loss table, the same in words, and paths."""
    print_table(comparison, console)
    say(
        console,
        f"mean over {len(comparison.base)} institutions, nats per answer token: "
        f"base {comparison.base_mean:.4f}, silo-only {comparison.silo_only_mean:.4f}, "
        f"global {comparison.published_mean:.4f}",
    )
    for words in (SIGNED, ALONE, *((BESIDE,) if comparison.personal else ())):
        console.print(words, style="dim")
    _print_paths(c, console)
    say(console, f"done in {seconds:.0f} s")


def print_table(comparison: Comparison, console: Console) -> None:
    """One row for each adapter, one column for each institution's text."""
    silos = sorted(comparison.base)
    table = Table(
        title="held-out loss, nats per answer token (lower is better)",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("adapter", no_wrap=True)
    for name in (*silos, "mean"):
        table.add_column(name, justify="right")
    table.add_row("none (base model)", *_row(comparison.base, silos))
    for trained in silos:
        table.add_row(f"only {trained}", *_row(comparison.silo_only[trained], silos))
    table.add_row("global (federated)", *_row(comparison.published, silos), style="bold")
    for owner in comparison.personal:
        table.add_row(f"+ {owner}", *_row(comparison.personal[owner], silos))
    if comparison.personal:
        table.add_row("global + personal", *_row(comparison.at_home, silos), style="bold")
    console.print()
    console.print(table)


def _print_paths(c: Coordinator, console: Console) -> None:
    reports = sorted(c.reports.glob(f"{c.settings.run}-round-*.html"))
    for label, path in (
        ("published adapter", c.published),
        ("model card", c.published / CARD_NAME),
        *((f"compliance report {n}", page) for n, page in enumerate(reports, 1)),
    ):
        say(console, f"{label:<20} {_short(path)}")
    if reports:
        trust = _short(c.settings.home / "membership.json")
        verify = ("consortia", "report", "verify", _short(reports[-1]), "--trust", trust)
        say(console, f"verify it offline    {command_line(*verify)}")


def _short(path: Path) -> Path:
    """Relative to where the user stands, where that is possible."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _row(losses: dict[str, float], silos: list[str]) -> list[str]:
    return [*(f"{losses[silo]:.4f}" for silo in silos), f"{fmean(losses.values()):.4f}"]
