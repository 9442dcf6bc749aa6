"""A person reads who measured, what the intervals cover, and who is still waited for."""

from datetime import UTC, datetime

from rich.console import Console

from aggregator.contribution.by_silos import Waiting
from aggregator.contribution.result import Contributions
from aggregator.contribution.values import Contribution
from flows.round.contribution_view import render_contributions

VALUES = (Contribution("silo-a", 0.25, -0.5, 1.0),)


def shown(found: Contributions | Waiting) -> str:
    console = Console(width=120, record=True)
    console.print(render_contributions(found))
    return console.export_text()


def test_values_say_where_they_were_measured_and_what_their_intervals_cover() -> None:
    here = shown(Contributions("shapley", VALUES, 3.0, 2.5))
    assert "+0.25000" in here and "-0.50000 to +1.00000" in here
    assert "shapley values, nats per token" in here
    assert "loss 3.00000 nats per token before, 2.50000 after the merge" in here
    assert "measured by the coordinator" in here
    assert "covers the choice of the public set, not another training run" in here
    there = shown(
        Contributions("leave-one-out", VALUES, 3.0, 2.5, ("silo-a", "silo-b"), request_digest="0")
    )
    assert "measured by silo-a, silo-b" in there
    assert "covers which silos measured, not another training run" in there


def test_who_has_not_answered_is_named_with_the_deadline() -> None:
    answer_by = datetime(2026, 1, 5, 13, 30, tzinfo=UTC)
    text = shown(Waiting(("silo-a",), ("silo-b", "silo-c"), answer_by))
    assert "answered: silo-a" in text
    assert "waiting for silo-b, silo-c until 2026-01-05 13:30 UTC" in text
    assert "Run this command again" in text
    assert "nobody yet" in shown(Waiting((), ("silo-b",), answer_by))
