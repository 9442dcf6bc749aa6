"""What a coordinator or a silo that lies gets in confidential mode: nothing."""

import shutil
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from aggregator.attempt import Attempt
from aggregator.audit.report_audit import MASKED_SUM, audit
from aggregator.federated_round import abort_round, advance
from aggregator.feed.claims import sign_entry
from aggregator.feed.reading import next_round, read_federation
from aggregator.report.files import read_bundle
from aggregator.settings.masking import MaskingSection
from aggregator.steps.drafting import drafted
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.bucket_layout import attempt_of, record_key, round_slot
from data_contracts.protocol.envelope import Verified, seal, verify
from data_contracts.protocol.records import (
    Close,
    Countersignature,
    CountersignedClose,
    MaskKeys,
    MaskRoster,
    RevealedShares,
    RoundPlan,
    RoundRecord,
    SealedShares,
    ShareBook,
    SiloRecord,
    Submission,
)
from data_contracts.protocol.relayed import relay
from infra.signing_keys import create_key
from tests.simulator.federation import FEDERATION, SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.memory_bucket import InMemoryBucket
from tests.simulator.silo import Behaviour

FIVE = dict.fromkeys("abcde", Behaviour.HONEST)
HONEST_STEPS = 40


@pytest.fixture
def federation(make_federation: MakeFederation) -> SimulatedFederation:
    """Five silos with a threshold of four."""
    section = MaskingSection(key_minutes=5, share_minutes=5, reveal_minutes=10, largest_change=8)
    return make_federation({"masking": section}, **FIVE)


def attempt_in(federation: SimulatedFederation, plan: Verified[RoundPlan]) -> Attempt:
    return federation.look(plan).attempt


def until(
    federation: SimulatedFederation,
    plan: Verified[RoundPlan],
    kind: type[SiloRecord],
    coordinator_acts: bool = True,
) -> Attempt:
    """Everybody is honest until each silo has said its word of a kind."""
    for _ in range(HONEST_STEPS):
        federation.silos_act()
        attempt = attempt_in(federation, plan)
        said = [kind.kind in silo.kinds() for silo in federation.silos.values()]
        if all(said):
            return attempt
        if coordinator_acts:
            advance(federation.coordinator(), plan)
    raise AssertionError(f"not every silo came to {kind.kind}")


def put(
    federation: SimulatedFederation,
    plan: Verified[RoundPlan],
    record: RoundRecord,
    bucket: InMemoryBucket | None = None,
) -> Verified[Any]:
    """A record as whoever has the coordinator's key can sign it."""
    sealed = seal(record, federation.key)
    slot = round_slot(attempt_of(plan), record.kind)
    (bucket or federation.plans).put_once(record_key(slot, sealed.digest), sealed.envelope)
    return sealed


def another_view(federation: SimulatedFederation, *silos: str) -> InMemoryBucket:
    """From now on these silos see a plans bucket of their own, as it is at this moment."""
    view = InMemoryBucket(federation.plans.name, versioned=False, now=federation.clock.now)
    for key, data in federation.plans.objects.items():
        view.objects[key] = data
    for silo in silos:
        federation.silos[silo].plans = view
    return view


def words(attempt: Attempt, name: str) -> list[Verified[Any]]:
    return [word for own in attempt.cohort() if (word := getattr(own, name)) is not None]


def revealed(federation: SimulatedFederation) -> list[str]:
    kind = RevealedShares.kind
    return [silo.name for silo in federation.silos.values() if kind in silo.kinds()]


def refusals(federation: SimulatedFederation, plan: Verified[RoundPlan]) -> set[str]:
    attempt = attempt_in(federation, plan)
    return {own.refusal.record.rule for own in attempt.cohort() if own.refusal is not None}


