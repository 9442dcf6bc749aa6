"""What silos sent is opened for an auditor, and erased by destroying identities alone."""

from dataclasses import replace
from pathlib import Path

import pytest

from aggregator.coordinator import Coordinator
from aggregator.evidence.attempt_keys import attempt_key_file, destroyed_note, round_keys
from aggregator.feed.reading import read_federation
from aggregator.steps.merging import merge_inputs
from aggregator.upkeep.disk_pruning import workspace_in_use
from aggregator.upkeep.opened_evidence import open_evidence
from aggregator.upkeep.shredding import destroyed_keys, encrypted_attempts, shred_round
from aggregator.upkeep.storage_needs import read_needs
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.artifact import artifact_of_file
from data_contracts.protocol.bucket_layout import blob_digest_in_key
from infra.disk.durable_files import write_durably
from infra.encryption.identities import load_identity, rotate_identity
from tests.aggregator.test_encrypted_rounds import close_of, encrypted, round_of
from tests.simulator.federation import RUN
from tests.simulator.fixtures import MakeFederation
from tests.simulator.memory_bucket import InMemoryBucket
from tests.simulator.silo import Behaviour

HONEST = Behaviour.HONEST
FIRST = (RUN, 1)


def shred(c: Coordinator, number: int = 1) -> tuple[bool, ...]:
    done = shred_round(c, read_federation(c), RUN, number)
    return tuple(record.was_here for record in done.records)


def opened(c: Coordinator, into: Path, *given: Path) -> dict[str, str]:
    keys = tuple(load_identity(path) for path in given)
    found = open_evidence(c, read_federation(c), FIRST, into, keys)
    assert all(artifact_of_file(each.path) == each.adapter.plain for each in found)
    return {each.silo: each.adapter.digest for each in found}


def test_a_round_is_opened_then_shredded_and_its_report_stays(
    make_federation: MakeFederation, tmp_path: Path
) -> None:
    federation = encrypted(make_federation, a=HONEST, b=HONEST)
    under_way = federation.open()
    c = federation.coordinator()
    with pytest.raises(FederationOperatorError, match=r"over.*no report yet.*round abort"):
        shred(c)
    plan, decision = round_of(federation)
    assert plan == under_way
    round_of(federation, 2)
    close = close_of(federation, plan)
    sent = {a.silo: a.adapter.digest for a in close.admitted}
    # The coordinator's identity was rotated since: the earlier one opens the earlier round.
    rotate_identity(federation.settings.home / "keys" / "coordinator-identity.txt")
    c = federation.coordinator()
    assert opened(c, tmp_path / "plain") == sent
    assert (tmp_path / "plain").stat().st_mode & 0o777 == 0o700
    assert {f.stat().st_mode & 0o777 for f in (tmp_path / "plain").iterdir()} == {0o600}
    assert not list((c.workspace / "opened").rglob("*"))
    with pytest.raises(FederationOperatorError, match="name another folder"):
        opened(c, tmp_path / "plain")
    before = federation.snapshot()
    (key,) = round_keys(c, RUN, 1).iterdir()
    write_durably(tmp_path / "escrow.txt", key.read_bytes())
    ((_, recipient),) = encrypted_attempts(c, read_federation(c), RUN, 1)
    assert key == attempt_key_file(c, RUN, 1, recipient)
    with workspace_in_use(c), pytest.raises(FederationOperatorError, match="contributions"):
        shred(c)
    assert shred(c) == (True,)
    assert not key.exists() and federation.snapshot() == before
    (record,) = destroyed_keys(c, read_federation(c))
    assert (record.recipient, record.round, record.attempt) == (recipient, 1, 1)
    for act in (
        lambda: opened(c, tmp_path / "again"),
        lambda: merge_inputs(c, plan.record, close),
    ):
        with pytest.raises(FederationOperatorError, match=r"destroyed.*erased for good"):
            act()
    # A second time changes nothing; an identity that a backup brings back is not taken.
    note = destroyed_note(c, recipient).read_bytes()
    write_durably(key, (tmp_path / "escrow.txt").read_bytes())
    with pytest.raises(FederationOperatorError, match="erased for good"):
        opened(c, tmp_path / "again")
    assert shred(c) == (True,)
    assert not key.exists() and destroyed_note(c, recipient).read_bytes() == note
    # Whoever was given it before can still open: nothing but keys was erased.
    assert opened(c, tmp_path / "again", tmp_path / "escrow.txt") == sent
    # The next rounds go on from what was published, and the other round's identity is there.
    assert len(list(round_keys(c, RUN, 2).iterdir())) == 1
    third, _ = round_of(federation, 3)
    assert third.record.starting_adapter is not None and decision.outcome == "published"


def test_what_cannot_be_shredded_or_opened_says_so(
    make_federation: MakeFederation, tmp_path: Path
) -> None:
    federation = make_federation(a=HONEST, b=HONEST)
    plan, _ = round_of(federation)
    c = federation.coordinator()
    with pytest.raises(FederationOperatorError, match="lies there as it is"):
        shred(c)
    with pytest.raises(FederationOperatorError, match="expected a round of the feed"):
        shred(c, 7)
    sent = {a.silo: a.adapter.digest for a in close_of(federation, plan).admitted}
    assert opened(c, tmp_path / "plain") == sent


def test_an_aborted_attempt_has_nothing_to_open_and_is_shredded(
    make_federation: MakeFederation, tmp_path: Path
) -> None:
    federation = encrypted(make_federation, a=HONEST, b=Behaviour.ABSENT)
    plan = federation.open()
    federation.play(plan)
    c = federation.coordinator()
    with pytest.raises(FederationOperatorError, match="none of its attempts was"):
        opened(c, tmp_path / "plain")
    assert shred(replace(c)) == (True,)


def test_what_storage_keeps_and_for_whom_is_counted_by_what_lies_there(
    make_federation: MakeFederation,
) -> None:
    federation = encrypted(make_federation, a=HONEST, b=HONEST)
    sent = set()
    for number in (1, 2):
        plan, _ = round_of(federation, number)
        sent |= {a.adapter.stored.digest for a in close_of(federation, plan).admitted}
    c = federation.coordinator()
    needs = read_needs(c, read_federation(c))

    def lying(bucket: InMemoryBucket) -> set[str]:
        keys = (info.key for info in bucket.list_keys("blobs/"))
        return {digest for key in keys if (digest := blob_digest_in_key(key)) is not None}

    assert lying(federation.plans) == needs.plan_blobs.keys()
    inboxes = [lying(federation.inbox(silo)) for silo in federation.silos]
    assert set().union(*inboxes) == needs.held_blobs.keys() == sent
