"""`make bench-families`: each family as a federation of three silos, against base, local, central.

Three seeds (QUICK=1: one, with fewer steps); each figure is the mean over seeds and silos, in the
metric of its family: perplexity, loss of hidden tokens, accuracy, recall@1, error of the noise.
`personal_home` and `local_only_home` are nats per answer token at home of the questions and answers
of the demo's institutions. What cannot be had here is null, and said.
"""

import argparse
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from statistics import mean, stdev
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from benchmarks.families.federation import Federation, Shape, silo_name
from benchmarks.families.material import FAMILIES, Material, NotHereError, Place, questions
from benchmarks.machine import machine
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.training_recipe import TrainingRecipe
from infra.base_model.linear_modules import linear_modules
from silo_agent.training.loss import Loss
from silo_agent.training.processes.resident_ranks import ResidentRanks

STATE = Path(".consortia/bench").resolve()
RESULTS, FOLDER = STATE / "families.json", STATE / "families"
SEEDS = (1, 2, 3)
RANK, KEEP_SECONDS = 8, 600
ALL = 1000
"""Held-out sequences of a silo, at the most."""
CONTENDERS = ("base", "local_only", "federated", "centralised")
Metric = Callable[[Loss], float]


@dataclass(frozen=True)
class Plan:
    """How a family is trained, and what is told of it; higher is better where it `is_share`."""

    rounds: int
    steps: int
    rows: int
    length: int
    rate: str
    metric: Metric
    micro_batch: int = 1
    is_share: bool = False
    heldout: int = ALL


def _nats(loss: Loss) -> float:
    return loss.nats


def _perplexity(loss: Loss) -> float:
    return math.exp(loss.nats)


def _right(loss: Loss) -> float:
    return math.nan if loss.right is None else loss.right


PLANS: Mapping[str, Plan] = {
    "causal": Plan(3, 20, 4, 128, "0.01", _perplexity),
    "masked": Plan(3, 15, 8, 64, "0.003", _nats, 8, heldout=200),
    "classification": Plan(3, 15, 8, 48, "0.003", _right, 8, is_share=True),
    "pairs": Plan(3, 40, 32, 24, "0.005", _right, 32, is_share=True),
    "pictures": Plan(3, 30, 8, 24, "0.005", _nats, 8),
}
QUESTIONS = Plan(2, 20, 4, 128, "0.01", _nats)


def main() -> int:
    """Measure all families, or those that are named; each is written when it is done."""
    parser = argparse.ArgumentParser(prog="benchmarks.families")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="")
    chosen = parser.parse_args()
    wanted = chosen.only.split(",") if chosen.only else [*FAMILIES, "personal"]
    for name in (name for name in (*FAMILIES, "personal") if name in wanted):
        quick = chosen.quick
        _write(_personal(quick=quick) if name == "personal" else _family(name, quick=quick), quick)
    _say(f"written: {RESULTS}")
    return 0


def _write(figures: dict[str, float | None], quick: bool) -> None:
    """Beside those of other families, which stay as they were."""
    known: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    about = {"machine": machine("2"), "seeds": 1 if quick else len(SEEDS)}
    STATE.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps({**known, **about, **figures}, indent=1) + "\n")


def _family(name: str, *, quick: bool) -> dict[str, float | None]:
    plan = _shortened(PLANS[name]) if quick else PLANS[name]
    try:
        material = FAMILIES[name](Place(_fresh(name), STATE, _say))
    except NotHereError as error:
        _say(f"{name}: not measured: {error}")
        return {f"{name}_{contender}": None for contender in CONTENDERS}
    by_seed = [_contenders(name, material, plan, seed) for seed in _seeds(quick=quick)]
    figures: dict[str, float | None] = {}
    for contender in CONTENDERS:
        values = [found[contender] for found in by_seed]
        spread = f" (standard deviation {stdev(values):.4f})" if len(values) > 1 else ""
        _say(f"{name:16}{contender:14}{mean(values):9.4f}{spread}")
        figures[f"{name}_{contender}"] = mean(values)
    return figures


def _contenders(name: str, material: Material, plan: Plan, seed: int) -> dict[str, float]:
    """The metric of each, the mean over the held-out records of all silos."""
    ranks = ResidentRanks(FOLDER, KEEP_SECONDS)
    try:
        federation = _federation(FOLDER / name / f"seed-{seed}", material, plan, seed, ranks)
        adapters: dict[str, Path | None] = {"base": None}
        adapters["federated"] = federation.federated()[-1]
        alone = {f"local-{n}": path for n, path in enumerate(federation.local_only())}
        adapters["centralised"] = federation.centralised()
    finally:
        ranks.end()
    result = federation.measured(adapters | alone)
    sets = [silo_name(place) for place in range(len(material.silos))]
    found = {
        adapter: mean(plan.metric(result.loss(adapter, silo)) for silo in sets)
        for adapter in (*adapters, *alone)
    }
    found["local_only"] = mean(found[adapter] for adapter in alone)
    return found


def _personal(*, quick: bool) -> dict[str, float | None]:
    """Nats at home: the personal adapter as it is used there, and the one of own data only."""
    plan = _shortened(QUESTIONS) if quick else QUESTIONS
    material = questions(Place(_fresh("questions"), STATE, _say))
    own, alone, everybody = list[float](), list[float](), list[float]()
    for seed in _seeds(quick=quick):
        ranks = ResidentRanks(FOLDER, KEEP_SECONDS)
        try:
            folder = FOLDER / "questions" / f"seed-{seed}"
            federation = _federation(folder, material, plan, seed, ranks)
            merged = federation.federated()[-1]
            local = federation.local_only()
            own += [measures.used.nats for measures in federation.personal(merged)]
        finally:
            ranks.end()
        names = {f"local-{place}": path for place, path in enumerate(local)}
        result = federation.measured({"federated": merged} | names)
        for place in range(len(material.silos)):
            alone.append(result.loss(f"local-{place}", silo_name(place)).nats)
            everybody.append(result.loss("federated", silo_name(place)).nats)
    figures = {
        "personal_home": mean(own),
        "local_only_home": mean(alone),
        "federated_home": mean(everybody),
    }
    for name, value in figures.items():
        _say(f"{name:30}{value:9.4f}")
    return dict(figures)


def _federation(
    folder: Path, material: Material, plan: Plan, seed: int, ranks: ResidentRanks
) -> Federation:
    folder.mkdir(parents=True, exist_ok=True)
    found = linear_modules(material.model_dir, material.task)
    layout = AdapterLayout(rank=RANK, alpha=2 * RANK, seed=seed, targets=found.modules + found.head)
    recipe = TrainingRecipe(
        local_steps=plan.steps,
        sequences_per_step=plan.rows,
        sequence_length=plan.length,
        learning_rate=Decimal(plan.rate),
        warmup_steps=2,
        weight_decay=Decimal("0"),
        max_gradient_norm=Decimal("1"),
        seed=seed,
    )
    return Federation(
        folder, material, layout, Shape(recipe, plan.rounds, plan.heldout, plan.micro_batch), ranks
    )


def _shortened(plan: Plan) -> Plan:
    return replace(plan, rounds=2, steps=max(4, plan.steps // 4))


def _seeds(*, quick: bool) -> tuple[int, ...]:
    return SEEDS[:1] if quick else SEEDS


def _fresh(name: str) -> Path:
    """A folder of its own: what an earlier run trained is not what this one measures."""
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
