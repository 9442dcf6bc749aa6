"""One round at one silo: plan -> policy -> data gate -> training -> release -> evaluation.

Where silos share their adapters, a request to measure coalitions is answered after the evaluation.
Where the silo makes an adapter of its own, it does so while it waits for the others.

`advance` does the next thing that is due, judging only by what lies in storage and in the silo's
own outbox, so it can be killed anywhere and called again. `run_round` calls it until the round is
over for this silo. Neither needs Prefect, an inbound port or anything but the silo's bucket pair.
"""

import logging

from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import CoalitionLosses, Evaluation, Verdict
from silo_agent.contribution.coalition_measuring import answer_request
from silo_agent.federation.coordinator_view import CoordinatorView, read_coordinator
from silo_agent.federation.feed import FeedView, refresh_feed
from silo_agent.federation.own_key import (
    require_not_revoked,
    require_own_key,
    signs_from_the_next_plan,
)
from silo_agent.home.agent_disk import prune_between_steps
from silo_agent.home.catching_up import catch_up
from silo_agent.masking.kept_secrets import KeptSecrets
from silo_agent.release.release import DoorClosedError
from silo_agent.silo import Silo
from silo_agent.steps.answer import answer, refuse
from silo_agent.steps.charge import settle
from silo_agent.steps.check import check_data
from silo_agent.steps.evaluate import compare_with_close, evaluate
from silo_agent.steps.mask import mask_step
from silo_agent.steps.own_attempt import OwnAttempt, Step, own_attempt
from silo_agent.steps.personalise import is_personal_due, personalise
from silo_agent.steps.take_over import take_over
from silo_agent.steps.train import train

log = logging.getLogger("silo-agent")


def poll_once(silo: Silo) -> Step | None:
    """Read the feed and advance its newest plan by one step; None when no plan concerns us.

    First what no round needs is removed: nothing of this agent runs between two steps.
    """
    catch_up(silo)
    feed = refresh_feed(silo)
    if silo.pruning.is_due(feed.feed, silo.clock.now()):
        prune_between_steps(silo, feed.feed)
    step = _step(silo, feed)
    if step not in (None, Step.WAITING, Step.FINISHED):
        silo.pruning.stepped()
    return step


def _step(silo: Silo, feed: FeedView) -> Step | None:
    plan = feed.plan
    if plan is None or silo.name not in plan.record.cohort:
        require_own_key(silo, feed.newest)
        return None
    if signs_from_the_next_plan(silo, feed, plan):
        return None
    require_own_key(silo, feed.membership_of(plan))
    require_not_revoked(silo, feed, plan)
    if feed.coordinator(plan).only is not None:
        # Whoever holds the coordinator's key now ends this attempt and opens the next.
        return Step.WAITING
    return advance(silo, own_attempt(silo, feed, plan))


def run_round(silo: Silo) -> Step | None:
    """Take part in the newest round until it is over for this silo, or the agent is stopped."""
    while not silo.is_stopped():
        step = poll_once(silo)
        if step in (None, Step.FINISHED):
            return step
        if step is Step.WAITING:
            silo.clock.sleep(silo.config.agent.poll_seconds)
    return None


def advance(silo: Silo, attempt: OwnAttempt) -> Step:
    """Do the one thing that is due in this attempt; a door that has closed ends its part."""
    try:
        attempt.out.send_unsent(attempt.done)
        step = _next_step(silo, attempt)
        # Only while nothing else is to be done: whoever is waited for is not held up.
        is_idle = step in (Step.WAITING, Step.FINISHED)
        if is_idle:
            take_over(silo, attempt)
        return personalise(silo, attempt) if is_idle and is_personal_due(silo, attempt) else step
    except DoorClosedError as closed:
        if closed.kind is Evaluation:
            log.warning("no losses leave: %s", closed.refusal.reason)
        if closed.kind in (Evaluation, CoalitionLosses):
            return Step.FINISHED
        return refuse(silo, attempt, closed.refusal)


def _next_step(silo: Silo, attempt: OwnAttempt) -> Step:
    done = attempt.done
    settle(silo, attempt)
    if attempt.feed.aborted or done.refusal is not None:
        KeptSecrets.of(silo.config.home, attempt.plan).erase()
        return Step.FINISHED
    if done.acceptance is None:
        return answer(silo, attempt)
    if done.verdict is None:
        return check_data(silo, attempt)
    has_evaluated = done.evaluation is not None
    if has_evaluated:
        KeptSecrets.of(silo.config.home, attempt.plan).erase()
    if not done.verdict.record.passed or (has_evaluated and not done.may_be_asked):
        return Step.FINISHED
    coordinator = read_coordinator(silo, attempt.plan, attempt.feed)
    if has_evaluated:
        return answer_request(silo, attempt, done.verdict.record, coordinator.request)
    return _train_or_evaluate(silo, attempt, done.verdict, coordinator)


def _train_or_evaluate(
    silo: Silo, attempt: OwnAttempt, verdict: Verified[Verdict], coordinator: CoordinatorView
) -> Step:
    close, candidate = coordinator.close, coordinator.candidate
    masked = mask_step(silo, attempt, coordinator)
    if masked is not None:
        return masked
    if attempt.done.submission is None and close is None:
        return train(silo, attempt, verdict, coordinator)
    if candidate is None or close is None:
        return Step.FINISHED if coordinator.decision is not None else Step.WAITING
    compare_with_close(silo, attempt.done, close.record)
    return evaluate(silo, attempt, verdict.record, candidate)
