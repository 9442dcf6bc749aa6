"""What it costs to hold a base model otherwise: `make bench-precision`.

CPU seconds of a forward and backward pass with LoRA on all linear modules, of a Llama of 54 M
parameters with random weights, in float32 on one thread: full weights and quantised ones, which
need bitsandbytes. They take turns; the fastest pass of each counts. What bfloat16 costs is what the
agent measures: `python -m silo_agent.training.ranks.precision_probe cpu 1`.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.memory_material import random_model
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from infra.base_model.linear_modules import linear_modules
from silo_agent.training.engine_spec import HeldAs
from silo_agent.training.quantisation import require_bitsandbytes

RESULTS = Path(".consortia/bench/precision.json")
LENGTH, RANK, PASSES = 512, 8, 4
HELD = (HeldAs("float32"), HeldAs("float32", "8-bit"), HeldAs("float32", "4-bit"))


def main() -> None:
    """Measure, print the table, write the figures."""
    import torch

    require_bitsandbytes("8-bit")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="bench-precision-") as name:
        directory = random_model(Path(name) / "llama", "llama")
        models = {each: _model(directory, each) for each in HELD}
    found: dict[HeldAs, list[float]] = {each: [] for each in HELD}
    for _ in range(PASSES):
        for each, model in models.items():
            found[each].append(_seconds(model))
    best = {each.base_weights: min(found[each]) for each in HELD}
    for words, seconds in best.items():
        sys.stdout.write(f"| {words} base weights | {seconds / best['full']:.2f} |\n")
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps({"cpu_seconds": best, "length": LENGTH}, indent=1))


def _model(directory: Path, held: HeldAs) -> Any:
    from silo_agent.training.ranks.lora_model import load_lora_model

    targets = linear_modules(directory).modules
    layout = AdapterLayout(rank=RANK, alpha=RANK, seed=1, targets=targets)
    return load_lora_model(directory, layout, "cpu", held=held).train()


def _seconds(model: Any) -> float:
    import torch

    ids = torch.arange(LENGTH).reshape(1, LENGTH)
    began = time.process_time()
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    return time.process_time() - began


if __name__ == "__main__":
    main()