def test_keys_of_the_coordinator_s_own_for_a_silo_that_is_away(
    federation: SimulatedFederation,
) -> None:
    federation.silos["silo-e"].behaviour = Behaviour.ABSENT
    plan = federation.open(1)
    for _ in range(3):
        federation.silos_act()
    attempt = attempt_in(federation, plan)
    own = words(attempt, "mask_keys")
    invented = own[0].record.model_copy(update={"silo": "silo-e", "mask_key": "09" + "00" * 31})
    key = create_key(federation.directory / "keys" / "invented.pem")
    put(
        federation,
        plan,
        MaskRoster.on(plan, plan.record.issued_at, keys=relay([*own, seal(invented, key)])),
    )
    federation.silos_act(2)
    assert refusals(federation, plan) == {"envelope.signature"}
    assert all(SealedShares.kind not in silo.kinds() for silo in federation.silos.values())


def test_a_silo_s_keys_under_another_silo_s_name(federation: SimulatedFederation) -> None:
    plan = federation.open(1)
    attempt = until(federation, plan, MaskKeys, coordinator_acts=False)
    entries = list(relay(words(attempt, "mask_keys")))
    entries[4] = entries[4].model_copy(update={"envelope": entries[3].envelope})
    put(federation, plan, MaskRoster.on(plan, plan.record.issued_at, keys=tuple(entries)))
    federation.silos_act(2)
    assert refusals(federation, plan) == {"envelope.signature"}


def test_a_roster_too_short_to_hide_in(federation: SimulatedFederation) -> None:
    plan = federation.open(1)
    attempt = until(federation, plan, MaskKeys, coordinator_acts=False)
    keys = relay(words(attempt, "mask_keys")[:3])
    put(federation, plan, MaskRoster.on(plan, plan.record.issued_at, keys=keys))
    federation.silos_act(2)
    assert refusals(federation, plan) == {"masking.contradiction"}


def test_two_rosters_for_two_halves(federation: SimulatedFederation) -> None:
    """Nobody masks under a list that not all of its silos sealed for."""
    plan = federation.open(1)
    attempt = until(federation, plan, MaskKeys, coordinator_acts=False)
    keys, at = words(attempt, "mask_keys"), plan.record.issued_at
    view = another_view(federation, "silo-d", "silo-e")
    put(federation, plan, MaskRoster.on(plan, at, keys=relay(keys)))
    put(federation, plan, MaskRoster.on(plan, at, keys=relay(keys[1:])), view)
    federation.silos_act(2)
    attempt = attempt_in(federation, plan)
    shares = words(attempt, "sealed_shares")
    assert len(shares) == 5
    for bucket in (federation.plans, view):
        roster = next(k for k in bucket.objects if MaskRoster.kind in k)
        digest = roster.split("/")[-1].removesuffix(".json")
        book = ShareBook.on(plan, at, roster_digest=digest, shares=relay(shares))
        put(federation, plan, book, bucket)
    federation.silos_act(2)
    assert refusals(federation, plan) == {"masking.contradiction"}
    assert all(Submission.kind not in silo.kinds() for silo in federation.silos.values())


@pytest.mark.parametrize(
    "change",
    [
        lambda book: book.model_copy(update={"shares": book.shares[:3]}),
        lambda book: book.model_copy(update={"shares": book.shares[1:]}),
    ],
    ids=["fewer than a sum needs", "without one of those who read it"],
)
def test_a_share_book_that_leaves_silos_out(
    federation: SimulatedFederation, change: Callable[[ShareBook], ShareBook]
) -> None:
    plan = federation.open(1)
    attempt = until(federation, plan, SealedShares)
    assert attempt.roster is not None
    shares, at = relay(words(attempt, "sealed_shares")), plan.record.issued_at
    book = ShareBook.on(plan, at, roster_digest=attempt.roster.digest, shares=shares)
    put(federation, plan, change(book))
    federation.silos_act(2)
    silent = [s for s in federation.silos.values() if Submission.kind not in s.kinds()]
    # One that is not listed waits; the other four mask among themselves.
    assert len(silent) == (5 if len(change(book).shares) == 3 else 1)


def closed(federation: SimulatedFederation) -> tuple[Verified[RoundPlan], Attempt, Close]:
    """Everybody has submitted, and an honest coordinator would sign this close record."""
    plan = federation.open(1)
    until(federation, plan, Submission)
    before = dict(federation.plans.objects)
    for _ in range(3):
        if attempt_in(federation, plan).close is not None:
            break
        advance(federation.coordinator(), plan)
    attempt = attempt_in(federation, plan)
    assert attempt.close is not None
    for key in set(federation.plans.objects) - set(before):
        del federation.plans.objects[key]
    return plan, attempt, attempt.close.record


