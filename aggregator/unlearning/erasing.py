"""An erasure is planned and signed: from then on no silo follows a plan that starts from what has
the part in it, and the run that it names goes on without."""

import re
from dataclasses import dataclass

from aggregator.coordinator import Coordinator
from aggregator.feed.claims import sign_entry
from aggregator.feed.reading import read_federation
from aggregator.unlearning.erasure_plan import Asked, ErasurePlan, erasure_plan
from aggregator.unlearning.hindrances import Hindrance, hindrances
from aggregator.unlearning.history import read_history
from aggregator.unlearning.past_round import PastRound
from aggregator.unlearning.revoked import mark_published
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.bucket_layout import blob_key
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.program_version import program_version
from data_contracts.protocol.records import Erasure
from data_contracts.protocol.records.erasure import ReplayedRound
from data_contracts.protocol.trusted_feed import TrustedFeed
from infra.disk.durable_files import write_durably
from infra.disk.model_files import model_digest

OTHER_SEEDS = 1_000_000
"""Added, with the entry's number, to the seeds of rounds that are trained with other numbers."""

_NUMBERED = re.compile(r"(.*[a-z-])([0-9]+)")
READABLE = 0o644


@dataclass(frozen=True)
class Choices:
    """What a person may choose: see `erasure_plan.Asked`; `run`: the name of the new run."""

    run: str | None = None
    from_seed: bool = False
    other_seeds: bool = False


@dataclass(frozen=True)
class Considered:
    """A plan, why it cannot be had, and the run that would repeat the rounds."""

    plan: ErasurePlan
    hindrances: tuple[Hindrance, ...]
    replay_run: str


def consider(c: Coordinator, feed: TrustedFeed, silo: str, choices: Choices) -> Considered:
    """What taking `silo` out of the run takes, as the feed is now; nothing is signed."""
    history, settings = read_history(c, feed), c.settings
    asked = Asked(
        silo=silo,
        run=settings.run,
        membership=feed.membership.record,
        model_digest=model_digest(settings.path(settings.base_model.path), c.model_digests),
        is_kept=lambda ref: _is_kept(c, ref),
        revoked=feed.erasures.revoked,
        from_seed=choices.from_seed,
        other_seeds=choices.other_seeds,
    )
    plan = erasure_plan(history, asked)
    runs = {past.record.run for past in history}
    runs |= {erasure.record.replay_run for erasure in feed.erasures.all}
    found = (*_of_runs(feed, history, choices, runs), *hindrances(history, plan))
    return Considered(plan, found, choices.run or next_run(settings.run, runs))


def start_erasure(c: Coordinator, silo: str, choices: Choices) -> Verified[Erasure]:
    """Sign the erasure of `silo`, or find the one whose replay has not begun; the file of it for
    auditors lies beside the reports. Raises FederationOperatorError for the first hindrance."""
    feed = read_federation(c)
    feed.require_current(c.clock.now())
    signed = _not_begun(feed, silo)
    if signed is None:
        considered = consider(c, feed, silo, choices)
        for found in considered.hindrances:
            raise FederationOperatorError(
                f"unlearning of {silo}",
                expected="a replay that can be had",
                found=f"{found.reason} ({found.rule})",
                action=found.action,
            )
        signed = sign_entry(c, feed, _erasure(c, feed, considered))
    write_erasure(c, signed)
    mark_published(c, read_federation(c))
    return signed


def write_erasure(c: Coordinator, erasure: Verified[Erasure]) -> None:
    """The signed record where reports lie, so that an auditor of one of them has it."""
    name = f"erasure-{erasure.record.feed_number:08d}.json"
    write_durably(c.reports / name, erasure.envelope, READABLE)


def next_run(run: str, taken: set[str]) -> str:
    """`run-1` becomes `run-2`, or the next that is free."""
    numbered = _NUMBERED.fullmatch(run)
    stem, number = (numbered[1], int(numbered[2])) if numbered else (f"{run}-", 1)
    while (name := f"{stem}{number + 1}") in taken:
        number += 1
    return name


def _erasure(c: Coordinator, feed: TrustedFeed, considered: Considered) -> Erasure:
    plan, head, membership = considered.plan, feed.head, feed.membership
    first = plan.first
    if first is None:
        raise ValueError("an erasure needs a round that the part is in")
    number = head.number + 1
    return Erasure(
        federation=c.settings.federation,
        issued_at=c.clock.now(),
        feed_number=number,
        previous_digest=head.digest,
        membership_number=membership.record.number,
        membership_digest=membership.digest,
        previous=feed.erasures.newest,
        silo=plan.asked.silo,
        method="replay",
        from_run=first.record.run,
        from_round=first.record.round,
        revoked=plan.revoked,
        starting_adapter=plan.start and plan.start.plain,
        replay_run=considered.replay_run,
        replayed=tuple(_replayed(each.past) for each in plan.again),
        seed_offset=OTHER_SEEDS + number if plan.has_other_seeds else 0,
        program=program_version(),
    )


def _replayed(past: PastRound) -> ReplayedRound:
    return ReplayedRound(
        run=past.record.run,
        round=past.record.round,
        feed_number=past.record.feed_number,
        plan_digest=past.plan.digest,
        published=past.published,
    )


def _not_begun(feed: TrustedFeed, silo: str) -> Verified[Erasure] | None:
    """The newest erasure, of this silo, after which nothing was planned."""
    newest = feed.erasures.all[-1:]
    if newest and newest[0].record.silo == silo and newest[0].digest == feed.head.digest:
        return newest[0]
    return None


def _of_runs(
    feed: TrustedFeed,
    history: list[PastRound],
    choices: Choices,
    taken: set[str],
) -> list[Hindrance]:
    found = []
    if choices.run in taken:
        found.append(
            Hindrance(
                "unlearn.run_taken",
                f"there is a run {choices.run} already",
                "give --run another name",
            )
        )
    for erasure in feed.erasures.all:
        record = erasure.record
        done = [p for p in history if p.record.run == record.replay_run and p.is_decided]
        last = max((past.record.round for past in done), default=0)
        if last < record.replayed[-1].round:
            found.append(
                Hindrance(
                    "unlearn.replay_under_way",
                    f"{record.replay_run} has not repeated all rounds without {record.silo} yet",
                    f'finish that first, with run = "{record.replay_run}" in federation.toml',
                )
            )
    return found


def _is_kept(c: Coordinator, ref: ArtifactRef) -> bool:
    """In storage, where silos will look for it."""
    return c.plans.stat(blob_key(ref.stored.digest)) is not None
