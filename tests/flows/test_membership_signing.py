"""Changes of a membership: one signer or several, at the same moment, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest

from aggregator.audit.report_audit import audit
from aggregator.coordinator import Coordinator
from aggregator.feed.reading import next_round
from aggregator.planning.membership_changes import (
    Change,
    renewed,
    revoking_coordinator,
    revoking_key,
    revoking_silo,
    with_coordinator_key,
    with_root_keys,
    with_silo,
    with_silo_key,
    without_silo,
)
from aggregator.report.files import read_bundle
from data_contracts.errors import FederationOperatorError, StorageError, UntrustedInputError
from data_contracts.protocol.bucket_layout import feed_slot
from data_contracts.protocol.dsse import fingerprint
from data_contracts.protocol.envelope import seal
from data_contracts.protocol.records import Membership
from data_contracts.protocol.records.membership import Revocation
from data_contracts.protocol.trust_anchor import load_trust_anchor
from data_contracts.protocol.trusted_feed import FeedPosition
from flows.federation.coordinator_keys import (
    genuine_until,
    last_entry_of,
    named_key,
    revoke_coordinator_key,
    revoke_earlier_key,
)
from flows.federation.membership_difference import changes
from flows.federation.membership_signing import (
    Draft,
    Published,
    change_membership,
    publish_draft,
    sign_draft,
)
from infra.records.record_store import write_record
from infra.signing_keys import SigningKey, create_key, load_key
from tests.simulator.federation import SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import Behaviour

NEW = "a" * 64
OTHER = "b" * 64


@pytest.fixture
def federation(make_federation: MakeFederation) -> SimulatedFederation:
    return make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST)


def root_of(federation: SimulatedFederation) -> Path:
    return federation.directory / "keys" / "root.pem"


def published(federation: SimulatedFederation, change: Change) -> Membership:
    """The membership after a change by whoever holds the one root key."""
    c = federation.coordinator()
    outcome = change_membership(c, change, root_keys=[root_of(federation)])
    assert isinstance(outcome, Published) and outcome.changed
    return c.feed.refresh().membership.record


def test_what_each_change_says(federation: SimulatedFederation) -> None:
    first = federation.pinned.record
    assert published(federation, with_silo("silo-x", NEW, 3)).silos[-1].first_round == 3
    left = published(federation, without_silo("silo-x", 5))
    assert left.silos[-1].last_round == 4
    back = published(federation, with_silo("silo-x", OTHER))
    assert (back.silos[-1].last_round, back.silos[-1].public_key) == (None, OTHER)
    assert [m.silo for m in published(federation, without_silo("silo-x")).silos] == [
        "silo-a",
        "silo-b",
    ]
    again = published(federation, renewed())
    assert (again.silos, again.coordinator_key) == (first.silos, first.coordinator_key)
    assert (again.number, len(again.earlier)) == (6, 5)
    revoked = published(federation, revoking_silo("silo-b", NEW))
    assert revoked.revoked[0].public_key == federation.silos["silo-b"].key.public_key_hex
    assert revoked.key_of("silo-b") == NEW
    rotated = published(federation, with_coordinator_key(OTHER))
    assert rotated.revoked == revoked.revoked
    earlier = published(federation, revoking_key(first.coordinator_key))
    assert [r.public_key for r in earlier.revoked][1:] == [first.coordinator_key]


def test_an_institution_s_name_is_signed_shown_and_can_be_changed(
    federation: SimulatedFederation,
) -> None:
    first = federation.pinned.record
    joined = published(federation, with_silo("silo-x", NEW, name="Hospital of the Holy Ghost"))
    assert joined.name_of("silo-x") == "Hospital of the Holy Ghost"
    assert joined.name_of("silo-a") == "silo-a"
    assert "silo-x is called Hospital of the Holy Ghost" in changes(first, joined)
    kept = published(federation, with_silo("silo-x", OTHER))
    assert kept.name_of("silo-x") == "Hospital of the Holy Ghost"
    renamed = published(federation, with_silo("silo-x", NEW, name="Holy Ghost, North"))
    lines = changes(kept, renamed)
    assert "silo-x is called Holy Ghost, North, no longer Hospital of the Holy Ghost" in lines
    assert any(line.startswith("silo-x has a new key: ") for line in lines)


@pytest.mark.parametrize(
    "name", ["", " padded", "two  spaces", "a\nline", "tab\there", "\u202ereversed", "x" * 101]
)
def test_a_name_is_one_line_that_can_be_printed(federation: SimulatedFederation, name: str) -> None:
    with pytest.raises(FederationOperatorError):
        change_membership(
            federation.coordinator(),
            with_silo("silo-x", NEW, name=name),
            root_keys=[root_of(federation)],
        )


@pytest.mark.parametrize("name", ["silo-a", "Silo-A", "Holy Ghost"])
def test_two_institutions_cannot_pass_for_one(federation: SimulatedFederation, name: str) -> None:
    published(federation, with_silo("silo-x", NEW, name="holy ghost"))
    with pytest.raises(FederationOperatorError, match="distinct"):
        change_membership(
            federation.coordinator(),
            with_silo("silo-y", OTHER, name=name),
            root_keys=[root_of(federation)],
        )


def test_what_is_said_already_makes_no_new_version(federation: SimulatedFederation) -> None:
    key = federation.silos["silo-a"].key.public_key_hex
    for change in (
        with_silo("silo-a", key),
        with_coordinator_key(federation.key.public_key_hex),
        with_root_keys(),
    ):
        outcome = change_membership(federation.coordinator(), change)
        assert outcome == Published(federation.pinned, changed=False)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda: with_silo("silo-x", "A" * 64), "found others"),
        (lambda: with_silo("silo-x", "ab"), "found 2 characters"),
        (lambda: with_silo("silo-x", "0" * 64), "a point of small order"),
        (lambda: with_coordinator_key("0" * 64), "a point of small order"),
        (lambda: with_root_keys(add=["0" * 64]), "a point of small order"),
        (lambda: with_root_keys(remove=[NEW]), "root keys to remove that are root keys"),
        (lambda: with_root_keys(threshold=2), "a threshold of 1 to 1"),
        (lambda: without_silo("silo-x"), "a member: silo-a, silo-b"),
        (lambda: revoking_silo("silo-x"), "a member: silo-a, silo-b"),
        (lambda: with_silo("Silo X", NEW), "should match pattern"),
        (lambda: revoking_silo("silo-a", "ab"), "found 2 characters"),
        (lambda: with_silo_key("silo-x", NEW), "a member: silo-a, silo-b"),
    ],
)
def test_what_cannot_be_is_one_message(
    federation: SimulatedFederation, change: Callable[[], Change], found: str
) -> None:
    with pytest.raises(FederationOperatorError, match=found):
        change_membership(federation.coordinator(), change(), root_keys=[root_of(federation)])
    assert federation.coordinator().feed.refresh().membership == federation.pinned


def test_one_key_for_two_is_one_message(federation: SimulatedFederation) -> None:
    taken = federation.silos["silo-a"].key.public_key_hex
    with pytest.raises(FederationOperatorError, match="keys must be distinct"):
        change_membership(
            federation.coordinator(), with_silo("silo-x", taken), root_keys=[root_of(federation)]
        )


def test_without_a_root_key_nothing_is_signed(federation: SimulatedFederation) -> None:
    with pytest.raises(FederationOperatorError, match="--root-key"):
        change_membership(federation.coordinator(), renewed())


def test_two_who_add_a_silo_at_once_both_succeed(federation: SimulatedFederation) -> None:
    """The second one reads the membership, then the first publishes, then the second writes."""
    raced: list[Membership] = []

    def first_wins(operation: str, key: str) -> None:
        if operation == "put_once" and "members/000002/claim-" in key and not raced:
            raced.append(federation.pinned.record)
            published(federation, with_silo("silo-x", NEW))

    federation.plans.before = first_wins
    outcome = change_membership(
        federation.coordinator(), with_silo("silo-y", OTHER), root_keys=[root_of(federation)]
    )
    federation.plans.before = None
    assert isinstance(outcome, Published) and raced
    newest = federation.coordinator().feed.refresh().membership.record
    assert (newest.number, [m.silo for m in newest.silos][2:]) == (3, ["silo-x", "silo-y"])


class TestWhatTheFeedHasDoneMeanwhile:
    """A membership begins at the end of the feed; late, it would take back what came since."""

    def play(self, federation: SimulatedFederation) -> None:
        plan = federation.open()
        federation.play(plan)

    def test_a_claim_that_was_never_finished_takes_nothing_back(
        self, federation: SimulatedFederation
    ) -> None:
        def killed(operation: str, key: str) -> None:
            if operation == "put_once" and "members/000002/" in key and key.endswith(".json"):
                raise StorageError("killed", expected="-", found="-", action="-")

        federation.plans.before = killed
        with pytest.raises(StorageError):
            published(federation, renewed())
        federation.plans.before = None
        self.play(federation)
        with pytest.raises(FederationOperatorError, match="what came since would be nothing"):
            published(federation, with_silo("silo-x", NEW))
        federation.open(2)

    def test_a_claim_that_takes_nothing_back_is_finished(
        self, federation: SimulatedFederation
    ) -> None:
        self.play(federation)

        def killed(operation: str, key: str) -> None:
            if operation == "put_once" and "members/000002/" in key and key.endswith(".json"):
                raise StorageError("killed", expected="-", found="-", action="-")

        federation.plans.before = killed
        with pytest.raises(StorageError):
            published(federation, with_silo("silo-x", NEW))
        federation.plans.before = None
        newest = published(federation, with_silo("silo-y", OTHER))
        assert [m.silo for m in newest.silos][2:] == ["silo-x", "silo-y"]

    def test_a_beginning_before_that_of_the_newest_is_one_message(
        self, federation: SimulatedFederation
    ) -> None:
        self.play(federation)
        published(federation, renewed())
        with pytest.raises(FederationOperatorError, match="1 or later, where membership 2 begins"):
            change_membership(
                federation.coordinator(),
                renewed(),
                after=FeedPosition(),
                root_keys=[root_of(federation)],
            )

    def test_a_beginning_that_became_void_is_one_message(
        self, federation: SimulatedFederation
    ) -> None:
        plan = federation.open()
        void = FeedPosition(1, "7" * 64)
        assert plan.record.feed_number == 1
        federation.play(plan)
        federation.open(2)
        with pytest.raises(FederationOperatorError, match="published meanwhile, made void"):
            change_membership(
                federation.coordinator(), renewed(), after=void, root_keys=[root_of(federation)]
            )

    def test_a_thief_cannot_stop_the_revocation(self, federation: SimulatedFederation) -> None:
        """Two plans at one number, signed with the stolen key, halt everybody but the signers."""
        self.play(federation)
        c = federation.coordinator()
        attempt = c.feed.refresh().attempt
        assert attempt is not None
        for round_number in (8, 9):
            fields = {
                "round": round_number,
                "feed_number": 2,
                "previous_digest": attempt.plan.digest,
            }
            forged = seal(attempt.plan.record.model_copy(update=fields), federation.key)
            write_record(federation.plans, feed_slot(2), forged)
        with pytest.raises(UntrustedInputError, match="feed entry 2"):
            federation.coordinator().feed.refresh()
        genuine = genuine_until(c, 1)
        assert genuine.plan == attempt.plan and genuine.decision is not None
        outcome = revoke_coordinator_key(c, genuine, [root_of(federation)])
        assert isinstance(outcome, Published)
        feed = federation.coordinator().feed.refresh()
        assert (feed.head.number, feed.membership.record.number) == (1, 2)
        only = feed.coordinator_trust(attempt.plan).only
        assert only is not None and set(only) == {genuine.close, genuine.decision}
        (new,) = (federation.settings.home / "keys").glob("coordinator-key-*.pem")
        assert load_key(new).public_key_hex == feed.membership.record.coordinator_key

    def test_a_key_that_was_rotated_is_revoked_and_its_rounds_stay_good(
        self, federation: SimulatedFederation
    ) -> None:
        self.play(federation)
        old = federation.key.public_key_hex
        new = federation.new_coordinator_key()
        published(federation, with_coordinator_key(new.public_key_hex))
        c = federation.coordinator()
        assert named_key(c, fingerprint(old)) == old == named_key(c, old.upper())
        with pytest.raises(FederationOperatorError, match="from any membership so far"):
            named_key(c, NEW)
        last = last_entry_of(c, old)
        assert last == 1 and last_entry_of(c, new.public_key_hex) is None
        genuine = genuine_until(c, last)
        assert genuine.decision is not None
        outcome = revoke_earlier_key(c, old, genuine, [root_of(federation)])
        assert isinstance(outcome, Published)
        bundle = read_bundle(federation.settings.home / "reports" / "run-1-round-0001.json")
        claims = {claim.name: claim.outcome for claim in audit(bundle, outcome.membership)}
        assert "fail" not in claims.values() and claims["coordinator key"] == "not checked"
        federation.sign_contract("silo-a")
        federation.sign_contract("silo-b")
        second = federation.open(2)
        federation.play(second)
        assert second.record.starting_adapter is not None
        assert next_round(c, c.feed.refresh()) == 3

    def test_the_newest_membership_is_kept_also_by_who_changes_nothing(
        self, federation: SimulatedFederation
    ) -> None:
        file = federation.settings.home / "membership.json"
        newest = published(federation, with_silo("silo-x", NEW))
        file.unlink()
        change_membership(federation.coordinator(), with_silo("silo-x", NEW))
        assert load_trust_anchor(file).record == newest


class Signers:
    """Three people with a root key each, of whom two have to sign."""

    def __init__(self, federation: SimulatedFederation, directory: Path) -> None:
        self.federation = federation
        self.files = [root_of(federation), directory / "b.pem", directory / "c.pem"]
        self.keys: list[SigningKey] = [federation.root, *map(create_key, self.files[1:])]
        publics = [key.public_key_hex for key in self.keys]
        outcome = change_membership(
            self.c, with_root_keys(publics[1:], (), 2), root_keys=self.files
        )
        assert isinstance(outcome, Published)
        self.trust = federation.settings.home / "membership.json"

    @property
    def c(self) -> Coordinator:
        return self.federation.coordinator()

    def draft(self, change: Change, *signers: int) -> Draft:
        outcome = change_membership(
            self.c, change, root_keys=[self.files[number] for number in signers]
        )
        assert isinstance(outcome, Draft)
        return outcome


@pytest.fixture
def signers(federation: SimulatedFederation, tmp_path: Path) -> Signers:
    return Signers(federation, tmp_path)


class TestSeveralSigners:
    def test_a_draft_goes_from_signer_to_signer(self, signers: Signers) -> None:
        draft = signers.draft(with_silo("silo-x", NEW, 4), 0)
        assert draft.missing.startswith("1 of the 3 root keys of membership 2")
        with pytest.raises(UntrustedInputError, match="signature of membership"):
            publish_draft(signers.c, draft.file)
        lines = sign_draft(draft.file, signers.files[2], signers.trust)
        assert lines[0] == "membership 3, after feed entry 0"
        assert lines[1].startswith("silo-x joins from round 4: ")
        done = publish_draft(signers.c, draft.file)
        assert done.membership.record.key_of("silo-x") == NEW
        with pytest.raises(UntrustedInputError, match="number 4"):
            publish_draft(signers.c, draft.file)

    def test_who_has_enough_keys_needs_no_draft(self, signers: Signers) -> None:
        outcome = change_membership(signers.c, renewed(), root_keys=signers.files[1:])
        assert isinstance(outcome, Published)

    def test_a_stranger_or_a_second_signature_is_one_message(
        self, signers: Signers, tmp_path: Path
    ) -> None:
        draft = signers.draft(renewed(), 0)
        with pytest.raises(FederationOperatorError, match="a key that has not signed"):
            sign_draft(draft.file, signers.files[0], signers.trust)
        create_key(tmp_path / "stranger.pem")
        with pytest.raises(FederationOperatorError, match="another key in"):
            sign_draft(draft.file, tmp_path / "stranger.pem", signers.trust)

    def test_a_draft_that_another_change_overtook_is_refused(self, signers: Signers) -> None:
        draft = signers.draft(renewed(), 0)
        sign_draft(draft.file, signers.files[1], signers.trust)
        change_membership(signers.c, with_silo("silo-x", NEW), root_keys=signers.files)
        with pytest.raises(UntrustedInputError, match="number 4"):
            publish_draft(signers.c, draft.file)

    def test_a_draft_that_the_feed_has_left_behind_is_refused(self, signers: Signers) -> None:
        draft = signers.draft(renewed(), 0)
        sign_draft(draft.file, signers.files[1], signers.trust)
        signers.federation.memberships.append(signers.c.feed.refresh().membership)
        signers.federation.open()
        with pytest.raises(FederationOperatorError, match="what came since would be nothing"):
            publish_draft(signers.c, draft.file)

    def test_a_signer_who_leaves_signs_the_version_that_lets_them_go(
        self, signers: Signers
    ) -> None:
        leaving = signers.keys[0].public_key_hex
        draft = signers.draft(with_root_keys(remove=[leaving]), 0)
        sign_draft(draft.file, signers.files[1], signers.trust)
        assert draft.missing.endswith("2 of the 2 root keys of membership 3")
        with pytest.raises(UntrustedInputError, match="signature of membership"):
            publish_draft(signers.c, draft.file)
        sign_draft(draft.file, signers.files[2], signers.trust)
        newest = publish_draft(signers.c, draft.file).membership.record
        assert leaving not in newest.root_keys and newest.retired_root_keys == (leaving,)

    def test_a_lost_root_key_is_replaced_by_the_others(
        self, signers: Signers, tmp_path: Path
    ) -> None:
        lost = signers.keys[0].public_key_hex
        new = create_key(tmp_path / "d.pem").public_key_hex
        change = with_root_keys([new], [lost])
        outcome = change_membership(signers.c, change, root_keys=signers.files[1:])
        assert isinstance(outcome, Published)
        assert set(outcome.membership.record.root_keys) >= {new}


def test_a_signer_sees_everything_that_changes(federation: SimulatedFederation) -> None:
    before = federation.pinned.record
    last = Revocation(
        public_key=before.coordinator_key,
        plan_digest="3" * 64,
        close_digest="1" * 64,
        decision_digest="2" * 64,
    )
    cut = revoking_coordinator(NEW, last)
    after = published(federation, cut)
    text = "\n".join(changes(before, after))
    for said in ("new coordinator key: ", "revoked at once: ", "close that counts: 111", "expires"):
        assert said in text
    left = published(federation, without_silo("silo-a"))
    assert "silo-a leaves" in changes(after, left)
    moved = published(federation, with_silo("silo-b", OTHER))
    assert any(line.startswith("silo-b has a new key: ") for line in changes(left, moved))
