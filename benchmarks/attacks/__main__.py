"""Every attack against every rule: `python -m benchmarks.attacks [--quick]`.

Prints two tables of final accuracies in percent and writes them to .consortia/bench/attacks.json.
Under scaled replacement the tables also say, after the slash, how many examples with the trigger
are taken for the attackers' class. `--quick` runs fewer attacks, rules and steps of the digits, in
under 90 seconds on a free core; the whole takes about 15 minutes there.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Column, Table

from benchmarks.attacks.digits_cell import STEPS, DigitsCell
from benchmarks.attacks.library import (
    ALIE,
    ALIE_SWEEP,
    ATTACKS,
    NO_ATTACK,
    REPLACEMENT,
    Attack,
    Outcome,
)
from benchmarks.attacks.lora_cell import ROUNDS, LoraCell
from benchmarks.attacks.rules import RULES, Rule

OUTPUT = Path(".consortia/bench/attacks.json")
QUICK_RULES = ("mean", "krum", "default")
QUICK_STEPS = 150
TABLE_WIDTH = 120
SWEPT_RULES = ("mean", "krum", "cc", "default", "default cc")

Figures = dict[str, dict[str, float]]
"""Figures by attack, then by rule; `<rule> backdoor` is the backdoor's success."""

Run = Callable[[Attack, Rule], dict[str, float]]
"""One cell of a table: `accuracy`, and `backdoor` where it was measured."""


def main() -> None:
    """Run both federations, print their tables and write the JSON file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attacks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few cells, in under 90 seconds")
    parser.add_argument("--steps", type=int, help="rounds of the digits federation")
    options = parser.parse_args()
    steps = options.steps or (QUICK_STEPS if options.quick else STEPS)
    torch.set_num_threads(1)
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    figures = {"lora": _lora(console)} | _digits(console, steps, options.quick)
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps({"steps": steps, **figures}, indent=1) + "\n")
    console.print(f"written {OUTPUT}")


def _lora(console: Console) -> Figures:
    cell = LoraCell()
    title = f"LoRA, n=10, f=2, {ROUNDS} rounds"
    return measure(
        console, title, (*ATTACKS, *ALIE_SWEEP), RULES, lambda a, r: _cell(a, cell.run(a, r))
    )


def _digits(console: Console, steps: int, quick: bool) -> dict[str, Figures]:
    cell = DigitsCell()
    title = f"Digits, n=25, f=5, labels sorted by silo, {steps} steps"

    def run(attack: Attack, rule: Rule) -> dict[str, float]:
        return _cell(attack, cell.run(attack, rule, steps))

    if quick:
        rules = {name: RULES[name] for name in QUICK_RULES}
        few = (NO_ATTACK, ALIE, REPLACEMENT)
        return {"digits": measure(console, title, few, rules, run)}
    swept = {name: RULES[name] for name in SWEPT_RULES}
    return {
        "digits": measure(console, title, ATTACKS, RULES, run),
        "digits_alie": measure(console, f"{title}, ALIE", ALIE_SWEEP, swept, run),
    }


def measure(
    console: Console, title: str, attacks: Iterable[Attack], rules: Mapping[str, Rule], run: Run
) -> Figures:
    """All cells of one table, which is printed when it is whole; a line per attack before."""
    table = Table(Column("attack", no_wrap=True), *rules, title=title)
    began = time.perf_counter()
    figures: Figures = {}
    for attack in attacks:
        cells = {name: run(attack, rule) for name, rule in rules.items()}
        figures[attack.name] = {
            (name if kind == "accuracy" else f"{name} {kind}"): round(value, 2)
            for name, cell in cells.items()
            for kind, value in cell.items()
        }
        table.add_row(attack.name, *(_shown(cell) for cell in cells.values()))
        console.print(f"{attack.name}: {time.perf_counter() - began:.0f} s", style="dim")
    console.print(table)
    return figures


def _cell(attack: Attack, outcome: Outcome) -> dict[str, float]:
    if attack.data != "backdoor":
        return {"accuracy": outcome.accuracy}
    return {"accuracy": outcome.accuracy, "backdoor": outcome.backdoor}


def _shown(cell: dict[str, float]) -> str:
    return " / ".join(f"{value:.1f}" for value in cell.values())


if __name__ == "__main__":
    main()
