"""The next plan, with what it starts from where its cohort can read it.

Where adapters are encrypted, in this order: every reader has a recipient and the coordinator holds
its own identity, or nothing is made; what the plan starts from is in storage for just these
readers; the attempt's identity is on this disk, synced, before the plan that names it is signed.
"""

from dataclasses import replace

from aggregator.coordinator import COORDINATOR_IDENTITY, Coordinator
from aggregator.evidence.attempt_keys import make_attempt_key
from aggregator.evidence.spool import spool
from aggregator.evidence.storing import Readers, coordinator_alone, readers_of, store
from aggregator.feed.reading import plan_before, repeated_plan
from aggregator.planning.draft import cohort_of, draft_plan
from aggregator.planning.feasibility import require_possible
from aggregator.planning.inputs import PlanInputs, plan_inputs
from aggregator.planning.recipients import require_recipients
from aggregator.unlearning.repeated_plan import cohort_again, repeated_plan_of
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.records import RoundPlan
from data_contracts.protocol.records.plan_terms import AdapterEncryption
from data_contracts.protocol.trusted_feed import TrustedFeed
from infra.encryption.identities import recipients_of


def drafted(c: Coordinator, feed: TrustedFeed, round_number: int, attempt: int) -> RoundPlan:
    """The plan for one attempt; raises FederationOperatorError when it could not be kept."""
    inputs = plan_inputs(c, feed)
    _require_unrevoked(feed, inputs)
    old, erasure = repeated_plan(c, feed, round_number), feed.erasures.replay_of(c.settings.run)
    if old is not None and erasure is not None:
        cohort = cohort_again(old.record, erasure.record, inputs)
        inputs = _for_readers(c, feed, inputs, cohort, round_number)
        return repeated_plan_of(old, erasure, inputs, attempt)
    cohort = cohort_of(inputs, round_number)
    require_possible(c.settings, inputs, cohort)
    inputs = _for_readers(c, feed, inputs, cohort, round_number)
    return draft_plan(c.settings, inputs, round_number, attempt)


def _require_unrevoked(feed: TrustedFeed, inputs: PlanInputs) -> None:
    """No plan starts from what has the part of a silo that was taken out."""
    starting = inputs.starting
    refs = (starting.adapter, starting.residual, starting.earlier, starting.server_state)
    by = [feed.erasures.revoking(ref.digest) for ref in refs if ref is not None]
    erasure = next((found.record for found in by if found is not None), None)
    if erasure is not None:
        raise FederationOperatorError(
            "what the next round starts from",
            expected="an adapter that was not revoked",
            found=f"one with the part of {erasure.silo}, revoked by feed entry "
            f"{erasure.feed_number}",
            action=f'set run = "{erasure.replay_run}" in federation.toml, which goes on without it',
        )


def _for_readers(
    c: Coordinator,
    feed: TrustedFeed,
    inputs: PlanInputs,
    cohort: tuple[str, ...],
    round_number: int,
) -> PlanInputs:
    readers = require_recipients(c.settings, inputs, cohort)
    inputs = _readable(c, feed, inputs, readers)
    if readers is None:
        return inputs
    return replace(inputs, encryption=_encryption(c, inputs, round_number))


def _encryption(c: Coordinator, inputs: PlanInputs, round_number: int) -> AdapterEncryption:
    own = _own_recipient(c, inputs)
    of_attempt = make_attempt_key(c, c.settings.run, round_number)
    return AdapterEncryption(round_recipient=of_attempt, coordinator_recipient=own)


def _own_recipient(c: Coordinator, inputs: PlanInputs) -> str:
    membership = inputs.membership.record
    named = membership.coordinator_recipient
    if named is None or named not in recipients_of(c.identities):
        raise FederationOperatorError(
            "age identity of the coordinator",
            expected=f"that of {named}, which membership {membership.number} names",
            found="others" if c.identities else "none",
            action=f"bring {c.settings.path(COORDINATOR_IDENTITY)} back from a backup, or make one "
            "with `consortia federation rotate-key --coordinator-recipient`",
        )
    return named


def _readable(
    c: Coordinator, feed: TrustedFeed, inputs: PlanInputs, readers: Readers
) -> PlanInputs:
    """What the plan starts from, for these readers: as it lies there if they are the ones that it
    was put there for, else put there anew. So who joined, or has a new identity, can read it."""
    named_by, start = plan_before(c, feed), inputs.starting
    if named_by is None:
        return inputs
    plan = named_by.record
    before = readers_of(plan, feed.membership_of(named_by).record)
    alone: Readers = None
    if readers is not None:
        alone = frozenset({_own_recipient(c, inputs)})
    alone_before = None if before is None else coordinator_alone(plan)

    def again(ref: ArtifactRef | None, wanted: Readers, known: Readers) -> ArtifactRef | None:
        if ref is None or ((ref.ciphertext is None) is (wanted is None) and wanted == known):
            return ref
        return store(c, spool(c, c.plans, ref), ref, wanted)

    starting = replace(
        start,
        adapter=again(start.adapter, readers, before),
        residual=again(start.residual, readers, before),
        earlier=again(start.earlier, readers, before),
        server_state=again(start.server_state, alone, alone_before),
    )
    return replace(inputs, starting=starting)
