"""What stands behind the adapters of a whole federation, one of whose silos is taken out again."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from aggregator.lineage.reading import read_lineage
from aggregator.settings.merge import MergeSection
from flows.commands.lineage_display import lineage_json, lineage_tree
from tests.aggregator.test_memberships_in_rounds import report_of
from tests.aggregator.unlearning.story import Story, X

pytestmark = pytest.mark.long


@pytest.fixture
def story(tmp_path: Path, tiny_model: Path) -> Story:
    return Story(tmp_path / "with", tiny_model, merge=MergeSection(compression="none"))


def test_an_adapter_tells_its_rounds_and_a_revoked_one_that_it_is(story: Story) -> None:
    first = story.next()
    story.joins()
    second = story.next()
    old = story.published(second)
    story.leaves()
    erasure = story.unlearn().record
    again = story.next()
    new = story.published(again)
    assert old is not None
    assert new is not None
    c = story.federation.coordinator()

    told = lineage_json(read_lineage(c, old.digest[:10]))
    assert told["adapter"] == old.digest
    assert told["revoked_by_entry"] == erasure.feed_number
    assert [(r["run"], r["round"]) for r in told["rounds"]] == [("run-1", 2), ("run-1", 1)]
    assert told["silos"][X] == [{"run": "run-1", "round": 2}]
    for shown, plan in zip(told["rounds"], (second, first), strict=True):
        report = report_of(story.federation, plan)
        assert shown["plan"] == plan.digest
        assert {silo["silo"]: silo["contract"] for silo in shown["silos"]} == {
            silo.silo: silo.contract_digest for silo in report.silos
        }
    shares = [float(silo["weight_share"]) for silo in told["rounds"][0]["silos"]]
    assert sum(shares) == pytest.approx(1, abs=1e-4)

    without = read_lineage(c, new.digest)
    told = lineage_json(without)
    assert X not in told["silos"]
    assert told["revoked_by_entry"] is None
    assert [r["run"] for r in told["rounds"]] == [erasure.replay_run, "run-1"]

    text = io.StringIO()
    Console(file=text, width=120).print(lineage_tree(read_lineage(c, old.digest)))
    for line in (
        f"adapter {old.digest}",
        f"revoked by feed entry {erasure.feed_number}: the part of {X} is taken out",
        f"has a part of {X}, from 1 round",
        f"run-1, round 2: adapter {old.digest[:12]}",
        f"the seed {first.record.layout.seed}",
    ):
        assert line in text.getvalue()
