"""The bake-off as a table for people and as flat JSON for machines."""

import json
from pathlib import Path

from rich.table import Table

from benchmarks.quality.bake_off import BakeOff
from benchmarks.quality.contenders import BASELINES, DEFAULT, MIXED, UNIFORM
from benchmarks.quality.settings import partition_name


def render(bake_off: BakeOff) -> Table:
    """Rows: baselines, then contenders. Columns: partitions, test loss mean ± deviation."""
    last = partition_name(bake_off.settings.alphas[-1])
    table = Table(title="held-out loss, nats per token: mean ± deviation over seeds")
    table.add_column("entrant", no_wrap=True)
    for alpha in bake_off.settings.alphas:
        table.add_column(partition_name(alpha), justify="right", no_wrap=True)
    table.add_column("rate", justify="right")
    table.add_column(f"own mixture, {last}", justify="right")
    table.add_column(f"merge error, {last}", justify="right")
    contenders = [contender.name for contender in bake_off.entrants]
    best = [_best(bake_off, contenders, alpha) for alpha in bake_off.settings.alphas]
    last_baseline = bake_off.baselines[-1] if bake_off.baselines else None
    for name in (*bake_off.baselines, *contenders):
        table.add_row(name, *_cells(bake_off, name, best), end_section=name == last_baseline)
    return table


def write_json(
    bake_off: BakeOff, minutes: dict[str, float], output: Path, *, keep_others: bool = False
) -> None:
    """`RULE_PARTITION_mean`, `_std`, `_rate`, ... and the two losses that the promise compares.

    `keep_others` leaves the figures of entrants that did not run as they were.
    """
    kept = keep_others and output.exists()
    values: dict[str, float] = json.loads(output.read_text()) if kept else {**minutes}
    values |= _compared(bake_off)
    baselines = (name for name in bake_off.baselines if name != "base")
    for name in (*baselines, *(contender.name for contender in bake_off.entrants)):
        values[f"{name}_learning_rate"] = bake_off.rate(name)
        for alpha in bake_off.settings.alphas:
            figure = bake_off.figure(name, alpha)
            key = f"{name}_{partition_name(alpha)}"
            values[f"{key}_mean"] = figure.mean
            values[f"{key}_std"] = figure.deviation
            values[f"{key}_own_mean"] = figure.own_mean
            values[f"{key}_merge_error"] = figure.merge_error
    output.parent.mkdir(parents=True, exist_ok=True)
    rounded = {name: round(value, 6) for name, value in values.items()}
    output.write_text(json.dumps(rounded, indent=1) + "\n")


def mixed_rank_losses(quality: Path) -> dict[str, float]:
    """`mixed_rank_loss` and `uniform_rank_loss` under Dirichlet 0.1, of those that ran."""
    values = json.loads(quality.read_text()) if quality.exists() else {}
    names = {"mixed_rank_loss": MIXED, "uniform_rank_loss": UNIFORM}
    keys = {key: f"{name}_{partition_name(0.1)}_mean" for key, name in names.items()}
    return {key: values[name] for key, name in keys.items() if name in values}


def tell_mixed_ranks(quality: Path, merge: Path) -> None:
    """Add these losses to the figures of the merge, of which all others stay."""
    values = json.loads(merge.read_text()) if merge.exists() else {}
    told = values | mixed_rank_losses(quality)
    if told:
        merge.write_text(json.dumps(told, indent=1) + "\n")


def _compared(bake_off: BakeOff) -> dict[str, float]:
    """The losses that promises compare, of those that ran."""
    values = {}
    if any(contender.name == DEFAULT for contender in bake_off.entrants):
        values["iid_federated_loss"] = _mean(bake_off, DEFAULT)
    if "centralised" in bake_off.baselines:
        pooled = ("centralised", "centralised_small_batches")
        values["iid_centralised_loss"] = _mean(bake_off, "centralised")
        values["iid_best_centralised_loss"] = min(_mean(bake_off, name) for name in pooled)
        values["base_loss"] = _mean(bake_off, "base")
    return values


def _cells(bake_off: BakeOff, name: str, best: list[str]) -> list[str]:
    cells = []
    for alpha, winner in zip(bake_off.settings.alphas, best, strict=True):
        figure = bake_off.figure(name, alpha)
        shown = f"{figure.mean:.4f} ± {figure.deviation:.4f}"
        cells.append(f"[bold]{shown}[/bold]" if name == winner else shown)
    last = bake_off.figure(name, bake_off.settings.alphas[-1])
    rate = "" if name == "base" else f"{last.learning_rate:g}"
    error = "" if name in BASELINES else f"{last.merge_error:.1%}"
    return [*cells, rate, f"{last.own_mean:.4f}", error]


def _best(bake_off: BakeOff, names: list[str], alpha: float | None) -> str:
    return min(names, key=lambda name: bake_off.figure(name, alpha).mean)


def _mean(bake_off: BakeOff, name: str) -> float:
    return bake_off.figure(name, None).mean
