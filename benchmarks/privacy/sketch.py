"""How far a merge of masked images is from the best one of its rank, and how much is sent.

Silos of rank 16 move both factors of one start, half of each step in a direction of all and half in
one of their own, and no direction smaller than another: a spectrum with no tail to leave out, which
is the worst case. For each width: the distance of what the rule publishes to the true sum of
products, over that of the best adapter of the rank (1 is the least there is), as the mean and the
worst of some draws; and the bytes of a masked file over those of the rule `average`.
"""

import json
import sys
from decimal import Decimal
from functools import cache
from pathlib import Path
from statistics import fmean

import numpy as np
from rich.console import Console
from rich.table import Table

from data_contracts.masking.fixed_point import FixedPoint, Float64Array
from data_contracts.masking.payload import Payload
from data_contracts.masking.sketch import SketchPayload
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget
from data_contracts.protocol.records.sketch_width import ENOUGH_RANKS

OUTPUT = Path(".consortia/bench/sketch.json")
RANK, SIZE = 16, 512
SILOS = (4, 8, 16, 50)
DRAWS = 2
TARGET = AdapterTarget(module="up", in_features=SIZE, out_features=SIZE)
LAYOUT = AdapterLayout(rank=RANK, alpha=RANK, seed=0, targets=(TARGET,))
STEP = 0.3


def main() -> None:
    """Measure all widths for all federations, print the table and write the JSON."""
    figures: dict[str, float] = {}
    table = Table(title=f"silos of rank {RANK}; error over the best, mean (worst)")
    for column in ("silos", *_named(SILOS[0])):
        table.add_column(column, justify="right")
    for silos in SILOS:
        row = []
        for name, width in _named(silos).items():
            found = [ratio(silos, width, draw) for draw in range(DRAWS)]
            sent = SketchPayload(LAYOUT, width, 0).entries / Payload(LAYOUT, "both").entries
            figures[f"ratio_{silos}_silos_{name}"] = round(fmean(found), 4)
            figures[f"worst_{silos}_silos_{name}"] = round(max(found), 4)
            figures[f"bytes_{silos}_silos_{name}"] = round(sent, 2)
            row.append(f"{fmean(found):.3f} ({max(found):.3f}), {sent:.1f} x bytes")
        table.add_row(str(silos), *row)
    Console(width=140).print(table)
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(figures, indent=1) + "\n")
    sys.stdout.write(f"written {OUTPUT}\n")


def ratio(silos: int, width: int, draw: int) -> float:
    """Distance of the sketched merge to the true sum over that of the best of the rank."""
    start, change = material(silos, draw)
    payload = SketchPayload(LAYOUT, width, draw)
    images = payload.images(TARGET, *change)
    point = FixedPoint(max(silos, 2), Decimal(1))
    rng = np.random.default_rng(draw)
    for image in (images.columns, images.rows):
        # What the fixed point of so many silos leaves of equal weights.
        spread = float(point.quantum) / (12 * silos) ** 0.5
        image += rng.uniform(-1, 1, image.shape) * spread * 3**0.5
    b, a = payload.rebuilt(TARGET, images)
    whole = start + change[0] @ change[1]
    return distance(cut(start + b @ a), whole) / least(silos, draw)


@cache
def least(silos: int, draw: int) -> float:
    """Distance of the best adapter of the rank to the true sum."""
    start, change = material(silos, draw)
    values = np.linalg.svd(start + change[0] @ change[1], compute_uv=False)
    return float(np.linalg.norm(values[RANK:]))


def material(silos: int, draw: int) -> tuple[Float64Array, tuple[Float64Array, Float64Array]]:
    """The start's product, and B and A of the mean change of all silos."""
    rng = np.random.default_rng([silos, draw])
    start_b, start_a = _pair(rng, 1.0)
    shared_b, shared_a = _pair(rng, STEP / 2**0.5)
    bs, as_ = [-start_b], [start_a]
    for _ in range(silos):
        own_b, own_a = _pair(rng, STEP / 2**0.5)
        bs.append((start_b + shared_b + own_b) / silos)
        as_.append(start_a + shared_a + own_a)
    return start_b @ start_a, (np.concatenate(bs, axis=1), np.concatenate(as_))


def cut(matrix: Float64Array) -> Float64Array:
    """The best approximation of the rank."""
    u, values, v = np.linalg.svd(matrix, full_matrices=False)
    best: Float64Array = (u[:, :RANK] * values[:RANK]) @ v[:RANK]
    return best


def distance(one: Float64Array, other: Float64Array) -> float:
    """In the Frobenius norm."""
    return float(np.linalg.norm(one - other))


def _named(silos: int) -> dict[str, int]:
    widths = {f"{times}r": times * RANK for times in (2, 4, 8, ENOUGH_RANKS)}
    return widths | {"all_ranks": (silos + 1) * RANK}


def _pair(rng: np.random.Generator, size: float) -> tuple[Float64Array, Float64Array]:
    deviation = size / SIZE**0.5
    return (
        rng.normal(0, deviation, (SIZE, RANK)),
        rng.normal(0, deviation, (RANK, SIZE)),
    )


if __name__ == "__main__":
    main()
