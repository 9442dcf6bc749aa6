"""Steps of the product in this process, its only rank: `dp_ours.py FOLDER`.

Plain and private steps by turns, on an engine each. Prints one line of JSON: tokens by second of
CPU time of every step but the first of each.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.training_recipe import TrainingRecipe
from infra.base_model.linear_modules import linear_modules
from silo_agent.training.job import TrainingJob
from silo_agent.training.private_part import PrivatePart


def main(folder: Path) -> None:
    """Train and print."""
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "HF_HUB_OFFLINE": "1"}
    from silo_agent.training.processes.rank_processes import RENDEZVOUS_VARIABLE

    with tempfile.TemporaryDirectory(prefix="bench-private-") as name:
        os.environ[RENDEZVOUS_VARIABLE] = str(Path(name) / "rendezvous")
        sys.stdout.write(json.dumps(_trained(folder, Path(name))) + "\n")


def _trained(folder: Path, work: Path) -> dict[str, list[float]]:
    from silo_agent.training.ranks.conversation import Conversation
    from silo_agent.training.ranks.process_group import join_ranks
    from silo_agent.training.ranks.token_shard import open_shard, write_shard

    settings = json.loads((folder / "settings.json").read_text())
    records = [Conversation(*each) for each in json.loads((folder / "records.json").read_text())]
    write_shard(work / "tokens", bytes(32), records)
    shard = open_shard(work / "tokens", bytes(32), work / "tokens")
    if shard is None:
        raise SystemExit("the tokens that were written cannot be read")
    join_ranks("cpu", 1)
    jobs = {way: _job(folder, way, work, settings) for way in ("plain", "private")}
    rates: dict[str, list[float]] = {way: [] for way in jobs}
    with ExitStack() as stack:
        ways = {way: stack.enter_context(_steps(job, shard)) for way, job in jobs.items()}
        for index in range(settings["steps"]):
            for way, step in ways.items():
                began = time.process_time()
                done = step(index)
                rates[way].append(done.tokens / (time.process_time() - began))
    return {way: found[1:] for way, found in rates.items()}


@contextmanager
def _steps(job: TrainingJob, shard: Any) -> Iterator[Callable[[int], Any]]:
    from silo_agent.training.ranks.engine import LoraEngine
    from silo_agent.training.ranks.packing import PackingRule, pack_training
    from silo_agent.training.ranks.training_steps import training_steps

    engine, recipe = LoraEngine(job.engine), job.recipe
    engine.begin(job)
    rule = PackingRule(recipe.sequence_length)
    count = recipe.local_steps * recipe.sequences_per_step
    train, _ = pack_training(shard, rule, count=count, seed=1, round_number=1)
    with training_steps(engine, job, "f" * 64, train, shard, rule) as step:
        yield step
    moved = [array for name, array in engine.adapter().items() if ".lora_B." in name]
    if not all(array.any() for array in moved):
        raise SystemExit("weights that have not moved")


def _job(folder: Path, way: str, work: Path, settings: dict[str, Any]) -> TrainingJob:
    model, rank = folder / "model", settings["rank"]
    targets = linear_modules(model).modules
    (work / "secret").write_bytes(bytes(32))
    private = PrivatePart(
        unit="record",
        clipping_norm=Decimal(str(settings["clipping_norm"])),
        noise_multiplier=Decimal(str(settings["noise_multiplier"])),
        sampling_rate=Decimal(str(settings["rate"])),
        expected_units=settings["units"],
        secret=work / "secret",
    )
    return TrainingJob(
        model_dir=model,
        layout=AdapterLayout(rank=rank, alpha=2 * rank, seed=1, targets=targets),
        recipe=TrainingRecipe(
            local_steps=settings["steps"],
            sequences_per_step=settings["sequences"],
            sequence_length=settings["length"],
            learning_rate=Decimal(str(settings["learning_rate"])),
            warmup_steps=0,
            weight_decay=Decimal(0),
            max_gradient_norm=Decimal(1),
            seed=1,
        ),
        round=1,
        train_records=work / "tokens",
        heldout_records=work / "tokens",
        output_dir=work,
        zero_stage=1,
        measure_starting=False,
        measure_local=False,
        private=private if way == "private" else None,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