def _fewer(close: Close) -> Close:
    out = close.admitted[3:]
    return close.model_copy(
        update={"admitted": close.admitted[:3], "missing": tuple(item.silo for item in out)}
    )


def _lighter(close: Close) -> Close:
    lighter = tuple(item.model_copy(update={"weight": item.weight - 1}) for item in close.admitted)
    return close.model_copy(update={"admitted": lighter})


def _other_submission(close: Close) -> Close:
    digests = [item.submission_digest for item in close.admitted]
    turned = zip(close.admitted, [*digests[1:], digests[0]], strict=True)
    admitted = tuple(item.model_copy(update={"submission_digest": d}) for item, d in turned)
    return close.model_copy(update={"admitted": admitted})


@pytest.mark.parametrize("lie", [_fewer, _lighter, _other_submission])
def test_a_close_record_that_no_honest_coordinator_signs(
    federation: SimulatedFederation, lie: Callable[[Close], Close]
) -> None:
    plan, _, close = closed(federation)
    put(federation, plan, lie(close))
    federation.silos_act(2)
    assert all(Countersignature.kind not in silo.kinds() for silo in federation.silos.values())


def test_two_lists_of_survivors_for_two_halves(federation: SimulatedFederation) -> None:
    """Each half signs what it was shown; neither list has four names, so nobody reveals."""
    plan, attempt, close = closed(federation)
    assert attempt.book is not None
    view = another_view(federation, "silo-a", "silo-b")
    shorter = close.model_copy(
        update={"admitted": close.admitted[:4], "missing": (close.admitted[4].silo,)}
    )
    one = put(federation, plan, close)
    two = put(federation, plan, shorter, view)
    federation.silos_act(2)
    every = [read_word(federation, plan, name, Countersignature) for name in federation.silos]
    assert {word.record.close_digest for word in every} == {one.digest, two.digest}
    for bucket, digest in ((federation.plans, one.digest), (view, two.digest)):
        listed = CountersignedClose.on(
            plan,
            plan.record.issued_at,
            close_digest=digest,
            book_digest=attempt.book.digest,
            countersignatures=relay(every),
        )
        put(federation, plan, listed, bucket)
    federation.silos_act(2)
    assert revealed(federation) == []


def read_word(
    federation: SimulatedFederation, plan: Verified[RoundPlan], silo: str, kind: type[SiloRecord]
) -> Verified[Any]:
    """A silo's record as its inbox has it."""
    slot = round_slot(attempt_of(plan), kind.kind)
    own = federation.silos[silo]
    data = next(
        data for key, data in federation.inbox(silo).objects.items() if key.startswith(slot)
    )
    return verify(data, kind, {own.key.public_key_hex})


def test_countersignatures_that_are_too_few_or_somebody_else_s(
    federation: SimulatedFederation,
) -> None:
    plan, attempt, close = closed(federation)
    assert attempt.book is not None
    sealed = put(federation, plan, close)
    federation.silos_act(2)
    signed = [read_word(federation, plan, name, Countersignature) for name in federation.silos]
    forged = [seal(word.record, federation.key) for word in signed]
    view = another_view(federation, "silo-d", "silo-e")
    for bucket, listed in ((federation.plans, signed[:3]), (view, forged)):
        record = CountersignedClose.on(
            plan,
            plan.record.issued_at,
            close_digest=sealed.digest,
            book_digest=attempt.book.digest,
            countersignatures=relay(listed),
        )
        put(federation, plan, record, bucket)
    federation.silos_act(2)
    assert revealed(federation) == []


