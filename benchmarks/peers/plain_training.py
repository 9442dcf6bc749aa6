"""A client's training in the peers: plain PyTorch and PEFT in one process, as in their examples.

Both peers use this file. It reads the packed sequences that the product trains, tokenised already,
so that what a round costs besides its steps is loading, encoding and transport.
"""

import json
import time
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import AutoModelForCausalLM

Adapter = dict[str, np.ndarray]
IGNORED = -100


class PlainTraining:
    """The model of `folder` with an adapter, for one round after the other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._settings = json.loads((folder / "settings.json").read_text())
        self._sequences = json.loads((folder / "sequences.json").read_text())
        torch.set_num_threads(self._settings["ranks"])
        model = AutoModelForCausalLM.from_pretrained(
            self._settings["model"], dtype=torch.float32, local_files_only=True
        )
        rank = self._settings["rank"]
        lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=self._settings["targets"])
        self._model = get_peft_model(model, lora).train()

    def train(self, start: Adapter) -> Adapter:
        """The adapter after a round's steps, whose seconds are left in the folder."""
        values = {name: torch.from_numpy(array.copy()) for name, array in start.items()}
        set_peft_model_state_dict(self._model, values)
        trained = [p for p in self._model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=self._settings["learning_rate"], weight_decay=0.0)
        began, size = time.monotonic(), self._settings["sequences_per_step"]
        for step in range(self._settings["steps"]):
            self._step(self._sequences[step * size : (step + 1) * size])
            torch.nn.utils.clip_grad_norm_(trained, self._settings["max_gradient_norm"])
            optimizer.step()
            optimizer.zero_grad()
        seconds = time.monotonic() - began
        (self._folder / STEPS_NAME).write_text(json.dumps(seconds))
        found = get_peft_model_state_dict(self._model)
        return {name: value.detach().numpy().copy() for name, value in found.items()}

    def _step(self, sequences: list[list[list[int]]]) -> None:
        """Gradients of the mean over the step's answer tokens; the output layer there alone."""
        answers = sum(label != IGNORED for _, labels, _ in sequences for label in labels[1:])
        for token_ids, labels, positions in sequences:
            found = torch.tensor(labels)
            counted = (found[1:] != IGNORED).nonzero()[:, 0]
            logits = self._model(
                input_ids=torch.tensor([token_ids]),
                position_ids=torch.tensor([positions]),
                logits_to_keep=counted,
                use_cache=False,
            ).logits[0]
            nll = torch.nn.functional.cross_entropy(logits, found[counted + 1], reduction="sum")
            torch.autograd.backward(nll / answers)


STEPS_NAME = "steps-seconds.json"


def steps_seconds(folder: Path) -> float:
    """Of the last round."""
    seconds: float = json.loads((folder / STEPS_NAME).read_text())
    return seconds


def start_of(folder: Path) -> Adapter:
    """The adapter that the first round starts from."""
    with np.load(folder / "start.npz") as start:
        return dict(start)


def packed(adapter: Adapter) -> np.ndarray:
    """All values in one array, in the order of their names."""
    return np.concatenate([adapter[name].ravel() for name in sorted(adapter)])


def unpacked(values: np.ndarray, like: Adapter) -> Adapter:
    """The reverse, with the shapes of another."""
    found, place = {}, 0
    for name in sorted(like):
        size = like[name].size
        found[name] = values[place : place + size].reshape(like[name].shape)
        place += size
    return found
