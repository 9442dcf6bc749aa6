"""Every invariant of the year can fail: each is broken once, and sees it."""

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from aggregator.evidence.look import look
from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.bucket_layout import attempt_of, blob_key, feed_slot, round_slot
from data_contracts.protocol.envelope import Verified, seal
from data_contracts.protocol.records import Candidate, Close
from infra.records.record_store import write_record
from tests.simulator import invariants as hold
from tests.simulator.invariants import History, PlayedRound
from tests.simulator.year import YearFederation
from tests.simulator.year_calendar import FOUNDERS
from tests.simulator.year_check import YearError, as_expected
from tests.year.conftest import make_year


@pytest.fixture
def federation(year_folder: Path, tiny_model: Path) -> YearFederation:
    """One that has played a night."""
    year = make_year(year_folder, tiny_model)
    year.nights.play(lambda step: None)
    return year.federation


@pytest.fixture
def played(federation: YearFederation) -> PlayedRound:
    """The round of that night; nothing is wrong with it."""
    found = PlayedRound(federation.coordinator(), *federation.reports[-1])
    numbers = (found.c.feed.refresh().head.number, federation.newest.number)
    assert hold.absent_or_complete(found) == hold.merge_is_recomputed(found) == []
    assert hold.counted_once(found) == hold.only_what_may_count_counts(found) == []
    assert hold.quorum_or_abort(found) == hold.rerun_writes_nothing(found, federation.storage) == []
    assert hold.auditor_finds_nothing(found, [federation.pinned]) == []
    assert hold.log_verifies(federation.plans, federation.pinned, *numbers) == []
    return found


def close_of(played: PlayedRound) -> Verified[Close]:
    close = look(played.c, played.plan).attempt.close
    assert close is not None
    return close


def drop(federation: YearFederation, prefix: str) -> None:
    """Take from the plans bucket, as an administrator would, what begins so."""
    for info in federation.plans.list_keys(prefix):
        del federation.plans.objects[info.key]


@pytest.mark.parametrize("kind", ["close", "candidate", "decision"])
def test_a_published_round_without_a_record_is_seen(
    federation: YearFederation, played: PlayedRound, kind: str
) -> None:
    drop(federation, round_slot(attempt_of(played.plan), kind))
    assert hold.absent_or_complete(played) == [f"round 1 is published and has no {kind}"]


@pytest.mark.parametrize("suffix", [".json", ".html", ".zip"])
def test_a_report_without_a_file_is_seen(played: PlayedRound, suffix: str) -> None:
    played.page.with_suffix(suffix).unlink()
    assert hold.absent_or_complete(played) == [f"round 1 has no {suffix} file"]


def test_a_published_adapter_that_is_another_is_seen(
    federation: YearFederation, played: PlayedRound
) -> None:
    adapter = played.report.record.published_adapter
    assert adapter is not None
    federation.plans.objects[blob_key(adapter.digest)] = b"x" * adapter.size
    (played.c.published / "adapter_model.safetensors").write_bytes(b"x")
    assert len(hold.absent_or_complete(played)) == 2


def test_a_merge_that_is_not_that_of_its_close_is_seen(
    federation: YearFederation, played: PlayedRound
) -> None:
    found = look(played.c, played.plan).attempt.candidate
    assert found is not None
    other = found.record.model_copy(update={"adapter": ArtifactRef(digest="0" * 64, size=1)})
    slot = round_slot(attempt_of(played.plan), Candidate.kind)
    drop(federation, slot)
    write_record(federation.plans, slot, seal(other, federation.key))
    afresh = replace(played, c=federation.coordinator())
    assert hold.merge_is_recomputed(afresh) == [
        "round 1: merged again, its adapter has other bytes"
    ]


def test_a_silo_that_counts_twice_too_much_or_unasked_is_seen(played: PlayedRound) -> None:
    close, plan = close_of(played).record, played.plan.record
    one, *others = close.admitted
    twice = close.model_copy(update={"admitted": (one, one, *others)})
    assert len(hold.each_counts_once(twice, plan)) == 2
    heavy = close.model_copy(update={"admitted": (one.model_copy(update={"weight": 10**9}),)})
    assert hold.each_counts_once(heavy, plan) == [f"{one.silo} weighs {10**9}"]
    strange = plan.model_copy(update={"cohort": tuple(a.silo for a in others)})
    assert hold.each_counts_once(close, strange) == [f"{one.silo} counts and was not asked"]


@pytest.mark.parametrize("kind", ["acceptance", "verdict", "submission"])
def test_a_silo_that_counts_without_a_record_is_seen(
    federation: YearFederation, played: PlayedRound, kind: str
) -> None:
    silo = close_of(played).record.admitted[0].silo
    inbox = federation.inbox(silo)
    for info in inbox.list_keys(round_slot(attempt_of(played.plan), kind)):
        inbox.erase(info.key)
    afresh = replace(played, c=federation.coordinator())
    assert [b for b in hold.only_what_may_count_counts(afresh) if b.startswith(silo)]


def test_a_report_that_an_auditor_refuses_is_seen(
    federation: YearFederation, played: PlayedRound
) -> None:
    stranger = seal(
        federation.pinned.record.model_copy(update={"federation": "another"}), federation.root
    )
    assert hold.auditor_finds_nothing(played, [stranger])


