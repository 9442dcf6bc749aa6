"""Federations whose silos train a family, and what a user makes of the folder that comes of it.

Gates, ranks, merge, evaluation and publication are real; storage and the coordinator are in memory.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from aggregator.decisions.stage import Stage
from aggregator.feed.reading import read_federation, read_report
from aggregator.settings.federation import TaskSection
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import RoundPlan
from data_contracts.protocol.records.round_report import RoundReport
from tests.silo_agent.training_silo import add_training_silo
from tests.simulator.fake_clock import FakeClock
from tests.simulator.federation import SimulatedFederation

SILOS = ("silo-a", "silo-b", "silo-c")
RECIPE: Mapping[str, Any] = {"local_steps": 8, "learning_rate": Decimal("0.01")}


@contextmanager
def founded(
    directory: Path,
    model: Path,
    task: TaskSection,
    recipe: Mapping[str, Any],
    contract: str,
    sets: Mapping[str, Sequence[dict[str, Any]]],
    file: str = "records.jsonl",
) -> Iterator[SimulatedFederation]:
    """A silo for each of `sets`, its rows in a file that the contract names; their ranks end with
    the block."""
    # Deadlines of training are by the clock of the machine.
    made = SimulatedFederation(directory, model, FakeClock(datetime.now(UTC)))
    changed = made.settings.recipe.model_copy(update=dict(recipe))
    made.settings = made.settings.model_copy(update={"recipe": changed, "task": task})
    with ExitStack() as ended:
        for name, rows in sets.items():
            silo = add_training_silo(made, name, contract, rows, file)
            ended.callback(silo.end_ranks)
        made.found()
        yield made


def report_of(federation: SimulatedFederation, plan: Verified[RoundPlan]) -> RoundReport:
    """What was signed in the end."""
    assert federation.play(plan)[-1] is Stage.REPORTED
    assert [fault for silo in federation.silos.values() for fault in silo.faults] == []
    c = federation.coordinator()
    report = read_report(c, read_federation(c), plan)
    assert report is not None
    return report.record


def loaded_as_the_card_says(federation: SimulatedFederation, **given: Any) -> dict[str, Any]:
    """The names that the code of the card defines, where these are given and the base model is in
    its folder."""
    folder = federation.coordinator().published
    card = (folder / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    code = "\n".join(blocks).replace("/folder/of/the/base/model", str(federation.model_dir))
    exec(code.replace('"published/"', repr(str(folder))), given)  # noqa: S102
    return given
