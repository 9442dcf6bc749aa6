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
from aggregator.feed.reading import newest_attempt
from aggregator.planning.draft import cohort_of, draft_plan
from aggregator.planning.feasibility import require_possible
from aggregator.planning.inputs import PlanInputs, plan_inputs
from aggregator.planning.recipients import require_recipients
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.records import RoundPlan
from data_contracts.protocol.records.plan_terms import AdapterEncryption
from data_contracts.protocol.trusted_feed import TrustedFeed
from infra.encryption.identities import recipients_of


def drafted(c: Coordinator, feed: TrustedFeed, round_number: int, attempt: int) -> RoundPlan:
    """The plan for one attempt; raises FederationOperatorError when it could not be kept."""
    inputs = plan_inputs(c, feed)
    cohort = cohort_of(inputs, round_number)
    require_possible(c.settings, inputs, cohort)
    readers = require_recipients(c.settings, inputs, cohort)
    inputs = _readable(c, feed, inputs, readers)
    if readers is not None:
        inputs = replace(inputs, encryption=_encryption(c, inputs, round_number))
    return draft_plan(c.settings, inputs, round_number, attempt)


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
    newest, start = newest_attempt(c, feed), inputs.starting
    if newest is None:
        return inputs
    plan = newest.plan.record
    before = readers_of(plan, feed.membership_of(newest.plan).record)
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