def test_a_model_below_quorum_and_one_of_an_abort_are_seen(played: PlayedRound) -> None:
    record = played.report.record
    asked = played.plan.record.model_copy(update={"quorum": 12})
    plan = replace(played.plan, record=asked)
    assert hold.quorum_or_abort(replace(played, plan=plan)) == [
        "round 1 is published with 4 of 12 silos"
    ]
    aborted = replace(played.report, record=record.model_copy(update={"outcome": "aborted"}))
    assert hold.quorum_or_abort(replace(played, report=aborted)) == [
        "round 1 is aborted and has a model of its own"
    ]


def test_a_second_plan_and_a_lost_one_break_the_log(
    federation: YearFederation, played: PlayedRound
) -> None:
    plan = played.plan
    second = seal(plan.record.model_copy(update={"quorum": 2}), federation.key)
    write_record(federation.plans, feed_slot(1), second)
    (found,) = hold.log_verifies(federation.plans, federation.pinned, 1, 1)
    assert found.startswith("the log does not verify: feed entry 1: expected one record")
    drop(federation, feed_slot(1))
    assert hold.log_verifies(federation.plans, federation.pinned, 1, 1) == [
        "a newcomer ends at entry 0, others at 1",
        "the feed has gaps: 0 entries of 1",
    ]


def test_a_rerun_that_writes_is_seen(federation: YearFederation, played: PlayedRound) -> None:
    class Chatty(type(federation.plans)):  # type: ignore[misc]
        def get(self, key: str, max_bytes: int) -> bytes | None:
            self.objects["noise"] = b"1"
            return super().get(key, max_bytes)  # type: ignore[no-any-return]

    federation.plans.__class__ = Chatty
    assert hold.rerun_writes_nothing(played, federation.storage) == [
        "a finished round, done again, has changed simulated-plans"
    ]


@pytest.mark.parametrize("place", ["an object", "a log"])
def test_a_key_or_canary_that_gets_out_is_seen(place: str) -> None:
    secrets = {"a key": b"MC4CAQ", "the canary": b"Patient 4711"}
    said = [(place, b"about Patient 4711 and nothing else")]
    assert hold.nowhere(secrets, said) == [f"the canary is in {place}"]
    assert hold.nowhere(secrets, [(place, b"nothing")]) == []


@pytest.mark.parametrize("edit", [b"other", None])
def test_an_object_that_changes_or_goes_is_seen(
    federation: YearFederation, edit: bytes | None
) -> None:
    history = History()
    assert history.nothing_is_lost(federation.storage) == []
    key = next(key for key in federation.plans.objects if key.startswith("feed/"))
    if edit is None:
        del federation.plans.objects[key]
    else:
        federation.plans.objects[key] = edit
    found = "gone" if edit is None else "another"
    assert history.nothing_is_lost(federation.storage) == [f"simulated-plans/{key} is {found}"]


@pytest.mark.parametrize("lower", [(1, 5, 100), (2, 4, 100), (2, 5, 99)])
def test_a_mark_that_falls_is_seen(lower: tuple[int, ...]) -> None:
    history = History()
    assert history.marks_never_fall({"silo-a": (2, 5, 100)}) == []
    assert history.marks_never_fall({"silo-a": lower}) == [f"silo-a: (2, 5, 100) to {lower}"]
    assert history.marks_never_fall({"silo-a": (1, 1, 1)}, rewound=["silo-a"]) == []


def test_a_night_with_two_rounds_and_one_without_are_seen() -> None:
    first = date(2026, 3, 28)
    assert hold.once_a_night([first, first + timedelta(days=1)]) == []
    assert hold.once_a_night([first, first]) == [f"from {first} to {first}"]
    assert len(hold.once_a_night([first, first + timedelta(days=2)])) == 1


def test_polls_that_grow_are_seen() -> None:
    flat = [(night, 5) for night in range(365)]
    assert hold.polls_cost_the_same(flat, 1.25) == []
    growing = [(night, 5 + night // 50) for night in range(365)]
    assert hold.polls_cost_the_same(growing, 1.25) == ["a poll costs 2.16 times what it did"]


def test_disk_and_memory_that_grow_are_seen() -> None:
    assert hold.flat("disk", [(50, 100.0), (350, 110.0)], per_round=1.0) == []
    assert hold.flat("disk", [(50, 100.0), (350, 500.0)], per_round=1.0) == [
        "disk grows by 1.33 a round"
    ]


def test_a_night_that_ends_otherwise_than_expected_is_seen(federation: YearFederation) -> None:
    night = federation.nights[-1]
    assert as_expected(night) == []
    assert as_expected(replace(night, outcome="aborted")) == ["expected published"]
    assert as_expected(replace(night, outcome="", fault="storage")) == ["expected published"]
    expired = replace(night, expects="expired", outcome="", fault="another fault")
    assert as_expected(expired) == ["expected a fault that says 'federation renew'"]


def test_a_breach_tells_seed_night_and_events(year_folder: Path, tiny_model: Path) -> None:
    year = make_year(year_folder, tiny_model)
    year.federation.attendance = lambda night: frozenset(FOUNDERS[:2])
    with pytest.raises(YearError, match=r"seed 7, night 0:\nexpected published\noutcome aborted"):
        year.play()
