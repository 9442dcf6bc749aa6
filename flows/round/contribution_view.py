"""What a person sees of contributions: values with intervals, or who is still waited for."""

from rich.console import Group, RenderableType
from rich.table import Table

from aggregator.contribution.by_silos import Waiting
from aggregator.contribution.result import Contributions


def render_contributions(found: Contributions | Waiting) -> RenderableType:
    """A table of values, and below it who measured and what the intervals cover; or who is late."""
    return _waiting(found) if isinstance(found, Waiting) else _values(found)


def _values(found: Contributions) -> RenderableType:
    table = Table("silo", "value", "95 % interval", title=f"{found.method} values, nats per token")
    for value in found.values:
        bounds = f"{value.low:+.5f} to {value.high:+.5f}"
        table.add_row(value.silo, f"{value.value:+.5f}", bounds)
    covered = "which silos measured" if found.is_by_silos else "the choice of the public set"
    return Group(
        table,
        "A value says how far the silo's adapter lowered the merge's loss; below 0 it raised it.",
        f"loss {found.starting_loss:.5f} nats per token before, {found.merged_loss:.5f} after the "
        "merge",
        f"measured by {', '.join(found.measured_by)}",
        f"The interval covers {covered}, not another training run.",
    )


def _waiting(waiting: Waiting) -> RenderableType:
    return Group(
        f"answered: {', '.join(waiting.answered) or 'nobody yet'}",
        f"waiting for {', '.join(waiting.missing)} until {waiting.answer_by:%Y-%m-%d %H:%M} UTC",
        "Run this command again; silos answer until then or until the next round is opened.",
    )
