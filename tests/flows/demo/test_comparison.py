"""What the demo's table shows of personal adapters, and what it says where one is missing."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.artifact import artifact_of_file
from flows.demo.comparison import Comparison, through_gates
from flows.demo.layout import DemoPaths
from flows.demo.personal import own_adapter
from flows.demo.summary import print_table
from silo_agent.personal.kept import PersonalAdapter, PersonalAdapters, PersonalFacts
from silo_agent.training.loss import Loss
from silo_agent.training.personal_part import PersonalMeasures
from silo_agent.training.prompt_gate import PromptGate
from tests.aggregator.federation_samples import federation
from tests.silo_agent.training.tiny_jobs import drawn_adapter
from tests.tiny_model import tiny_adapter_layout

PLAN = federation().plan.record
SILOS = ("harbor-bank", "north-hospital", "south-hospital")
LAYOUT = tiny_adapter_layout()
LOSS = Loss(nats=1.5, tokens=10)


def keep(paths: DemoPaths, silo: str, made_for: str, scale: float) -> PersonalAdapter:
    """A personal adapter of round 1, beside the same adapter as that of every silo."""
    files = paths.state / f"{silo}-made"
    files.mkdir(parents=True)
    trained = drawn_adapter(files / "trained.safetensors", LAYOUT, scale)
    beside = drawn_adapter(files / "beside.safetensors", LAYOUT, 0.3)
    facts = PersonalFacts.model_validate(
        {
            "method": "dual",
            "federation": PLAN.federation,
            "run": PLAN.run,
            "round": PLAN.round,
            "attempt": PLAN.attempt,
            "base_model": PLAN.base_model,
            "prompt_date": PLAN.day,
            "precision": "float32",
            "issued_at": PLAN.issued_at,
            "layout": LAYOUT,
            "beside_layout": LAYOUT,
            "digest": artifact_of_file(trained).digest,
            "beside_digest": artifact_of_file(beside).digest,
            "global_digest": artifact_of_file(beside).digest,
            "steps": 8,
            "tokens": 100,
            "heldout_digest": "0" * 64,
            "heldout_sequences": 6,
            "measures": PersonalMeasures(
                own=LOSS, used=LOSS, gate=PromptGate(centre=(scale,), threshold=0.9)
            ),
            "made_for": made_for,
        }
    )
    adapters = PersonalAdapters(paths.silo(silo), PLAN.run)
    adapters.keep(facts, trained, beside)
    kept = adapters.of_round(PLAN.round)
    assert kept is not None
    return kept


def test_a_missing_adapter_is_said_with_the_end_of_its_log(tmp_path: Path) -> None:
    paths = DemoPaths(tmp_path)
    expected = (
        f"personal adapter of north-hospital: expected one for the adapter that round {PLAN.round}"
    )
    with pytest.raises(FederationOperatorError, match=f"{expected} .* found none. To fix it: "):
        own_adapter(paths, PLAN, "north-hospital")
    log = paths.stack / "logs" / "personalise-north-hospital.log"
    log.parent.mkdir(parents=True)
    log.write_text("loading\nerror: no memory\n")
    with pytest.raises(FederationOperatorError, match=r"the last line of .* is: error: no memory"):
        own_adapter(paths, PLAN, "north-hospital")


def test_one_for_another_adapter_is_none(tmp_path: Path) -> None:
    paths = DemoPaths(tmp_path)
    keep(paths, "north-hospital", "starting", 0.2)
    with pytest.raises(FederationOperatorError, match="found none"):
        own_adapter(paths, PLAN, "north-hospital")
    kept = keep(paths, "south-hospital", "published", 0.2)
    assert own_adapter(paths, PLAN, "south-hospital") == kept


def test_each_is_measured_by_its_own_gate_beside_one_file(tmp_path: Path) -> None:
    paths = DemoPaths(tmp_path)
    own = {
        silo: keep(paths, silo, "published", scale)
        for silo, scale in zip(SILOS, (0.1, 0.2, 0.4), strict=True)
    }
    found = list(through_gates(own))
    assert [each.name for each in found] == [f"own {silo}" for silo in SILOS]
    assert [each.path for each in found] == [kept.trained for kept in own.values()]
    assert [each.gate and each.gate.centre for each in found] == [(0.1,), (0.2,), (0.4,)]
    (beside,) = {each.residual for each in found}
    assert beside in {kept.beside for kept in own.values()}


def test_the_table_has_a_row_for_each_pair_and_one_for_home() -> None:
    everywhere = dict.fromkeys(SILOS, 2.0)
    own = {silo: everywhere | {silo: 1.0 + place} for place, silo in enumerate(SILOS)}
    comparison = Comparison(
        base=dict.fromkeys(SILOS, 3.5),
        published=everywhere,
        silo_only=dict.fromkeys(SILOS, everywhere),
        personal=own,
    )
    console = Console(file=StringIO(), width=80, no_color=True)
    print_table(comparison, console)
    assert isinstance(console.file, StringIO)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert max(map(len, lines)) <= 79
    rows = [line.split() for line in lines]
    assert ["+", "north-hospital", "2.0000", "2.0000", "2.0000", "2.0000"] in rows
    assert ["+", "south-hospital", "2.0000", "2.0000", "3.0000", "2.3333"] in rows
    assert ["global", "+", "personal", "1.0000", "2.0000", "3.0000", "2.0000"] in rows
