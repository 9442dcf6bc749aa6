"""Where a revoked adapter is shown, it is said that it is one."""

from aggregator.coordinator import Coordinator
from aggregator.feed.reading import newest_attempt, own_records
from data_contracts.adapters.peft_config import WEIGHTS_NAME
from data_contracts.protocol.artifact import artifact_of_file
from data_contracts.protocol.records import Decision, Erasure
from data_contracts.protocol.trusted_feed import TrustedFeed
from infra.disk.durable_files import write_durably

NOTICE = "REVOKED.md"
READABLE = 0o644


def revoked_line(c: Coordinator, feed: TrustedFeed) -> str | None:
    """What an operator is told of a run whose adapter in force is revoked; else None."""
    newest = newest_attempt(c, feed) if feed.erasures.all else None
    if newest is None:
        return None
    plan = newest.plan
    decision = own_records(c, feed, plan).found(Decision)
    adapter = (
        plan.record.starting_adapter if decision is None else decision.record.published_adapter
    )
    erasure = None if adapter is None else feed.erasures.revoking(adapter.digest)
    return None if erasure is None else f"{c.settings.run}: {sentence(erasure.record)}"


def mark_published(c: Coordinator, feed: TrustedFeed) -> None:
    """A notice in the published folder, where its adapter is revoked: the next one that is
    published replaces the folder, and the notice with it."""
    weights = c.published / WEIGHTS_NAME
    if not weights.exists():
        return
    erasure = feed.erasures.revoking(artifact_of_file(weights).digest)
    if erasure is not None:
        text = f"# Revoked\n\nDo not use this adapter, nor pass it on: {sentence(erasure.record)}\n"
        write_durably(c.published / NOTICE, text.encode(), READABLE)


def sentence(erasure: Erasure) -> str:
    """By what an adapter is revoked, and where it goes on."""
    return (
        f"its adapter was revoked by feed entry {erasure.feed_number}, because the part of "
        f"{erasure.silo} is taken out of it. The run {erasure.replay_run} goes on without."
    )