def test_a_second_sum_of_a_round_is_refused(federation: SimulatedFederation) -> None:
    """The difference of two sums over different silos is what one of them sent. No coordinator of
    ours plans such an attempt."""
    plan = federation.open(1)
    until(federation, plan, RevealedShares)
    c = federation.coordinator()
    abort_round(c, plan, "operator.abort", "Once more, without silo-e.")
    advance(c, plan)
    federation.silos["silo-e"].behaviour = Behaviour.ABSENT
    feed = read_federation(c)
    again = sign_entry(c, feed, drafted(c, feed, 1, 2))
    assert again.record.attempt == 2
    federation.silos_act(2)
    assert refusals(federation, again) == {"plan.second_sum"}


@pytest.mark.parametrize("seed", [0, 1], ids=["the same training", "in another order"])
def test_the_same_training_under_another_run(federation: SimulatedFederation, seed: int) -> None:
    plan = federation.open(1)
    federation.play(plan)
    recipe = federation.settings.recipe
    recipe = recipe.model_copy(update={"seed": recipe.seed + seed})
    federation.settings = federation.settings.model_copy(update={"run": "run-2", "recipe": recipe})
    again = federation.open(1)
    assert again.record.starting_adapter is None
    federation.silos_act(2)
    assert refusals(federation, again) == (set() if seed else {"plan.second_sum"})


def replaced(
    federation: SimulatedFederation,
    plan: Verified[RoundPlan],
    silo: str,
    change: Callable[[RevealedShares], RevealedShares],
) -> None:
    """In place of what a silo revealed, what a dishonest one would have signed."""
    word = read_word(federation, plan, silo, RevealedShares)
    own = federation.silos[silo]
    other = seal(change(word.record), own.key)
    slot = round_slot(attempt_of(plan), RevealedShares.kind)
    del federation.inbox(silo).objects[record_key(slot, word.digest)]
    federation.inbox(silo).objects[record_key(slot, other.digest)] = other.envelope


def _tampered(word: RevealedShares) -> RevealedShares:
    first = word.shares[0]
    other = f"{int(first.share, 16) ^ 1:032x}"
    return word.model_copy(
        update={"shares": (first.model_copy(update={"share": other}), *word.shares[1:])}
    )


def _other_secret(word: RevealedShares) -> RevealedShares:
    first = word.shares[0].model_copy(update={"secret": "mask_seed"})
    return word.model_copy(update={"shares": (first, *word.shares[1:])})


def _swapped(word: RevealedShares) -> RevealedShares:
    one, two, *rest = word.shares
    shares = (
        one.model_copy(update={"share": two.share}),
        two.model_copy(update={"share": one.share}),
        *rest,
    )
    return word.model_copy(update={"shares": shares})


@pytest.mark.parametrize("lie", [_tampered, _other_secret, _swapped])
@pytest.mark.parametrize("liars", [1, 2])
def test_a_share_that_was_not_given(
    federation: SimulatedFederation,
    lie: Callable[[RevealedShares], RevealedShares],
    liars: int,
) -> None:
    """Whoever reveals it does not count: of five the other four are enough, three are not."""
    plan = federation.open(1)
    until(federation, plan, RevealedShares)
    for silo in ("silo-b", "silo-d")[:liars]:
        replaced(federation, plan, silo, lie)
    if liars == 2:
        federation.clock.sleep(timedelta(hours=1).total_seconds())
    federation.play(plan)
    attempt = attempt_in(federation, plan)
    if liars == 2:
        assert attempt.abort is not None
        assert attempt.abort.record.rule == "masking.too_few"
        return
    assert attempt.decision is not None
    assert attempt.decision.record.outcome == "published"
    bundle = read_bundle(federation.coordinator().reports / "run-1-round-0001.json")
    claims = {claim.name: claim.outcome for claim in audit(bundle, federation.pinned)}
    assert "fail" not in claims.values()
    assert claims[MASKED_SUM] == "pass"


def test_one_silo_that_was_shown_another_book_costs_its_own_word_alone(
    federation: SimulatedFederation,
) -> None:
    plan = federation.open(1)
    until(federation, plan, Submission)
    while attempt_in(federation, plan).close is None:
        advance(federation.coordinator(), plan)
    until(federation, plan, Countersignature)
    word = read_word(federation, plan, "silo-b", Countersignature)
    other = word.record.model_copy(update={"book_digest": "0" * 64})
    slot = round_slot(attempt_of(plan), Countersignature.kind)
    objects = federation.inbox("silo-b").objects
    forged = seal(other, federation.silos["silo-b"].key)
    del objects[record_key(slot, word.digest)]
    objects[record_key(slot, forged.digest)] = forged.envelope
    federation.play(plan)
    attempt = attempt_in(federation, plan)
    assert attempt.decision is not None
    assert attempt.decision.record.outcome == "published"


