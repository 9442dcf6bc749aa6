"""Contributions that silos measure: asked only where all share, answered once, killed anywhere."""

import json
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from statistics import fmean
from typing import Any

import pytest

from aggregator.contribution.by_silos import Question, Waiting, contributions_by_silos
from aggregator.contribution.coalitions import leave_one_out_coalitions
from aggregator.contribution.result import Contributions
from data_contracts.dataset.contract.terms import EGRESS
from data_contracts.errors import FederationOperatorError, StorageError
from data_contracts.protocol.bucket_layout import attempt_of, blob_key, round_slot
from data_contracts.protocol.envelope import Verified, seal, verify
from data_contracts.protocol.records import CoalitionLosses, ContributionRequest, RoundPlan
from infra.records.record_store import write_record
from infra.signing_keys import SigningKey, create_key
from tests.simulator.federation import SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import Behaviour

SILOS = ("silo-a", "silo-b", "silo-c")
HOUR = timedelta(hours=1)
LEAVE_ONE_OUT = Question(1, exact=False, answer_within=HOUR)
EXACT = Question(1, exact=True, answer_within=HOUR)


@pytest.fixture
def federation(make_federation: MakeFederation) -> SimulatedFederation:
    """Three silos that share."""
    made = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST, c=Behaviour.HONEST)
    for silo in SILOS:
        made.share(silo)
    return made


@pytest.fixture
def plan(federation: SimulatedFederation) -> Verified[RoundPlan]:
    """A round that is reported."""
    opened = federation.open()
    federation.play(opened)
    return opened


def asked(
    federation: SimulatedFederation, question: Question = LEAVE_ONE_OUT
) -> Contributions | Waiting:
    """What the command says when it is run now."""
    return contributions_by_silos(federation.coordinator(), question)


def values(federation: SimulatedFederation, question: Question = LEAVE_ONE_OUT) -> Contributions:
    found = asked(federation, question)
    assert isinstance(found, Contributions), found
    return found


def request(federation: SimulatedFederation) -> Verified[ContributionRequest]:
    key = federation.key.public_key_hex
    (envelope,) = (
        data
        for key, data in federation.plans.objects.items()
        if "/contribution-request/" in key and key.endswith(".json")
    )
    return verify(envelope, ContributionRequest, {key})


def answer(federation: SimulatedFederation, silo: str) -> CoalitionLosses:
    (envelope,) = (
        data for key, data in federation.inbox(silo).objects.items() if "/coalition-losses/" in key
    )
    keys = {federation.silos[silo].key.public_key_hex}
    return verify(envelope, CoalitionLosses, keys).record


def losses(federation: SimulatedFederation, coalition: frozenset[str]) -> float:
    """By hand: the plain mean of the silos' losses, whatever tokens they claim."""
    place = request(federation).record.coalition_silos().index(coalition)
    return fmean(float(answer(federation, silo).losses[place]) for silo in SILOS)


def forged(
    federation: SimulatedFederation,
    silo: str,
    plan: Verified[RoundPlan],
    key: SigningKey | None = None,
    /,
    **changes: Any,
) -> None:
    """Put an answer of its own making into a silo's inbox."""
    made = request(federation)
    fields: dict[str, Any] = {
        "federation": plan.record.federation,
        "issued_at": federation.clock.now(),
        "run": plan.record.run,
        "round": plan.record.round,
        "attempt": plan.record.attempt,
        "plan_digest": plan.digest,
        "silo": silo,
        "request_digest": made.digest,
        "tokens": 10,
        "losses": (Decimal("1"),) * len(made.record.coalitions),
    }
    record = seal(CoalitionLosses(**fields | changes), key or federation.silos[silo].key)
    slot = round_slot(attempt_of(plan), CoalitionLosses.kind)
    write_record(federation.inbox(silo), slot, record)


