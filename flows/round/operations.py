"""What an operator does to a round by hand."""

from contextlib import suppress

from aggregator.coordinator import Coordinator, load_coordinator
from aggregator.decisions.exchange import exchange_of
from aggregator.decisions.stage import Stage, owing_answer, owing_evaluation
from aggregator.evidence.look import Look, look
from aggregator.federated_round import abort_round, close_round, decide_round, relay_masks
from aggregator.feed.reading import newest_attempt, read_federation, read_report
from aggregator.settings.federation import FederationSettings
from aggregator.upkeep.storage_check import require_ledger
from data_contracts.errors import FederationOperatorError
from infra.storage.object_store import StorageUnavailableError


def require_place_for_copies(settings: FederationSettings) -> None:
    """Raise StorageError where a round could not keep its copies; one that is away is waited for
    by the round itself."""
    if settings.ledger.place == "copy":
        with suppress(StorageUnavailableError):
            require_ledger(load_coordinator(settings.home))


def abort_newest(c: Coordinator, reason: str) -> str:
    """Abort the newest attempt that is still open; returns its name."""
    feed = read_federation(c)
    newest = newest_attempt(c, feed)
    if newest is None or newest.abort or read_report(c, feed, newest.plan):
        raise FederationOperatorError(
            "round",
            expected="an attempt that is still open",
            found="none",
            action="start a round first, or look at `consortia round status`",
        )
    plan = newest.plan
    abort_round(c, plan, "operator.abort", reason)
    return f"round {plan.record.round} attempt {plan.record.attempt}"


def stop_waiting(c: Coordinator) -> str:
    """Go on with what has arrived of the newest attempt; returns what was done.

    Raises FederationOperatorError where nothing is waited for, or too little has arrived.
    """
    feed = read_federation(c)
    newest = newest_attempt(c, feed)
    seen = look(c, newest.plan, feed) if newest and not newest.abort else None
    if seen is not None and seen.stage is Stage.EXCHANGING:
        return _pass_on_now(c, seen)
    if seen is not None and seen.stage is Stage.COLLECTING:
        return _close_now(c, seen)
    if seen is not None and seen.stage is Stage.EVALUATING:
        return _decide_now(c, seen)
    raise FederationOperatorError(
        "round",
        expected="one that waits for silos",
        found=seen.stage.value if seen else "none that is open",
        action="look at `consortia round status`",
    )


def _pass_on_now(c: Coordinator, seen: Look) -> str:
    due = exchange_of(seen.attempt)
    if due is None or due.record is None:
        raise FederationOperatorError(
            "round",
            expected="silos' words that can be passed on",
            found="one that waits for the shares that open its sum",
            action="wait until their time is over, or end it with `consortia round abort`",
        )
    _require_enough(due.what, len(due.said), due.needed)
    relay_masks(c, seen)
    number = seen.plan.record.round
    return f"passed on {due.what} of round {number} without those of {', '.join(due.owing)}"


def _close_now(c: Coordinator, seen: Look) -> str:
    plan, attempt = seen.plan, seen.attempt
    arrived = [own.silo for own in attempt.cohort() if own.submission is not None]
    _require_enough("submissions", len(arrived), plan.record.quorum)
    close_round(c, seen)
    return f"closed round {plan.record.round} without {', '.join(owing_answer(attempt))}"


def _decide_now(c: Coordinator, seen: Look) -> str:
    plan, attempt = seen.plan, seen.attempt
    arrived = sum(own.evaluation is not None for own in attempt.cohort())
    _require_enough("evaluations", arrived, plan.record.evaluation_quorum)
    decide_round(c, seen)
    return f"decided round {plan.record.round} without {', '.join(owing_evaluation(attempt))}"


def _require_enough(what: str, arrived: int, quorum: int) -> None:
    if arrived < quorum:
        raise FederationOperatorError(
            "round",
            expected=f"{quorum} {what}, the plan's quorum",
            found=f"{arrived}",
            action="wait for more, or end it with `consortia round abort --reason ...`",
        )
