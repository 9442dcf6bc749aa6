"""One round as a Prefect flow.

Prefect schedules, retries and shows; it is not the source of truth. Every task recomputes the
stage from the signed records in storage, so a flow that was killed anywhere is simply run again.
Parameters and results are ids and digests, never data.

A storage that is away is waited for until the plan's deadline (`flows.round.storage_outage`); that
takes none of the retries, which are for other faults. What a storage says for good ends the round
now.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from aggregator.coordinator import Coordinator, load_coordinator
from aggregator.decisions.exchange import listed_silos
from aggregator.decisions.stage import Stage
from aggregator.evidence.look import Look, look
from aggregator.evidence.reader import read_status, receive
from aggregator.federated_round import (
    abort_interrupted,
    close_round,
    decide_round,
    merge_or_abort,
    open_round,
    relay_masks,
    report_round,
    unreported_abort,
)
from data_contracts.errors import StorageError
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Abort, RoundPlan, RoundReport
from flows.round import wording
from flows.round.artifacts import SiloProgress, link_report, show_silos
from flows.round.recent_feed import RecentFeed
from flows.round.silo_outcome import silo_outcome
from flows.round.storage_outage import OutageWait

if TYPE_CHECKING:
    from aggregator.merge.adapter_merge import ModuleMerger

RETRIES = 3
RETRY_SECONDS = 10

_T = TypeVar("_T")


@dataclass(frozen=True)
class RoundRun:
    """A plan's round in one flow run, with how its outages of storage are waited out."""

    c: Coordinator
    storage: OutageWait
    plan: Verified[RoundPlan]
    feed: RecentFeed

    @classmethod
    def of(cls, c: Coordinator, storage: OutageWait, plan: Verified[RoundPlan]) -> "RoundRun":
        """One that has read nothing yet."""
        return cls(c, storage, plan, RecentFeed(c))

    def step(self, work: Callable[[Coordinator, Look], _T]) -> _T:
        """A step on the attempt as it is read then."""
        return self.through(lambda: work(self.c, look(self.c, self.plan)))

    def through(self, work: Callable[[], _T]) -> _T:
        """What needs the storage; it has until the plan's last deadline for its outages."""
        return self.storage.through(self.plan.record.expires_at, work)


def can_pass(_task: object, _run: object, state: State[Any]) -> bool:
    """Whether a failed task is worth another try; where storage failed it, `OutageWait` decided."""
    return not isinstance(state.result(raise_on_failure=False), StorageError)


STEP: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "retries": RETRIES,
    "retry_delay_seconds": RETRY_SECONDS,
    "retry_condition_fn": can_pass,
}
"""What every task of a round has in common."""


@flow(name="federated-round", flow_run_name="round-{round_number}", validate_parameters=True)
def federated_round(home: str, round_number: int) -> dict[str, str]:
    """Open, collect, close, merge, evaluate, decide, report; resumes whatever is there.

    Returns the outcome (published, held, aborted or void), its rule and the report's digest.
    """
    c = load_coordinator(Path(home))
    storage = outage_wait(c)
    aborted = storage.through(None, lambda: unreported_abort(c))
    if aborted is not None:
        report_task(RoundRun.of(c, storage, aborted))
    return run_to_report(RoundRun.of(c, storage, open_task(c, storage, round_number)))


def outage_wait(c: Coordinator) -> OutageWait:
    """For one flow run; what it says goes to the log of whichever step waits."""
    return OutageWait(c.clock, lambda line: get_run_logger().warning("%s", line))


def run_to_report(run: RoundRun) -> dict[str, str]:
    """The steps after collection, each one task, in the order that the stage asks for."""
    followed: set[tuple[Stage, str]] = set()
    while True:
        match run.step(lambda _, seen: seen.stage):
            case Stage.EXCHANGING:
                follow_until(run, Stage.RELAYING, followed)
            case Stage.RELAYING:
                relay_task(run)
            case Stage.COLLECTING:
                follow_until(run, Stage.CLOSING, followed)
            case Stage.CLOSING:
                close_task(run)
            case Stage.MERGING:
                merge_task(run)
            case Stage.EVALUATING:
                follow_until(run, Stage.DECIDING, followed)
            case Stage.DECIDING:
                decide_task(run)
            case Stage.VOID:
                get_run_logger().warning("%s: the round is opened again", Stage.VOID.value)
                return {"outcome": "void", "rule": "plan.void", "report": "", "attempt": ""}
            case Stage.ABORTING:
                abort_task(run)
            case Stage.REPORTING | Stage.REPORTED:
                report = report_task(run)
                record = report.record
                return {
                    "outcome": record.outcome,
                    "rule": record.rule,
                    "report": report.digest,
                    "attempt": str(record.attempt),
                }