def test_silos_measure_a_round_that_is_reported(
    federation: SimulatedFederation, plan: Verified[RoundPlan]
) -> None:
    first = asked(federation)
    answer_by = federation.clock.now() + HOUR
    assert first == Waiting(answered=(), missing=SILOS, answer_by=answer_by)
    federation.silos_act()
    found = values(federation)
    assert (found.method, found.measured_by) == ("leave-one-out", SILOS)
    everyone = frozenset(SILOS)
    assert found.merged_loss == pytest.approx(losses(federation, everyone))
    assert found.starting_loss == pytest.approx(losses(federation, frozenset()))
    for value in found.values:
        without = losses(federation, everyone - {value.silo})
        assert value.value == pytest.approx(without - losses(federation, everyone))
        assert value.low <= value.value <= value.high
    tokens = {answer(federation, silo).tokens for silo in SILOS}
    assert len(tokens) == 3, "so that weights by tokens would show"
    name = "contributions-run-1-round-0001-leave-one-out-by-silos.json"
    written = json.loads((federation.coordinator().reports / name).read_text())
    assert written["measured_by"] == list(SILOS)
    assert written["request_digest"] == request(federation).digest
    locked = [key for silo in SILOS for key, _ in federation.inbox(silo).locks]
    assert all(any(digest in key for key in locked) for digest in found.answer_digests)


def test_exact_values_share_out_the_whole_change(
    federation: SimulatedFederation, plan: Verified[RoundPlan]
) -> None:
    asked(federation, EXACT)
    federation.silos_act()
    found = values(federation, EXACT)
    change = found.starting_loss - found.merged_loss
    assert sum(value.value for value in found.values) == pytest.approx(change)
    a, b, c = SILOS
    others = [(frozenset[str](), 1 / 3), (frozenset({b}), 1 / 6), (frozenset({c}), 1 / 6)]
    weighted = [*others, (frozenset({b, c}), 1 / 3)]
    by_hand = sum(
        share * (losses(federation, each) - losses(federation, each | {a}))
        for each, share in weighted
    )
    assert found.values[0].value == pytest.approx(by_hand)
    few = values(federation)
    assert few.method == "leave-one-out", "the same answers hold the losses that it needs"


def test_adapters_of_a_request_are_in_storage_and_the_empty_coalition_is_the_start(
    federation: SimulatedFederation, plan: Verified[RoundPlan]
) -> None:
    asked(federation)
    made = request(federation).record
    assert made.coalition_silos() == (*leave_one_out_coalitions(SILOS), frozenset())
    stored = [part.adapter for part in made.coalitions if part.adapter is not None]
    assert len({ref.digest for ref in stored}) == 4
    assert all(blob_key(ref.digest) in federation.plans.objects for ref in stored)
    assert made.coalitions[-1].adapter is None is plan.record.starting_adapter
    assert not list(federation.coordinator().workspace.rglob("merged"))


def test_a_command_that_is_run_again_changes_nothing(
    federation: SimulatedFederation, plan: Verified[RoundPlan]
) -> None:
    asked(federation)
    waiting = federation.snapshot()
    federation.clock.sleep(60)
    asked(federation)
    assert federation.snapshot() == waiting
    federation.silos_act(3)
    found = values(federation)
    done = federation.snapshot()
    federation.silos_act()
    forged(federation, "silo-b", plan)
    assert values(federation) == found, "an equivocation after the values changes nothing"
    assert len(federation.snapshot()) == len(done) + 1


@pytest.mark.parametrize("keeping", [("silo-b",), ("silo-a", "silo-c")])
def test_one_silo_that_does_not_share_is_enough_to_ask_nobody(
    federation: SimulatedFederation, keeping: tuple[str, ...]
) -> None:
    for silo in keeping:
        federation.share(silo, shares=False)
    federation.play(federation.open())
    for silo in keeping:
        federation.share(silo)
    before = federation.snapshot()
    with pytest.raises(FederationOperatorError, match=f"not so at {', '.join(keeping)}"):
        asked(federation)
    assert federation.snapshot() == before
    assert not list(federation.coordinator().workspace.rglob("stored"))


def test_a_silo_that_was_not_admitted_need_not_share(make_federation: MakeFederation) -> None:
    federation = make_federation(
        a=Behaviour.HONEST, b=Behaviour.HONEST, c=Behaviour.FAILING_CONTRACT
    )
    for silo in SILOS[:2]:
        federation.share(silo)
    federation.play(federation.open())
    asked(federation)
    federation.silos_act()
    assert values(federation).measured_by == SILOS[:2]
    assert "coalition-losses" not in federation.silos["silo-c"].kinds()


