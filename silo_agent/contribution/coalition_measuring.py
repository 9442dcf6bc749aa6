"""Losses of coalitions' adapters on this silo's own held-out records.

Guaranteed: nothing is fetched or measured unless the policy of that moment shares, the request can
still be answered and the contract lets losses out, and the same is asked again after the last
measurement. Adapters pass the gate before they are used; a few of them are on disk at a time, and
none when this is over. What was measured before a kill is in the loss book.
"""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from data_contracts.errors import DataStewardError
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import CoalitionLosses, ContributionRequest, RoundPlan, Verdict
from data_contracts.protocol.records.contribution_request import CoalitionAdapter
from data_contracts.protocol.wire_types import decimal_from_float
from silo_agent.federation.coordinator_view import read_coordinator
from silo_agent.federation.feed import FeedView
from silo_agent.federation.global_adapters import GlobalAdapters
from silo_agent.policy.policy import PolicyFile, PolicyRefusal
from silo_agent.release.doors import LOSSES, NOT_SHARED, TOO_LATE, objection
from silo_agent.release.release import Released
from silo_agent.release.status_reporter import StatusReporter
from silo_agent.silo import Silo
from silo_agent.training.loss import Loss

log = logging.getLogger("silo-agent")

BATCH_COALITIONS = 16
"""Fetched and measured together: the model is loaded once for all of them."""

DIRECTORY = "coalitions"


LOSS_DECIMALS = 9
"""Contributions are small differences of losses."""

Request = Verified[ContributionRequest]


@dataclass(frozen=True)
class Asked:
    """A plan about which this silo may be asked, and what its answer rests on."""

    plan: Verified[RoundPlan]
    done: Released
    verdict: Verdict
    feed: FeedView


def answer_request(silo: Silo, asked: Asked) -> bool:
    """Release the losses of the round's coalitions, if there is a request that may be answered.

    Raises UntrustedInputError for an adapter that the gate refuses.
    """
    request = None if silo.is_stopped() else _request(silo, asked)
    if request is None:
        return False
    reporter = silo.reporter(asked.plan, silo.terms(asked.feed.parties(silo.name)))
    found = _losses(silo, asked, request, reporter)
    if found is None:
        return False
    silo.release.record(
        CoalitionLosses.on(
            asked.plan,
            silo.clock.now(),
            silo=silo.name,
            request_digest=request.digest,
            tokens=found[0].tokens,
            losses=tuple(decimal_from_float(loss.nats, LOSS_DECIMALS) for loss in found),
        )
    )
    reporter.show("done")
    log.info(
        "round %d: held-out losses of the merges of %d sets of silos released, each over %d answer "
        "tokens",
        asked.plan.record.round,
        len(found),
        found[0].tokens,
    )
    return True


def _request(silo: Silo, asked: Asked) -> Request | None:
    """A silo that has not accepted with its adapter shared does not even look for one."""
    done = asked.done
    shares = done.acceptance is not None and done.acceptance.record.shares_individual_delta
    if not shares or done.submission is None or done.coalition_losses is not None:
        return None
    request = read_coordinator(silo, asked.plan, asked.feed).request
    return request if request is not None and silo.name in request.record.silos else None


def _losses(
    silo: Silo, asked: Asked, request: Request, report: StatusReporter
) -> tuple[Loss, ...] | None:
    """In the request's order, or None when nothing may leave; the log says why."""
    losses = list[Loss]()
    for batch in _batches(request.record.coalitions):
        closed = _is_closed(silo, asked, request)
        found = None if closed else _measured(silo, asked, request, batch, report)
        if found is None:
            return None
        losses += found
    return None if _is_closed(silo, asked, request) else tuple(losses)


def not_shared(file: PolicyFile) -> PolicyRefusal | None:
    """Why the policy keeps losses of coalitions in, or None; a policy that is not there does."""
    shares = file.policy is not None and file.policy.share_individual_delta
    return None if shares else NOT_SHARED


def _measured(
    silo: Silo,
    asked: Asked,
    request: Request,
    batch: Sequence[CoalitionAdapter],
    report: StatusReporter,
) -> tuple[Loss, ...] | None:
    known = GlobalAdapters(_directory(silo), silo.plans)
    plan = asked.plan.record
    adapters = [known.coalition(plan, part) for part in batch]
    try:
        found = silo.trainer.measure(plan, asked.verdict, adapters, report)
    except DataStewardError as error:
        _say_once(request.digest, f"for the silo operator only: {error}")
        return None
    shutil.rmtree(_directory(silo), ignore_errors=True)
    return found


def _is_closed(silo: Silo, asked: Asked, request: Request) -> bool:
    closed = _objection(silo, asked, request)
    if closed is None:
        return False
    _say_once(request.digest, f"no losses of coalitions leave: {closed.reason}")
    shutil.rmtree(_directory(silo), ignore_errors=True)
    return True


def _objection(silo: Silo, asked: Asked, request: Request) -> PolicyRefusal | None:
    now = silo.clock.now()
    if now >= request.record.answer_by:
        return TOO_LATE
    terms = silo.terms(asked.feed.parties(silo.name))
    return not_shared(silo.policy()) or objection(asked.verdict, asked.plan, terms, now, LOSSES)


def _batches(coalitions: Sequence[CoalitionAdapter]) -> list[Sequence[CoalitionAdapter]]:
    starts = range(0, len(coalitions), BATCH_COALITIONS)
    return [coalitions[start : start + BATCH_COALITIONS] for start in starts]


def _directory(silo: Silo) -> Path:
    return silo.config.home / DIRECTORY


@lru_cache(maxsize=64)
def _say_once(request_digest: str, what: str) -> None:  # noqa: ARG001
    """The agent comes back every few seconds until the next plan; its log need not."""
    log.warning("%s", what)
