"""Keys are built from checked ids only, and no id can leave its place."""

import pytest

from data_contracts.errors import UntrustedInputError
from data_contracts.protocol import bucket_layout as layout
from data_contracts.protocol.bucket_layout import RoundId

DIGEST = "ab" * 32
PLAN = "ab" * 32
ROUND = RoundId("run-one", 3, 1, PLAN)
HOSTILE = [
    "", ".", "..", "../etc", "a/../b", "a/b", "/a", "a\x00", "a\nb", "ab\n", "A-silo", "a b", "a_b",
    "-a", "a-", "a", "x" * 25, "a%2f", "silo.a", "\u0430\u0431", "169.254.169.254",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_ids_are_refused_wherever_they_are_used(name: str) -> None:
    uses = (
        lambda: layout.plans_bucket(name),
        lambda: layout.ledger_bucket(name),
        lambda: layout.inbox_bucket(name, "bank-a"),
        lambda: layout.inbox_bucket("oncology", name),
        lambda: layout.round_slot(ROUND, name),
        lambda: layout.ledger_slot(ROUND, name, "verdict"),
        lambda: layout.ledger_slot(ROUND, "bank-a", name),
        lambda: RoundId(name, 1, 1, PLAN),
    )
    for use in uses:
        with pytest.raises(UntrustedInputError) as caught:
            use()
        assert caught.value.rule == "layout.id"


@pytest.mark.parametrize("digest", ["", "ab", "AB" * 32, "../" + "a" * 61, DIGEST + "\n", "g" * 64])
def test_hostile_digests_are_refused(digest: str) -> None:
    for use in (layout.blob_key, lambda d: layout.record_key("feed/00000001/", d)):
        with pytest.raises(UntrustedInputError, match="digest"):
            use(digest)
    assert layout.digest_in_key(f"feed/00000001/{digest}.json") is None


AT = "rounds/run-one/0003/01-abababababababab/"


def test_the_keys_themselves() -> None:
    assert layout.plans_bucket("oncology") == "oncology-plans"
    assert layout.inbox_bucket("oncology", "bank-a") == "oncology-inbox-bank-a"
    assert layout.ledger_bucket("oncology") == "oncology-ledger"
    assert layout.membership_slot(2) == "members/000002/"
    assert layout.feed_slot(12) == "feed/00000012/"
    assert layout.round_slot(ROUND, "verdict") == f"{AT}verdict/"
    assert layout.ledger_slot(ROUND, "bank-a", "verdict") == f"{AT}bank-a/verdict/"
    assert layout.round_prefix(ROUND) == AT
    assert layout.status_key(ROUND, 7) == "status/run-one/0003/01-abababababababab/000007.json"
    assert layout.blob_key(DIGEST) == f"blobs/{DIGEST}"
    assert layout.run_round_prefix("run-one", 3) == "rounds/run-one/0003/"


def test_the_number_of_a_slot_is_read_back() -> None:
    key = layout.record_key(layout.feed_slot(12), DIGEST)
    assert layout.number_in_key("feed/", key) == 12
    for other in ("feed/x/1", "members/000012/claim-01", "feed/\u0661/1", "feed/"):
        assert layout.number_in_key("feed/", other) is None


@pytest.mark.parametrize("federation", ["x-inbox", "x-inbox-y", "a-inbox-b-c"])
def test_a_federation_cannot_be_named_like_the_inbox_of_another(federation: str) -> None:
    for bucket in (layout.plans_bucket, layout.ledger_bucket):
        with pytest.raises(UntrustedInputError, match="federation id"):
            bucket(federation)


def test_a_record_key_ends_in_its_digest() -> None:
    for slot in (layout.feed_slot(1), layout.round_slot(ROUND, "close"), layout.membership_slot(1)):
        assert layout.digest_in_key(layout.record_key(slot, DIGEST)) == DIGEST


@pytest.mark.parametrize(
    "key",
    ["", DIGEST, f"{DIGEST}.json", f"feed/1/{DIGEST}.json.tmp", f"feed/1/{DIGEST}",
     f"blobs/{DIGEST}", f"feed/../x/{DIGEST}.json", f"feed/1/{DIGEST}.json\n",
     "a" * 300 + f"/{DIGEST}.json"],
)  # fmt: skip
def test_other_keys_hold_no_record(key: str) -> None:
    assert layout.digest_in_key(key) is None


def test_slots_of_different_places_never_share_a_prefix() -> None:
    """A listing of one slot must not show another's records."""
    slots = [
        layout.round_slot(RoundId(run, number, attempt, PLAN), kind)
        for run in ("run-one", "run-one-b")
        for number in (1, 11, 1111)
        for attempt in (1, 11)
        for kind in ("verdict", "close")
    ] + [layout.feed_slot(n) for n in (1, 11)]
    for one in slots:
        assert [other for other in slots if other.startswith(one)] == [one]
    silos = [layout.ledger_slot(ROUND, silo, "verdict") for silo in ("silo-1", "silo-10")]
    assert not silos[1].startswith(silos[0])
