"""A bare DeepSpeed script: the same packed sequences, LoRA by PEFT, no product around it.

Started once per rank by torchrun: `bare_deepspeed.py FOLDER FILE WAY`. Prints to FILE how many
tokens it trained in how many seconds of steps. With the way `whole` the model computes its own
loss over all positions, as most scripts have it; with `answers` the output layer is computed only
where a label counts, as the product does.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

IGNORED = -100
DEVICE = os.environ["DS_ACCELERATOR"]


def main(folder: Path, out: Path, way: str) -> None:
    """Train, and let rank 0 tell how fast."""
    settings = json.loads((folder / "settings.json").read_text())
    sequences = json.loads((folder / "sequences.json").read_text())
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if DEVICE == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.set_num_threads(1)
    # Else DeepSpeed compiles an operator that only its inference uses.
    deepspeed.ops.__compatible_ops__ = {}
    store = dist.FileStore(str(out.with_suffix(".store")), ranks)  # type: ignore[attr-defined]
    backend = "nccl" if DEVICE == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=ranks)
    deepspeed.init_distributed(backend, auto_mpi_discovery=False, rank=rank, world_size=ranks)
    engine = _engine(settings, ranks)
    size, tokens, seconds, losses = settings["sequences_per_step"], 0, 0.0, []
    for step in range(settings["steps"]):
        began = time.monotonic()
        of_step = sequences[step * size : (step + 1) * size]
        losses.append(_step(engine, of_step, rank, ranks, way))
        seconds += time.monotonic() - began
        tokens += sum(len(token_ids) for token_ids, _, _ in of_step)
    if rank == 0:
        out.write_text(json.dumps({"tokens": tokens, "seconds": seconds, "losses": losses}))


def _engine(settings: dict[str, Any], ranks: int) -> Any:
    torch.manual_seed(1)
    dtype = torch.bfloat16 if DEVICE == "cuda" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(settings["model"], dtype=dtype)
    lora = LoraConfig(
        r=settings["rank"], lora_alpha=2 * settings["rank"], target_modules=settings["targets"]
    )
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": settings["sequences_per_step"] // ranks,
        "gradient_clipping": settings["max_gradient_norm"],
        "optimizer": {
            "type": "AdamW",
            "params": {"lr": settings["learning_rate"], "weight_decay": 0.0, "torch_adam": True},
        },
        "bf16": {"enabled": DEVICE == "cuda"},
        "zero_optimization": {"stage": settings["zero_stage"]},
        "steps_per_print": 10**9,
    }
    wrapped = get_peft_model(model, lora, autocast_adapter_dtype=False).train()
    trained = [p for p in wrapped.parameters() if p.requires_grad]
    engine, *_ = deepspeed.initialize(model=wrapped, model_parameters=trained, config=config)
    return engine


def _step(engine: Any, sequences: list[Any], rank: int, ranks: int, way: str) -> float:
    """Mean loss of an answer token, over all ranks."""
    answers = sum(label != IGNORED for _, labels, _ in sequences for label in labels[1:])
    total = torch.zeros((), dtype=torch.float64, device=DEVICE)
    for token_ids, labels, positions in sequences[rank::ranks]:
        nll = _nll(engine, token_ids, labels, positions, way)
        engine.backward(nll * (ranks / answers), scale_wrt_gas=False)
        engine.step()
        total += nll.detach().double()
    dist.all_reduce(total)
    return total.item() / answers


def _nll(engine: Any, token_ids: Any, labels: Any, positions: Any, way: str) -> torch.Tensor:
    """Summed over the answer tokens of one sequence."""
    rows = (torch.tensor([row], device=DEVICE) for row in (token_ids, positions, labels))
    ids, places, found = rows
    inputs = {"input_ids": ids, "position_ids": places}
    counted = (found[0, 1:] != IGNORED).nonzero()[:, 0]
    if way == "whole":
        loss: torch.Tensor = engine(**inputs, labels=found, use_cache=False).loss
        return loss * len(counted)
    logits = engine(**inputs, logits_to_keep=counted, use_cache=False).logits[0]
    return torch.nn.functional.cross_entropy(logits.float(), found[0, counted + 1], reduction="sum")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
