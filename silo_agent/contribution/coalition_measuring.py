"""Losses of coalitions' adapters on this silo's own held-out records.

Guaranteed: nothing is fetched or measured unless the policy of that moment shares, the request can
still be answered and the contract lets losses out, and the same is asked again after the last
measurement. Adapters pass the gate before they are used; a few of them are on disk at a time, and
none when this is over. What was measured before a kill is in the loss book.
"""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from data_contracts.errors import DataStewardError
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import CoalitionLosses, ContributionRequest, Verdict
from data_contracts.protocol.records.contribution_request import CoalitionAdapter
from data_contracts.protocol.wire_types import decimal_from_float
from silo_agent.personal.own_factors import OWN_FACTORS, measured_with
from silo_agent.release.doors import TOO_LATE
from silo_agent.release.release import DoorClosedError
from silo_agent.silo import Silo
from silo_agent.steps.own_attempt import OwnAttempt, Step
from silo_agent.training.loss import Loss

log = logging.getLogger("silo-agent")

BATCH_COALITIONS = 16
"""Fetched and measured together: the model is loaded once for all of them."""

DIRECTORY = "coalitions"


LOSS_DECIMALS = 9
"""Contributions are small differences of losses."""

Request = Verified[ContributionRequest]


def answer_request(
    silo: Silo, attempt: OwnAttempt, verdict: Verdict, request: Request | None
) -> Step:
    """Release the losses of the round's coalitions, if there is a request that may be answered.

    Raises UntrustedInputError for an adapter that the gate refuses.
    """
    if request is None or silo.name not in request.record.silos or silo.is_stopped():
        return Step.FINISHED
    try:
        found = _losses(silo, attempt, verdict, request)
        attempt.out.record(_coalition_losses(silo, attempt, request, found))
    except DoorClosedError as closed:
        _say_once(request.digest, f"no losses of coalitions leave: {closed.refusal.reason}")
        shutil.rmtree(_directory(silo), ignore_errors=True)
        return Step.FINISHED
    except DataStewardError as error:
        _say_once(request.digest, f"for the silo operator only: {error}")
        return Step.FINISHED
    attempt.report.show("done")
    log.info(
        "round %d: held-out losses of the merges of %d sets of silos released, each over %d answer "
        "tokens",
        attempt.plan.record.round,
        len(found),
        found[0].tokens,
    )
    return Step.MEASURED


def _losses(
    silo: Silo, attempt: OwnAttempt, verdict: Verdict, request: Request
) -> tuple[Loss, ...]:
    """In the request's order; raises DoorClosedError when nothing may leave any more."""
    losses = list[Loss]()
    for batch in _batches(request.record.coalitions):
        _require_answerable(silo, attempt, request)
        losses += _measured(silo, attempt, verdict, batch)
    _require_answerable(silo, attempt, request)
    return tuple(losses)


def _require_answerable(silo: Silo, attempt: OwnAttempt, request: Request) -> None:
    if silo.clock.now() >= request.record.answer_by:
        raise DoorClosedError(CoalitionLosses, TOO_LATE)
    attempt.out.require_open(CoalitionLosses)


def _measured(
    silo: Silo, attempt: OwnAttempt, verdict: Verdict, batch: Sequence[CoalitionAdapter]
) -> tuple[Loss, ...]:
    known = replace(silo.adapters, home=_directory(silo))
    plan = attempt.plan.record
    home, with_own = silo.config.home, _directory(silo) / OWN_FACTORS
    adapters = [
        measured_with(home, plan, known.coalition(plan, part), with_own / f"{place}.safetensors")
        for place, part in enumerate(batch)
    ]
    found = silo.trainer.measure(plan, verdict, adapters, attempt.report)
    shutil.rmtree(_directory(silo), ignore_errors=True)
    return found


def _coalition_losses(
    silo: Silo, attempt: OwnAttempt, request: Request, found: tuple[Loss, ...]
) -> CoalitionLosses:
    return CoalitionLosses.on(
        attempt.plan,
        silo.clock.now(),
        silo=silo.name,
        request_digest=request.digest,
        tokens=found[0].tokens,
        losses=tuple(decimal_from_float(loss.nats, LOSS_DECIMALS) for loss in found),
    )


def _batches(coalitions: Sequence[CoalitionAdapter]) -> list[Sequence[CoalitionAdapter]]:
    starts = range(0, len(coalitions), BATCH_COALITIONS)
    return [coalitions[start : start + BATCH_COALITIONS] for start in starts]


def _directory(silo: Silo) -> Path:
    return silo.config.home / DIRECTORY


@lru_cache(maxsize=64)
def _say_once(request_digest: str, what: str) -> None:  # noqa: ARG001
    """The agent comes back every few seconds until the next plan; its log need not."""
    log.warning("%s", what)
