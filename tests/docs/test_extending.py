"""docs/extending.md holds: its merge rule works, and a rule that lacks a place is noticed."""

import re
from pathlib import Path

import numpy as np
import pytest

from aggregator.merge import rules
from aggregator.report.compliance_page.wording import MERGES
from data_contracts.dataset.contract.terms import Egress
from data_contracts.protocol.records.merge_spec import MergeRule
from tests.aggregator.adapter_samples import (
    TARGETS,
    dense,
    inputs_of,
    layout_with,
    write_adapter,
)
from tests.docs.pages import ROOT, text_of

NAMES: tuple[MergeRule, ...] = MergeRule.__args__  # type: ignore[attr-defined]
WEIGHTS = (100, 600, 300)


def block_of_the_page() -> str:
    """The rule that the page writes, without the indentation of its list."""
    found = re.findall(
        r"^( *)```python\n(.*?)^\1```$",
        text_of(ROOT / "docs/extending.md"),
        re.MULTILINE | re.DOTALL,
    )
    ((indentation, block),) = found
    return re.sub(f"^{indentation}", "", block, flags=re.MULTILINE)


def test_the_rule_that_the_page_writes_is_right_and_says_how_wrong_it_is(tmp_path: Path) -> None:
    names = dict(vars(rules))
    exec(block_of_the_page(), names)  # noqa: S102
    layout = layout_with()
    files = [write_adapter(tmp_path / str(w), layout, seed=w) for w in WEIGHTS]
    inputs = inputs_of(list(zip(files, WEIGHTS, strict=True)), layout)
    for target in TARGETS:
        merge = names["largest"](inputs, target)
        heaviest = files[1].module(target)
        assert [merge.a.tobytes(), merge.b.tobytes()] == [part.tobytes() for part in heaviest]
        true_sum = sum(w / 1000 * dense(f, target) for f, w in zip(files, WEIGHTS, strict=True))
        error = np.sum((dense(files[1], target) - true_sum) ** 2)
        norms = merge.measure()
        assert norms.error == pytest.approx(float(error), rel=1e-4)
        assert norms.true_sum == pytest.approx(float(np.sum(true_sum**2)), rel=1e-4)


@pytest.mark.parametrize("rule", NAMES)
def test_a_merge_rule_is_told_to_officer_operator_and_reader(rule: MergeRule) -> None:
    template = text_of(ROOT / "flows" / "federation" / "templates.py")
    settings = template.split("\n[merge]\n")[1].split("\n[")[0]
    assert rule in MERGES
    assert re.search(rf"\b{rule}\b", settings)
    assert re.search(rf"^\| `{rule}`", text_of(ROOT / "docs" / "merge.md"), re.MULTILINE)


@pytest.mark.parametrize("item", Egress.__args__)  # type: ignore[attr-defined]
def test_an_item_of_egress_is_told_to_the_data_steward(item: str) -> None:
    assert re.search(rf"^\| `{item}` \|", text_of(ROOT / "docs" / "contracts.md"), re.MULTILINE)
