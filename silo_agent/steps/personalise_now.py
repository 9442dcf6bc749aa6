"""A personal adapter when its people ask for one: for what the federation has published last.

Not a step of a round: nothing is signed, nothing leaves, and no round waits. The data gate is asked
as it is now, and the kill switch ends it like any training.
"""

from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import RoundPlan
from silo_agent.collaborators import GlobalAdapter
from silo_agent.federation.coordinator_view import read_coordinator
from silo_agent.federation.feed import FeedView, refresh_feed
from silo_agent.federation.global_adapters import GlobalAdapters
from silo_agent.personal.kept import MadeFor, PersonalFacts
from silo_agent.silo import Silo
from silo_agent.steps.own_attempt import own_attempt
from silo_agent.steps.personal_training import PersonalTraining, kept_of, reporter
from silo_agent.steps.personalise import show_as_before, words_of_shared_a

WHAT = "personal adapter"


def personalise_now(silo: Silo, steps: int | None = None) -> tuple[PersonalFacts, bool]:
    """The personal adapter for the newest published one, and whether it was trained just now.

    Where there is one for that very adapter already, it is that. `steps` are as many as the round
    has where nothing is said. Raises SiloOperatorError where one cannot be made now, and
    TrainingInterruptedError when it is stopped or takes longer than `time_limit_seconds`.
    """
    if not silo.config.personal.is_on:
        raise _refused(
            "a method of making it",
            'method = "off" under [personal] in silo-agent.toml',
            'set method = "dual" or "ditto" there; every_round = false leaves rounds without one',
        )
    feed = refresh_feed(silo)
    plan = feed.plan
    if plan is None or silo.name not in plan.record.cohort:
        found = "no round yet" if plan is None else "a newest round without this silo"
        raise _refused("a round of this silo", found, "take part in one, then try again")
    if plan.record.shares_a:
        found = words_of_shared_a(silo.config.personal.method)
        raise _refused("a run that publishes an adapter", found, "export this silo's own B instead")
    starting, made_for = _newest_published(silo, feed, plan)
    kept = kept_of(silo.config, plan.record)
    if kept is not None and kept.facts.made_for == made_for:
        return kept.facts, False
    training = PersonalTraining(
        plan=plan,
        starting=starting,
        made_for=made_for,
        findings=_findings(silo, feed, plan),
        seconds=silo.config.training.time_limit_seconds,
        steps=steps,
    )
    facts = training.done(silo)
    show_as_before(silo, own_attempt(silo, feed, plan))
    if facts is None:
        raise _refused(
            "losses of it, measured within time_limit_seconds of [training]",
            "a time that was over before",
            "give it more there, and try again: it goes on from its last checkpoint",
        )
    return facts, True


def _newest_published(
    silo: Silo, feed: FeedView, plan: Verified[RoundPlan]
) -> tuple[GlobalAdapter, MadeFor]:
    """What the newest round has published or, as long as it has not, what it started from."""
    known = GlobalAdapters(silo.config.home, silo.plans)
    coordinator = read_coordinator(silo, plan, feed)
    candidate, decision = coordinator.candidate, coordinator.decision
    if candidate is not None and decision is not None and decision.record.outcome == "published":
        return known.candidate(plan.record, candidate.record), "published"
    starting = known.starting(plan.record)
    if starting.path is None:
        found = f"none yet: round {plan.record.round} of {plan.record.run} is the newest"
        raise _refused("an adapter that the run has published", found, "wait for the round's end")
    return starting, "starting"


def _findings(silo: Silo, feed: FeedView, plan: Verified[RoundPlan]) -> str:
    """Digest of what the data gate finds now, by a contract that both sides have signed."""
    contract = silo.release.in_force.contract(feed.parties(silo.name))
    if contract is None or contract.expires_at <= silo.clock.now():
        found = (
            "none" if contract is None else f"one that expired on {contract.expires_at:%Y-%m-%d}"
        )
        raise _refused(
            "a data contract in force, signed by both sides", found, "run `silo-agent check --data`"
        )
    report = reporter(silo, plan)
    outcome = silo.gate.check(lambda records: report.show("checking_data", step=records))
    if not outcome.passed:
        broken = ", ".join(each.rule for each in outcome.outcomes if not each.success)
        raise _refused(
            "data that their contract allows to train on",
            f"broken rules: {broken}",
            "run `silo-agent check --data`",
        )
    return outcome.findings_digest


def _refused(expected: str, found: str, action: str) -> SiloOperatorError:
    return SiloOperatorError(WHAT, expected=expected, found=found, action=action)