def test_after_shares_are_out_an_aborted_round_is_followed_by_the_next(
    federation: SimulatedFederation,
) -> None:
    plan = federation.open(1)
    until(federation, plan, RevealedShares)
    c = federation.coordinator()
    assert next_round(c, read_federation(c)) == 1
    abort_round(c, plan, "operator.abort", "The merge machine is gone.")
    assert next_round(c, read_federation(c)) == 2
    with pytest.raises(FederationOperatorError, match="go on with round 2"):
        federation.open(1)
    following = federation.open(2)
    federation.play(following)
    decision = attempt_in(federation, following).decision
    assert decision is not None
    assert decision.record.outcome == "published"


def test_an_abort_before_that_is_tried_again(federation: SimulatedFederation) -> None:
    plan = federation.open(1)
    until(federation, plan, Submission)
    abort_round(federation.coordinator(), plan, "operator.abort", "Once more.")
    again = federation.open(1)
    assert again.record.attempt == 2
    federation.play(again)
    decision = attempt_in(federation, again).decision
    assert decision is not None
    assert decision.record.outcome == "published"


def test_a_silo_without_its_shares_countersigns_nothing(federation: SimulatedFederation) -> None:
    """Else the others would reveal on a word that its silo cannot keep."""
    plan = federation.open(1)
    until(federation, plan, Submission)
    shutil.rmtree(federation.silos["silo-c"].home / "masking")
    federation.play(plan)
    attempt = attempt_in(federation, plan)
    assert attempt.of("silo-c").countersignature is None
    assert attempt.decision is not None
    assert attempt.decision.record.outcome == "published"
    assert attempt.of("silo-c").evaluation is not None


def test_whose_secret_is_wrong_is_said(federation: SimulatedFederation) -> None:
    """A silo that commits to another self seed than it shares out: the sum cannot be opened."""
    plan = federation.open(1)
    until(federation, plan, MaskKeys)
    while attempt_in(federation, plan).roster is None:
        advance(federation.coordinator(), plan)
    federation.silos["silo-d"].act(FEDERATION, federation.pinned)
    word = read_word(federation, plan, "silo-d", SealedShares)
    own = federation.silos["silo-d"]
    wrong = seal(word.record.model_copy(update={"self_seed": "1" * 64}), own.key)
    slot = round_slot(attempt_of(plan), SealedShares.kind)
    objects = federation.inbox("silo-d").objects
    del objects[record_key(slot, word.digest)]
    objects[record_key(slot, wrong.digest)] = wrong.envelope
    outbox = own.home / "outbox" / f"{slot.rstrip('/')}.json"
    outbox.write_bytes(wrong.envelope)
    federation.play(plan)
    abort = attempt_in(federation, plan).abort
    assert abort is not None
    assert abort.record.rule == "masking.not_opened"
    assert "silo-d" in abort.record.reason


def test_secrets_go_with_the_attempt(federation: SimulatedFederation) -> None:
    """Also of a silo that dropped out, came back and evaluated."""
    plan = federation.open(1)
    away = federation.silos["silo-e"]
    for _ in range(HONEST_STEPS):
        if SealedShares.kind in away.kinds():
            away.behaviour = Behaviour.ABSENT
        federation.silos_act()
        attempt = attempt_in(federation, plan)
        if attempt.close is not None:
            break
        if away.behaviour is Behaviour.ABSENT:
            federation.clock.sleep(200)
        advance(federation.coordinator(), plan)
    assert any((away.home / "masking").rglob("secrets.bin"))
    away.behaviour = Behaviour.HONEST
    federation.play(plan)
    assert attempt_in(federation, plan).of("silo-e").evaluation is not None
    assert not any(path.is_file() for path in (away.home / "masking").rglob("*"))