def test_a_request_before_the_evaluation_is_answered_after_it(
    federation: SimulatedFederation,
) -> None:
    from aggregator.federated_round import close_round, merge_round

    opened = federation.open()
    federation.silos_act(4)
    close_round(federation.coordinator(), federation.look(opened))
    asked(federation)
    federation.silos_act()
    assert "coalition-losses" not in federation.silos["silo-a"].kinds()
    merge_round(federation.coordinator(), federation.look(opened))
    federation.silos_act(2)
    assert {"evaluation", "coalition-losses"} <= federation.silos["silo-a"].kinds()
    assert values(federation).measured_by == SILOS


OTHER = "0" * 64
ONE_LOSS = {"losses": (Decimal("1"),)}


@pytest.mark.parametrize(
    "changes", [{"request_digest": OTHER}, {"plan_digest": OTHER}, {"silo": "silo-a"}, ONE_LOSS]
)
def test_an_answer_that_is_none_to_this_request_does_not_count(
    federation: SimulatedFederation, plan: Verified[RoundPlan], changes: dict[str, Any]
) -> None:
    asked(federation)
    federation.silos["silo-c"].behaviour = Behaviour.ABSENT
    federation.silos_act()
    forged(federation, "silo-c", plan, **changes)
    assert asked(federation) == Waiting(
        SILOS[:2], ("silo-c",), request(federation).record.answer_by
    )


def test_an_answer_under_another_key_does_not_count(
    federation: SimulatedFederation, plan: Verified[RoundPlan]
) -> None:
    asked(federation)
    forged(federation, "silo-c", plan, create_key(federation.directory / "other.pem"))
    found = asked(federation)
    assert isinstance(found, Waiting) and found.answered == ()


def test_two_answers_of_one_silo_are_none(
    federation: SimulatedFederation, plan: Verified[RoundPlan]
) -> None:
    asked(federation)
    federation.silos_act()
    forged(federation, "silo-b", plan)
    found = asked(federation)
    assert isinstance(found, Waiting) and found.missing == ("silo-b",)
    federation.clock.sleep(HOUR.total_seconds())
    assert values(federation).measured_by == ("silo-a", "silo-c")


def test_after_the_deadline_two_silos_are_enough_and_one_is_not(
    federation: SimulatedFederation, plan: Verified[RoundPlan]
) -> None:
    asked(federation)
    for silo in SILOS[1:]:
        federation.silos[silo].behaviour = Behaviour.ABSENT
    federation.silos_act()
    assert isinstance(asked(federation), Waiting)
    federation.clock.sleep(HOUR.total_seconds())
    with pytest.raises(FederationOperatorError, match=r"at least 2 silos.*found silo-a"):
        asked(federation)
    forged(federation, "silo-b", plan, issued_at=request(federation).record.answer_by)
    with pytest.raises(FederationOperatorError, match="found silo-a"):
        asked(federation)
    in_time = request(federation).record.answer_by - timedelta(seconds=1)
    forged(federation, "silo-c", plan, issued_at=in_time)
    assert values(federation).measured_by == ("silo-a", "silo-c")


def test_waiting_ends_with_the_last_answer_or_with_patience(
    federation: SimulatedFederation, plan: Verified[RoundPlan]
) -> None:
    coordinator = federation.coordinator()
    began = federation.clock.now()
    found = contributions_by_silos(coordinator, LEAVE_ONE_OUT, timedelta(seconds=30))
    assert isinstance(found, Waiting)
    assert federation.clock.now() - began == timedelta(seconds=30)
    for silo in SILOS:
        forged(federation, silo, plan)
    again = contributions_by_silos(coordinator, LEAVE_ONE_OUT, timedelta(seconds=30))
    assert isinstance(again, Contributions)
    assert federation.clock.now() - began == timedelta(seconds=30)


def test_silos_are_asked_about_one_set_of_coalitions_a_round(
    federation: SimulatedFederation, plan: Verified[RoundPlan]
) -> None:
    asked(federation)
    before = federation.snapshot()
    with pytest.raises(FederationOperatorError, match="8 coalitions that shapley values need"):
        asked(federation, EXACT)
    assert federation.snapshot() == before


def test_a_round_that_silos_have_left_behind_is_not_asked_about(
    federation: SimulatedFederation, plan: Verified[RoundPlan]
) -> None:
    federation.open(2)
    before = federation.snapshot()
    with pytest.raises(FederationOperatorError, match="a later plan, that of round 2"):
        asked(federation)
    assert federation.snapshot() == before


