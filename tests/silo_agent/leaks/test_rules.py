"""Limits of a leak check: which figures keep an adapter in, and by which rule."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from silo_agent.first_day.templates import policy_text
from silo_agent.leaks.figures import Exposure, LeakFigures, Membership, Verbatim
from silo_agent.leaks.rules import is_too_few, objection
from silo_agent.policy.leak_check import FEWEST_RECORDS, OFF, LeakCheck
from silo_agent.policy.policy_file import read_policy
from tests.silo_agent.test_policy import EXACT, POLICY
from tests.simulator.leaks import FEW_LEAKS


def figures(**changes: Any) -> LeakFigures:
    return FEW_LEAKS.model_copy(update=changes)


def membership(low: float) -> Membership:
    return Membership(auc=min(1.0, low + 0.05), low=low, high=min(1.0, low + 0.1))


def verbatim(trained: int, heldout: int, chance: float) -> Verbatim:
    return Verbatim(trained=trained, of_trained=400, heldout=heldout, of_heldout=400, chance=chance)


def exposed(mean: float, chance: float, **changes: int) -> LeakFigures:
    counts = {"planted": 8, "of_planted": 8, "candidates": 1023} | changes
    return figures(exposure=Exposure(mean=mean, highest=mean, chance=chance, **counts))


CHECK = LeakCheck()


@pytest.mark.parametrize(
    ("found", "rule"),
    [
        pytest.param(FEW_LEAKS, None, id="little"),
        pytest.param(None, "release.unchecked", id="nothing measured"),
        pytest.param(figures(membership=membership(0.7)), None, id="membership at the limit"),
        pytest.param(
            figures(membership=membership(0.701)), "release.membership", id="membership above it"
        ),
        pytest.param(
            figures(verbatim=verbatim(12, 0, 0.0001)), "release.verbatim", id="repeats, for sure"
        ),
        pytest.param(figures(verbatim=verbatim(12, 9, 0.33)), None, id="repeats, by chance"),
        pytest.param(figures(verbatim=verbatim(4, 0, 0.005)), None, id="repeats at the limit"),
        pytest.param(figures(verbatim=None), None, id="a family that continues no text"),
        pytest.param(figures(trained=199), "release.too_few", id="too few trained"),
        pytest.param(figures(heldout=199), "release.too_few", id="too few held out"),
        pytest.param(figures(membership=None), "release.too_few", id="no membership"),
        pytest.param(figures(trained=200, heldout=200), None, id="just enough"),
        pytest.param(exposed(5.0, 1e-9), None, id="exposure at the limit"),
        pytest.param(exposed(5.1, 1e-9), "release.exposure", id="exposure above it"),
        pytest.param(exposed(5.1, 0.02, planted=2), None, id="exposure by chance"),
        pytest.param(
            exposed(4.0, 1e-9, candidates=31),
            "release.too_few",
            id="cannot show it",
        ),
        pytest.param(exposed(4.0, 1e-9, candidates=32), None, id="candidates that can"),
        pytest.param(
            exposed(0.0, 1.0, planted=0, candidates=0), "release.too_few", id="no time for canaries"
        ),
        pytest.param(
            exposed(0.0, 1.0, planted=0, of_planted=0, candidates=0), None, id="no canary trained"
        ),
        pytest.param(
            figures(trained=9, membership=membership(0.9)),
            "release.membership",
            id="few, but clear",
        ),
    ],
)
def test_figures_over_a_limit_keep_the_adapter_in(found: LeakFigures | None, rule: str) -> None:
    refusal = objection(found, CHECK)
    assert (refusal.rule if refusal else None) == rule


def test_too_few_records_pass_only_where_the_policy_says_so_and_keep_their_limits() -> None:
    allowing = CHECK.model_copy(update={"too_few": "allow"})
    few = figures(trained=9, heldout=9)
    assert is_too_few(few, allowing)
    assert objection(few, allowing) is None
    clear = few.model_copy(update={"membership": membership(0.9)})
    refusal = objection(clear, allowing)
    assert refusal is not None
    assert refusal.rule == "release.membership"


def test_a_check_that_is_off_keeps_nothing_in() -> None:
    off = LeakCheck(off=OFF)
    assert objection(None, off) is None
    assert objection(figures(membership=membership(1.0)), off) is None


def policy_with(folder: Path, table: str) -> Any:
    path = folder / "policy.toml"
    path.write_text(POLICY.format(**EXACT).replace("[[models]]", f"{table}\n[[models]]"))
    return read_policy(path)


def test_a_policy_that_says_nothing_of_it_checks_with_the_limits_that_a_new_one_shows(
    tmp_path: Path,
) -> None:
    found = policy_with(tmp_path, "").policy
    assert found is not None
    assert found.leak_check == LeakCheck(**tomllib.loads(policy_text("", None))["leak_check"])
    assert found.leak_check.is_on
    assert found.leak_check.too_few == "refuse"


def test_the_check_is_off_only_in_so_many_words(tmp_path: Path) -> None:
    assert not policy_with(tmp_path, f'[leak_check]\noff = "{OFF}"').policy.leak_check.is_on


@pytest.mark.parametrize(
    "line", ["off = true", 'off = "yes"', "off = false", 'off = ""', "enabled = false"]
)
def test_any_other_word_makes_the_policy_unreadable(tmp_path: Path, line: str) -> None:
    file = policy_with(tmp_path, f"[leak_check]\n{line}")
    assert file.policy is None
    assert "leak_check" in str(file.problem)


@pytest.mark.parametrize(
    "line",
    [
        "max_auc = 0.4",
        "max_verbatim = 1.5",
        "max_exposure = 1",
        "max_exposure = 10",
        'too_few = "maybe"',
    ],
)
def test_a_limit_that_makes_no_sense_makes_the_policy_unreadable(tmp_path: Path, line: str) -> None:
    assert policy_with(tmp_path, f"[leak_check]\n{line}").policy is None


def test_the_words_of_the_template_say_how_many_records_are_too_few() -> None:
    assert f"fewer than {FEWEST_RECORDS} of each" in policy_text("", None)
