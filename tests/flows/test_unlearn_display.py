"""What `consortia unlearn plan` says, and the setting that `start` writes."""

from pathlib import Path
from typing import Any

import pytest

from aggregator.settings.federation import load_settings
from aggregator.unlearning.erasing import Considered, next_run
from aggregator.unlearning.erasure_plan import erasure_plan
from aggregator.unlearning.hindrances import hindrances
from data_contracts.errors import FederationOperatorError
from flows.commands.unlearn_display import plan_json, plan_lines
from flows.federation.run_setting import go_on_with_run
from tests.aggregator.unlearning.rounds import adapter, asked, past
from tests.flows.test_edited_settings import founded

HISTORY = [past(1, None, "ab"), past(2, "run-a/1", "abx"), past(3, "run-a/2", "abx")]


def considered(**changes: Any) -> Considered:
    plan = erasure_plan(HISTORY, asked(**changes))
    return Considered(plan, hindrances(HISTORY, plan), "run-b")


def test_one_screen_says_what_it_takes() -> None:
    text = "\n".join(plan_lines(considered()))
    for said in (
        "counted in     round 2, 3; 2 files have its part",
        f"the adapter before, {adapter('run-a/1').digest[:12]}, with round 2",
        "rounds 2 to 3, 4 local trainings by silo-a, silo-b",
        "20 steps, 400 tokens",
        "as run         run-b",
        "--other-seeds",
    ):
        assert said in text
    assert "cannot be had" not in text


def test_why_it_cannot_be_had_is_said_with_what_to_do() -> None:
    lines = plan_lines(considered(letters="abx"))
    assert any("unlearn.is_member" in line and "remove-silo" in line for line in lines)


def test_a_program_gets_digests_in_full() -> None:
    told = plan_json(considered())
    assert told["starting_adapter"] == adapter("run-a/1").digest
    assert told["revoked"] == sorted(adapter(f"run-a/{n}").digest for n in (2, 3))
    assert [each["round"] for each in told["rounds"]] == [2, 3]
    assert (told["steps"], told["tokens"], told["hindrances"]) == (20, 400, [])


@pytest.mark.parametrize(
    ("run", "taken", "expected"),
    [
        ("run-1", set(), "run-2"),
        ("run-1", {"run-2", "run-3"}, "run-4"),
        ("main", set(), "main-2"),
        ("v2", {"v3"}, "v4"),
    ],
)
def test_the_next_run_has_the_next_free_number(run: str, taken: set[str], expected: str) -> None:
    assert next_run(run, taken) == expected


def test_the_run_is_set_and_all_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "federation.toml"
    before = founded()
    path.write_text(before)
    lines = go_on_with_run(tmp_path, "run-2")
    assert lines == [f'{path.resolve()} now says run = "run-2"']
    assert load_settings(tmp_path).run == "run-2"
    assert path.read_text().replace('"run-2"', '"run-1"') == before
    assert go_on_with_run(tmp_path, "run-2") == [f'{path.resolve()} says run = "run-2"']


def test_a_file_without_such_a_line_is_left_to_a_person(tmp_path: Path) -> None:
    path = tmp_path / "federation.toml"
    path.write_text(founded().replace('run = "run-1"', "run = 'run-1'"))
    with pytest.raises(FederationOperatorError) as caught:
        go_on_with_run(tmp_path, "run-2")
    assert 'write run = "run-2" by hand' in caught.value.action
