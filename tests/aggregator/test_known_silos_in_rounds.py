"""A coordinator that picks of whom a sum is, against a silo that says whom it knows."""

import pytest

from aggregator.settings.masking import MaskingSection
from data_contracts.protocol.dsse import fingerprint
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import (
    Countersignature,
    MaskKeys,
    MaskRoster,
    RevealedShares,
    RoundPlan,
    SealedShares,
    ShareBook,
    Submission,
)
from data_contracts.protocol.relayed import relay
from infra.disk.durable_files import write_durably
from tests.aggregator.test_dishonest_masks import (
    FIVE,
    attempt_in,
    closed,
    put,
    until,
    words,
)
from tests.simulator.federation import SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import Behaviour

WEARY = "silo-a"
"""It knows b, c and d, and wants all of them: e may be anybody."""


def knows(federation: SimulatedFederation, *known: str, least: int) -> None:
    """From now on, as a person has edited the policy."""
    path = federation.silos[WEARY].home / "policy.toml"
    text = path.read_text().split("[known_silos]")[0].replace("min_known_silos = 3\n", "")
    table = "\n".join(
        f'silo-{name} = "{fingerprint(federation.silos[f"silo-{name}"].key.public_key_hex)}"'
        for name in known
    )
    text = text.replace("[limits]\n", f"[limits]\nmin_known_silos = {least}\n")
    write_durably(path, f"{text}\n[known_silos]\n{table}\n".encode())


@pytest.fixture
def federation(make_federation: MakeFederation) -> SimulatedFederation:
    """Five silos with a threshold of four, which `WEARY` does not go by."""
    section = MaskingSection(key_minutes=5, share_minutes=5, reveal_minutes=10, largest_change=8)
    made = make_federation({"masking": section}, **FIVE)
    knows(made, "b", "c", "d", least=3)
    return made


def refused_by(federation: SimulatedFederation, plan: Verified[RoundPlan]) -> dict[str, str]:
    attempt = attempt_in(federation, plan)
    return {own.silo: own.refusal.record.rule for own in attempt.cohort() if own.refusal}


def test_a_round_with_all_of_them_is_as_any_other(federation: SimulatedFederation) -> None:
    plan = federation.open(1)
    federation.play(plan)
    attempt = attempt_in(federation, plan)
    assert attempt.candidate is not None
    assert attempt.of(WEARY).revealed_shares is not None


def test_a_cohort_without_one_of_them_is_refused_with_its_plan(
    federation: SimulatedFederation,
) -> None:
    members = tuple(
        m.model_copy(update={"first_round": 2}) if m.silo == "silo-d" else m
        for m in federation.pinned.record.silos
    )
    federation.change(silos=members)
    plan = federation.open(1)
    assert "silo-d" not in plan.record.cohort
    federation.silos_act(2)
    assert refused_by(federation, plan) == {WEARY: "policy.known_silos"}


def test_a_key_that_nobody_compared_is_not_the_partner_s(federation: SimulatedFederation) -> None:
    """As whoever holds the root keys may sign one of its own for a partner's name."""
    federation.replace_key("silo-d")
    plan = federation.open(1)
    federation.silos_act(2)
    assert refused_by(federation, plan)[WEARY] == "policy.known_silos"


def test_a_roster_without_one_of_them_gets_no_shares(federation: SimulatedFederation) -> None:
    plan = federation.open(1)
    attempt = until(federation, plan, MaskKeys, coordinator_acts=False)
    others = [word for word in words(attempt, "mask_keys") if word.record.silo != "silo-c"]
    put(federation, plan, MaskRoster.on(plan, plan.record.issued_at, keys=relay(others)))
    federation.silos_act(2)
    assert refused_by(federation, plan) == {WEARY: "policy.known_silos"}
    assert SealedShares.kind not in federation.silos[WEARY].kinds()
    assert SealedShares.kind in federation.silos["silo-b"].kinds()


def test_a_share_book_without_one_of_them_gets_no_training(
    federation: SimulatedFederation,
) -> None:
    plan = federation.open(1)
    attempt = until(federation, plan, SealedShares)
    assert attempt.roster is not None
    shares = [word for word in words(attempt, "sealed_shares") if word.record.silo != "silo-b"]
    at, digest = plan.record.issued_at, attempt.roster.digest
    put(federation, plan, ShareBook.on(plan, at, roster_digest=digest, shares=relay(shares)))
    federation.silos_act(2)
    assert refused_by(federation, plan) == {WEARY: "policy.known_silos"}
    assert Submission.kind not in federation.silos[WEARY].kinds()
    assert Submission.kind in federation.silos["silo-c"].kinds()


def test_a_list_of_survivors_without_one_of_them_is_not_countersigned(
    federation: SimulatedFederation,
) -> None:
    """As a coordinator signs that says of a partner that it dropped out."""
    plan, _, close = closed(federation)
    left = tuple(item for item in close.admitted if item.silo != "silo-d")
    put(federation, plan, close.model_copy(update={"admitted": left, "missing": ("silo-d",)}))
    federation.silos_act(3)
    assert Countersignature.kind not in federation.silos[WEARY].kinds()
    assert Countersignature.kind in federation.silos["silo-b"].kinds()


def test_a_policy_that_asks_for_more_counts_until_shares_are_out(
    federation: SimulatedFederation,
) -> None:
    """Whatever was countersigned before: a policy is asked at every step."""
    knows(federation, "b", "c", "d", least=2)
    federation.silos["silo-d"].behaviour = Behaviour.HONEST
    plan, _, close = closed(federation)
    left = tuple(item for item in close.admitted if item.silo != "silo-d")
    put(federation, plan, close.model_copy(update={"admitted": left, "missing": ("silo-d",)}))
    federation.silos_act(1)
    assert Countersignature.kind in federation.silos[WEARY].kinds()
    knows(federation, "b", "c", "d", least=3)
    federation.play(plan)
    assert RevealedShares.kind not in federation.silos[WEARY].kinds()
