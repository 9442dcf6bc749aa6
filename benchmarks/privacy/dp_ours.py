"""Steps of the product in this process, its only rank: `dp_ours.py FOLDER WAY`, plain or private.

Prints one line of JSON: tokens, and seconds of CPU time of the steps but for the first.
"""

import json
import os
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.training_recipe import TrainingRecipe
from infra.base_model.linear_modules import linear_modules
from silo_agent.training.job import TrainingJob
from silo_agent.training.private_part import PrivatePart


def main(folder: Path, way: str) -> None:
    """Train and print."""
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "HF_HUB_OFFLINE": "1"}
    from silo_agent.training.processes.rank_processes import RENDEZVOUS_VARIABLE

    with tempfile.TemporaryDirectory(prefix="bench-private-") as name:
        os.environ[RENDEZVOUS_VARIABLE] = str(Path(name) / "rendezvous")
        sys.stdout.write(json.dumps(_trained(folder, way, Path(name))) + "\n")


def _trained(folder: Path, way: str, work: Path) -> dict[str, float]:
    from silo_agent.training.ranks.conversation import Conversation
    from silo_agent.training.ranks.engine import LoraEngine
    from silo_agent.training.ranks.packing import PackingRule, pack_training
    from silo_agent.training.ranks.process_group import join_ranks
    from silo_agent.training.ranks.token_shard import open_shard, write_shard
    from silo_agent.training.ranks.training_steps import training_steps

    settings = json.loads((folder / "settings.json").read_text())
    records = [Conversation(*each) for each in json.loads((folder / "records.json").read_text())]
    write_shard(work / "tokens", bytes(32), records)
    shard = open_shard(work / "tokens", bytes(32), work / "tokens")
    if shard is None:
        raise SystemExit("the tokens that were written cannot be read")
    job, rule = _job(folder, way, work, settings), PackingRule(settings["length"])
    join_ranks("cpu", 1)
    engine = LoraEngine(job.engine)
    engine.begin(job)
    recipe = job.recipe
    count = recipe.local_steps * recipe.sequences_per_step
    train, _ = pack_training(shard, rule, count=count, seed=1, round_number=1)
    tokens, seconds = 0, 0.0
    with training_steps(engine, job, "f" * 64, train, shard, rule) as step:
        for index in range(recipe.local_steps):
            began = time.process_time()
            done = step(index)
            if index:
                seconds += time.process_time() - began
                tokens += done.tokens
    moved = [array for name, array in engine.adapter().items() if ".lora_B." in name]
    if not all(array.any() for array in moved):
        raise SystemExit("weights that have not moved")
    return {"tokens": tokens, "seconds": seconds}


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
            sequences_per_step=settings["beside"],
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
    main(Path(sys.argv[1]), sys.argv[2])
