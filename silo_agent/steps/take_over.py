"""Under `shared_a`: the merged A of a round that was published, kept beside this silo's own B.

After its evaluation a silo asks for nothing else of the round, so it looks for the decision while
it is idle. A silo that was away then gets the A with the next plan, which starts from it.
"""

import logging

from silo_agent.federation.coordinator_view import read_coordinator
from silo_agent.personal.own_factors import OwnFactors
from silo_agent.silo import Silo
from silo_agent.steps.own_attempt import OwnAttempt

log = logging.getLogger("silo-agent")


def take_over(silo: Silo, attempt: OwnAttempt) -> None:
    """Keep the A once the decision says "published"; once, and nothing under another rule."""
    plan = attempt.plan.record
    if not plan.shares_a or attempt.done.evaluation is None or attempt.feed.aborted:
        return
    factors = OwnFactors(silo.config.home, plan.run)
    if attempt.plan.digest in silo.personal.decided or factors.has_shared(plan.round):
        return
    coordinator = read_coordinator(silo, attempt.plan, attempt.feed)
    if coordinator.decision is None or coordinator.candidate is None:
        return
    silo.personal.decided.add(attempt.plan.digest)
    if coordinator.decision.record.outcome != "published":
        return
    shared = silo.adapters.candidate(plan, coordinator.candidate.record).path
    if shared is not None:
        factors.keep_shared(plan.round, shared)
        log.info(
            "round %d: its A was taken over by all; with this silo's own B it is this silo's "
            "adapter: `silo-agent export --personal` writes it, nobody else has it",
            plan.round,
        )