def follow_until(run: RoundRun, goal: Stage, followed: set[tuple[Stage, str]]) -> None:
    """One task per silo that follows its signed status and evidence until `goal` is due.

    A silo is followed once per goal; where the stage still waits after that, only time is left.
    """
    asked = run.step(lambda _, seen: listed_silos(seen.attempt)) or run.plan.record.cohort
    silos = [silo for silo in sorted(asked) if (goal, silo) not in followed]
    if not silos:
        run.c.clock.sleep(run.c.settings.round.poll_seconds)
        return
    follows = [
        follow_silo.with_options(task_run_name=f"follow {silo} until {goal.value}").submit(
            run, silo, goal
        )
        for silo in silos
    ]
    followed |= {(goal, silo) for silo in silos}
    for follow in follows:
        follow.result()


@task(name="open", **STEP)
def open_task(c: Coordinator, storage: OutageWait, round_number: int) -> Verified[RoundPlan]:
    """Sign the plan, or find the one in force."""
    plan = storage.through(None, lambda: open_round(c, round_number))
    get_run_logger().info("%s", wording.opened(plan.record, plan.digest))
    return plan


@task(name="follow", **STEP)
def follow_silo(run: RoundRun, silo: str, goal: Stage) -> str:
    """Show one silo's progress until it has answered or the deadline is over."""
    c, plan, progress = run.c, run.plan, SiloProgress(run.plan, silo)

    def shown() -> str | None:
        outcome = silo_outcome(run.feed, plan, silo, goal)
        status = read_status(c, run.feed.read(), plan, silo) if outcome is None else None
        if status is not None:
            progress.show(status)
        return outcome

    while (outcome := run.through(shown)) is None:
        c.clock.sleep(c.settings.round.poll_seconds)
    if goal is Stage.CLOSING:
        run.through(lambda: _receive(run, silo))
    progress.finish(outcome)
    get_run_logger().info("round %d: %s: %s", plan.record.round, silo, outcome)
    return outcome


@task(name="relay", **STEP)
def relay_task(run: RoundRun) -> str:
    """Pass on what silos need of each other's masks, or abort where too few said it."""
    passed_on = run.step(relay_masks)
    log, record = get_run_logger(), passed_on.record
    if isinstance(record, Abort):
        log.error("%s", wording.aborted(record))
    else:
        log.info("round %d: %s passed on", record.round, record.kind.replace("-", " "))
    return passed_on.digest


@task(name="close", **STEP)
def close_task(run: RoundRun) -> str:
    """Admit and sign the close record, or abort below quorum."""
    closed = run.step(close_round)
    get_run_logger().info("%s", wording.closed(closed.record, closed.digest))
    return closed.digest


@task(name="merge", **STEP)
def merge_task(run: RoundRun) -> str:
    """Merge the admitted adapters into the candidate, or abort where they give none."""
    merger, log = _module_merger(run.c), get_run_logger()
    merged = run.step(lambda c, seen: merge_or_abort(c, seen, merger))
    if isinstance(merged.record, Abort):
        log.error("%s", wording.aborted(merged.record))
        return merged.digest
    log.info("%s", wording.merged(run.plan.record, merged.record))
    return merged.digest


def _module_merger(c: Coordinator) -> "ModuleMerger | None":
    """This machine's threads, or Dask where the settings name a scheduler."""
    merge = c.settings.merge
    if merge.dask_scheduler is None:
        return None
    # Dask is an extra of the package.
    from flows.round.distributed_merge import merge_on_dask

    address = None if merge.dask_scheduler == "local" else merge.dask_scheduler
    return merge_on_dask(address, merge.dask_slice_modules)


@task(name="decide", **STEP)
def decide_task(run: RoundRun) -> str:
    """Publish or hold."""
    decision = run.step(decide_round).record
    get_run_logger().info("%s", wording.decided(run.plan.record, decision))
    return decision.outcome


@task(name="abort", **STEP)
def abort_task(run: RoundRun) -> str:
    """End an attempt that rests on a key which was revoked."""
    abort = run.step(abort_interrupted)
    get_run_logger().error("%s", wording.aborted(abort.record))
    return abort.digest


@task(name="report", **STEP)
def report_task(run: RoundRun) -> Verified[RoundReport]:
    """Sign and write the report; show its table and link."""
    report, files = run.step(report_round)
    show_silos(run.plan, report.record)
    link_report(run.plan, files.page or files.bundle)
    return report


def _receive(run: RoundRun, silo: str) -> None:
    """What has arrived is fetched and gated while others still train."""
    fault = receive(run.c, run.feed.read(), run.plan, silo)
    if fault is not None:
        get_run_logger().warning("%s: its adapter is refused by %s", silo, fault)
