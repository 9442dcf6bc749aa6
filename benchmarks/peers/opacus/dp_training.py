"""Private LoRA by Opacus on the records that the product trains: `dp_training.py FOLDER`.

As its documentation has it: `PrivacyEngine.make_private` with Poisson sampling, physical batches by
`BatchMemoryManager`. Records are padded to the longest of a batch, since Opacus knows one record a
row; the output layer is computed where a label counts, as the product does. Prints one line of
JSON: tokens that are no padding by second of CPU time, of every step but the first. Raises where a
weight has not moved: with newer versions of PEFT none does.
"""

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from opacus import PrivacyEngine
from opacus.utils.batch_memory_manager import BatchMemoryManager
from peft import LoraConfig, get_peft_model
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM

IGNORED = -100
BESIDE = 4
"""Records that go through the model at a time."""
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Records(torch.utils.data.Dataset):
    """Token ids and labels."""

    def __init__(self, records: list[Any]) -> None:
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, place: int) -> Any:
        return self._records[place]


def padded(records: list[Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, labels and mask (records x longest)."""
    longest = max((len(ids) for ids, _ in records), default=1)
    ids = torch.zeros(len(records), longest, dtype=torch.long)
    labels, mask = torch.full_like(ids, IGNORED), torch.zeros_like(ids)
    for row, (own, asked) in enumerate(records):
        ids[row, : len(own)], labels[row, : len(own)] = torch.tensor(own), torch.tensor(asked)
        mask[row, : len(own)] = 1
    return ids, labels, mask


def mean_loss(
    model: Any, ids: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Over records of the mean over what each is asked."""
    # Through the wrapper, whose hooks need its own forward pass.
    causal = model._module.base_model.model
    states = causal.model(input_ids=ids, attention_mask=mask, use_cache=False)[0]
    found = labels[:, 1:]
    rows, places = (found != IGNORED).nonzero(as_tuple=True)
    logits = causal.lm_head(states[rows, places])
    losses = torch.nn.functional.cross_entropy(logits, found[rows, places], reduction="none")
    shares = 1 / torch.bincount(rows, minlength=len(ids))[rows]
    return (losses * shares).sum() / len(ids)


def main(folder: Path) -> None:
    """Train and print."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    settings = json.loads((folder / "settings.json").read_text())
    records = json.loads((folder / "records.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(folder / "model", torch_dtype=torch.float32)
    rank = settings["rank"]
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=TARGETS)
    wrapped: Any = get_peft_model(model, config).train()
    trained = [p for p in wrapped.parameters() if p.requires_grad]
    optimizer: Any = torch.optim.AdamW(trained, lr=settings["learning_rate"], weight_decay=0.0)
    loader: Any = DataLoader(Records(records), batch_size=settings["units"], collate_fn=padded)
    wrapped, optimizer, loader = PrivacyEngine().make_private(
        module=wrapped,
        optimizer=optimizer,
        data_loader=loader,
        noise_multiplier=settings["noise_multiplier"],
        max_grad_norm=settings["clipping_norm"],
        poisson_sampling=True,
    )
    starts = [p.detach().clone() for p in trained]
    rates = _steps(wrapped, optimizer, loader, settings["steps"])
    pairs = zip(trained, starts, strict=True)
    if not all(bool((after != before).any()) for after, before in pairs):
        raise SystemExit("weights that have not moved")
    sys.stdout.write(json.dumps({"opacus": rates[1:]}) + "\n")


def _steps(model: Any, optimizer: Any, loader: Any, steps: int) -> list[float]:
    rates: list[float] = []
    with BatchMemoryManager(
        data_loader=loader, max_physical_batch_size=BESIDE, optimizer=optimizer
    ) as batches:
        tokens, began = 0, time.process_time()
        for ids, labels, mask in batches:
            if len(ids):
                mean_loss(model, ids, labels, mask).backward()
            optimizer.step()
            optimizer.zero_grad()
            tokens += int(mask.sum())
            if optimizer._is_last_step_skipped:
                continue
            rates.append(tokens / (time.process_time() - began))
            tokens, began = 0, time.process_time()
            if len(rates) == steps:
                break
    return rates


if __name__ == "__main__":
    main(Path(sys.argv[1]))