def test_nobody_waits_for_losses_that_a_contract_keeps_in(federation: SimulatedFederation) -> None:
    kept_in = tuple(item for item in EGRESS if item != "losses")
    federation.silos["silo-c"].contract.egress = kept_in
    federation.play(federation.open())
    first = asked(federation)
    assert isinstance(first, Waiting) and first.missing == SILOS[:2]
    federation.silos_act()
    assert values(federation).measured_by == SILOS[:2]


def test_losses_of_one_silo_are_not_asked_for(federation: SimulatedFederation) -> None:
    kept_in = tuple(item for item in EGRESS if item != "losses")
    for silo in SILOS[1:]:
        federation.silos[silo].contract.egress = kept_in
    federation.play(federation.open())
    before = federation.snapshot()
    with pytest.raises(FederationOperatorError, match=r"at least 2 admitted silos.*found silo-a"):
        asked(federation)
    assert federation.snapshot() == before


def killed_at(when: Callable[[str, str], bool]) -> Callable[[str, str], None]:
    def before(operation: str, key: str) -> None:
        if when(operation, key):
            raise StorageError("plans", expected="to live", found="killed", action="start again")

    return before


def test_killed_between_blobs_and_request_it_goes_on_without_merging_again(
    federation: SimulatedFederation, plan: Verified[RoundPlan]
) -> None:
    merged: list[tuple[int, int]] = []

    def ask() -> Contributions | Waiting:
        c = federation.coordinator()
        return contributions_by_silos(c, LEAVE_ONE_OUT, on_merged=lambda *n: merged.append(n))

    federation.plans.before = killed_at(
        lambda operation, key: "contribution-request" in key and operation == "put_once"
    )
    with pytest.raises(StorageError, match="killed"):
        ask()
    assert merged == [(5, 5)]
    assert not [key for key in federation.plans.objects if "contribution-request" in key]
    federation.plans.before = None
    assert isinstance(ask(), Waiting)
    assert merged == [(5, 5)]
    federation.silos_act()
    assert values(federation).measured_by == SILOS


def test_killed_between_two_blobs_it_merges_what_is_missing(
    federation: SimulatedFederation, plan: Verified[RoundPlan]
) -> None:
    puts: list[str] = []

    def third_blob(operation: str, key: str) -> bool:
        puts.extend([key] if operation == "put_blob" else [])
        return len(puts) == 3

    federation.plans.before = killed_at(third_blob)
    with pytest.raises(StorageError, match="killed"):
        asked(federation)
    assert not [key for key in federation.plans.objects if "contribution-request" in key]
    federation.plans.before = None
    stored = list(federation.coordinator().workspace.rglob("stored/*.json"))
    assert len(stored) == 2
    asked(federation)
    federation.silos_act()
    assert values(federation).measured_by == SILOS


def test_killed_between_claim_and_request_it_publishes_the_claimed_one(
    federation: SimulatedFederation, plan: Verified[RoundPlan]
) -> None:
    federation.plans.before = killed_at(
        lambda operation, key: "contribution-request" in key and key.endswith(".json")
    )
    with pytest.raises(StorageError, match="killed"):
        asked(federation)
    federation.plans.before = None
    claimed = [
        data for key, data in federation.plans.objects.items() if key.endswith("st/claim-01")
    ]
    federation.clock.sleep(60)
    asked(federation)
    assert [request(federation).envelope] == claimed


def test_a_damaged_file_of_values_is_written_again(
    federation: SimulatedFederation, plan: Verified[RoundPlan]
) -> None:
    asked(federation)
    federation.silos_act()
    found = values(federation)
    (path,) = federation.coordinator().reports.glob("contributions-*.json")
    path.write_text('{"method": "shapley"}')
    assert values(federation) == found
    assert json.loads(path.read_text())["method"] == "leave-one-out"


def test_the_answer_that_was_read_is_locked_and_not_what_came_after_it(
    federation: SimulatedFederation, plan: Verified[RoundPlan]
) -> None:
    asked(federation)
    federation.silos_act()
    inbox = federation.inbox(SILOS[0])
    (key,) = [key for key in inbox.objects if "/coalition-losses/" in key]
    found = inbox.stat(key)
    assert found is not None and found.version is not None

    def put_junk(operation: str, _key: str) -> None:
        if operation in ("stat", "retain"):
            inbox.before = None
            inbox.put(key, bytes(3_000_000))

    inbox.before = put_junk
    assert values(federation).measured_by == SILOS
    assert [version for locked, version in inbox.locks if locked == key] == [found.version]
