"""Who adapters are encrypted to, in memberships: named, replaced, shown, and never twice."""

from pathlib import Path

import pytest

from aggregator.coordinator import COORDINATOR_IDENTITY
from aggregator.planning.membership_changes import (
    Change,
    revoking_silo,
    with_coordinator_recipient,
    with_silo,
    with_silo_key,
)
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.payload import canonical_bytes
from data_contracts.protocol.records import Membership
from flows.federation.coordinator_keys import (
    genuine_until,
    revoke_coordinator_key,
    rotate_coordinator_recipient,
)
from flows.federation.membership_difference import changes
from flows.federation.membership_signing import Published, change_membership
from infra.encryption.identities import load_identities, new_identity
from tests.simulator.federation import SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import Behaviour

NEW, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def federation(make_federation: MakeFederation) -> SimulatedFederation:
    return make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST)


def root_of(federation: SimulatedFederation) -> Path:
    return federation.directory / "keys" / "root.pem"


def published(federation: SimulatedFederation, change: Change) -> Membership:
    c = federation.coordinator()
    outcome = change_membership(c, change, root_keys=[root_of(federation)])
    assert isinstance(outcome, Published) and outcome.changed
    return c.feed.refresh().membership.record


def test_a_membership_without_recipients_is_signed_as_before(
    federation: SimulatedFederation,
) -> None:
    signed = canonical_bytes(federation.pinned.record)
    assert b"recipient" not in signed
    assert federation.pinned.record.recipient_of("silo-a") is None


def test_recipients_are_named_replaced_and_shown_to_signers(
    federation: SimulatedFederation,
) -> None:
    first, (one, two, three) = federation.pinned.record, (new_identity() for _ in range(3))
    joined = published(federation, with_silo("silo-x", NEW, recipient=one.recipient))
    assert joined.recipient_of("silo-x") == one.recipient
    assert f"adapters for silo-x are encrypted to {one.recipient}" in changes(first, joined)
    kept = published(federation, with_silo("silo-x", OTHER))
    assert kept.recipient_of("silo-x") == one.recipient
    rotated = published(federation, with_silo_key("silo-x", recipient=two.recipient))
    assert (rotated.key_of("silo-x"), rotated.recipient_of("silo-x")) == (OTHER, two.recipient)
    lines = changes(kept, rotated)
    assert f"adapters for silo-x are encrypted to {two.recipient}" in lines
    assert not any("new key" in line for line in lines)
    both = published(federation, revoking_silo("silo-x", NEW, three.recipient))
    assert (both.key_of("silo-x"), both.recipient_of("silo-x")) == (NEW, three.recipient)


def test_two_parties_cannot_name_one_recipient(federation: SimulatedFederation) -> None:
    recipient = new_identity().recipient
    published(federation, with_coordinator_recipient(recipient))
    with pytest.raises(FederationOperatorError, match="recipients must be distinct"):
        change = with_silo_key("silo-a", recipient=recipient)
        change_membership(federation.coordinator(), change, root_keys=[root_of(federation)])


def test_the_coordinator_s_first_and_next_identity(federation: SimulatedFederation) -> None:
    path = federation.settings.path(COORDINATOR_IDENTITY)
    for number in (1, 2):
        outcome = rotate_coordinator_recipient(federation.coordinator(), [root_of(federation)])
        assert isinstance(outcome, Published)
        held = load_identities(path)
        assert len(held) == number
        assert outcome.membership.record.coordinator_recipient == held[0].recipient
    # Whoever has the signing key may have the identity that lies beside it.
    c = federation.coordinator()
    revoked = revoke_coordinator_key(c, genuine_until(c, 0), [root_of(federation)])
    assert isinstance(revoked, Published)
    held = load_identities(path)
    assert len(held) == 3
    assert revoked.membership.record.coordinator_recipient == held[0].recipient
