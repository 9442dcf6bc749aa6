"""The coordinator's disk over many rounds, and what stays on it."""

from pathlib import Path

import pytest

from aggregator.decisions.stage import Stage
from aggregator.federated_round import (
    abort_round,
    advance,
    finish_latest_report,
    merge_round,
    report_round,
)
from aggregator.feed.reading import read_federation
from aggregator.settings.federation import DiskSection
from aggregator.upkeep.disk_pruning import prune_workspace, surplus, workspace_in_use
from tests.simulator.disk import files_below, names_in, play_rounds, size_of
from tests.simulator.federation import SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import Behaviour

HONEST = {"a": Behaviour.HONEST, "b": Behaviour.HONEST}


def home_of(federation: SimulatedFederation) -> Path:
    return federation.settings.home


def keep(federation: SimulatedFederation, rounds: int) -> None:
    disk = DiskSection(keep_rounds=rounds)
    federation.settings = federation.settings.model_copy(update={"disk": disk})


@pytest.mark.long
def test_twelve_rounds_leave_no_more_than_six_but_for_reports(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation(**HONEST)
    home = home_of(federation)
    play_rounds(federation, 1, 6)
    after_six = size_of(home) - size_of(home / "reports")
    play_rounds(federation, 7, 12)
    after_twelve = size_of(home) - size_of(home / "reports")
    assert abs(after_twelve - after_six) < 0.03 * after_six
    assert len(names_in(home / "reports")) == 12 * 3
    assert names_in(home / "published") == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def test_what_the_last_rounds_used_stays(make_federation: MakeFederation) -> None:
    federation = make_federation(**HONEST)
    play_rounds(federation, 1, 3)
    workspace = federation.coordinator().workspace
    # Two local adapters, the candidate, what the round started from and what that one did.
    assert len(names_in(workspace / "spool")) == 5
    assert not names_in(workspace / "candidates")
    keep(federation, 0)
    play_rounds(federation, 4, 4)
    # What the next round starts from, and the adapter before, whose change it carries on.
    assert len(names_in(workspace / "spool")) == 2


def test_a_round_under_way_loses_nothing(make_federation: MakeFederation) -> None:
    federation = make_federation(**HONEST)
    keep(federation, 0)
    play_rounds(federation, 1, 2)
    plan, workspace = federation.open(3), federation.coordinator().workspace
    stage = None
    while stage is not Stage.REPORTED:
        federation.silos_act()
        before = files_below(workspace)
        c = federation.coordinator()
        assert prune_workspace(c, read_federation(c)).usage.files == 0 or stage is Stage.REPORTING
        assert before == files_below(workspace)
        stage = advance(federation.coordinator(), plan)
        federation.clock.sleep(20)


def test_an_aborted_attempt_is_followed_by_another(make_federation: MakeFederation) -> None:
    federation = make_federation(**HONEST)
    play_rounds(federation, 1, 1)
    first = federation.open(2)
    federation.silos_act(3)
    abort_round(federation.coordinator(), first, "operator.abort", "to try again")
    report_round(federation.coordinator(), federation.look(first))
    second = federation.open(2)
    federation.play(second)
    assert second.record.attempt == 2
    assert not any(silo.faults for silo in federation.silos.values())


def test_nothing_goes_while_contributions_are_measured(make_federation: MakeFederation) -> None:
    federation = make_federation(**HONEST)
    play_rounds(federation, 1, 2)
    keep(federation, 0)
    c = federation.coordinator()
    feed = read_federation(c)
    due = surplus(c, feed)
    assert due
    with workspace_in_use(c):
        assert prune_workspace(c, feed).usage.files == 0
        assert all(path.exists() for path in due)
    assert prune_workspace(c, feed).usage.files == len(due)
    assert not any(path.exists() for path in due)


def test_a_merge_can_be_made_again_after_everything_went(make_federation: MakeFederation) -> None:
    """The spool is a copy: what a later step needs of it is fetched again."""
    federation = make_federation(**HONEST)
    play_rounds(federation, 1, 2)
    keep(federation, 0)
    plan = federation.open(3)
    c = federation.coordinator()
    while advance(c, plan) is not Stage.MERGING:
        federation.silos_act()
        federation.clock.sleep(20)
    for path in (c.workspace / "spool").iterdir():
        path.unlink()
    assert merge_round(federation.coordinator(), federation.look(plan)).record.adapter.size
    federation.play(plan)


def test_reports_and_published_adapter_come_back_after_a_prune(
    make_federation: MakeFederation,
) -> None:
    """A coordinator that was killed before it wrote them, and pruned since."""
    federation = make_federation(**HONEST)
    play_rounds(federation, 1, 2)
    c = federation.coordinator()
    before = {name: (c.reports / name).read_bytes() for name in names_in(c.reports)}
    weights = c.published / "adapter_model.safetensors"
    published = weights.read_bytes()
    for name in before:
        if "0002" in name:
            (c.reports / name).unlink()
    weights.unlink()
    finish_latest_report(federation.coordinator())
    assert {name: (c.reports / name).read_bytes() for name in names_in(c.reports)} == before
    assert weights.read_bytes() == published


def test_strange_files_and_links_stay(make_federation: MakeFederation, tmp_path: Path) -> None:
    federation = make_federation(**HONEST)
    keep(federation, 0)
    play_rounds(federation, 1, 1)
    workspace, target = federation.coordinator().workspace, tmp_path / "target"
    target.mkdir()
    (target / f"{'0' * 64}.safetensors").write_bytes(b"of somebody else")
    linked = workspace / "contributions"
    linked.symlink_to(target)
    strange = [
        workspace / "spool" / "my-adapter.safetensors",
        workspace / "candidates" / "notes.txt",
        workspace / "notes.txt",
    ]
    for path in strange:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"mine")
    link = workspace / "spool" / f"{'0' * 64}.safetensors"
    link.symlink_to(target / link.name)
    play_rounds(federation, 2, 3)
    assert all(path.read_bytes() == b"mine" for path in strange)
    assert link.is_symlink() and (target / link.name).read_bytes() == b"of somebody else"


def test_a_prune_that_fails_ends_no_round(
    make_federation: MakeFederation, caplog: pytest.LogCaptureFixture
) -> None:
    federation = make_federation(**HONEST)
    play_rounds(federation, 1, 1)
    lock = federation.coordinator().workspace / "in-use.lock"
    lock.unlink()
    lock.mkdir()
    play_rounds(federation, 2, 2)
    assert "what no round needs stays for now" in caplog.text
    lock.rmdir()
    play_rounds(federation, 3, 3)
    assert len(names_in(federation.coordinator().workspace / "spool")) == 5


def test_contributions_of_past_rounds_go(make_federation: MakeFederation) -> None:
    federation = make_federation(**HONEST)
    play_rounds(federation, 1, 1)
    c = federation.coordinator()
    plan = federation.open(1)
    mine = c.contributions_to(plan.digest) / "losses" / "one.json"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"{}")
    assert mine not in surplus(c, read_federation(c))
    play_rounds(federation, 2, 2)
    assert not mine.parent.parent.exists()
