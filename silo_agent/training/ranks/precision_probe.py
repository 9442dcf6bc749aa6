"""How fast both precisions are: `python -m silo_agent.training.ranks.precision_probe DEVICE N`.

Forward and backward pass of one linear layer with LoRA, the bulk of a step, on N threads. The two
precisions take turns, and the fastest pass of each counts: whatever else runs on the machine can
only slow a pass down. It ends after about a second.
"""

import json
import sys
import time
from dataclasses import dataclass

import torch

SIZES = {"cpu": (128, 768), "cuda": (2048, 4096)}
"""Tokens of a sequence, and width of the layer."""

RANK = 8
MOST_SECONDS = 0.8
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Layer:
    """A frozen weight with LoRA beside it, and what goes through."""

    weight: torch.Tensor
    lora_a: torch.Tensor
    lora_b: torch.Tensor
    inputs: torch.Tensor

    @classmethod
    def made(cls, device: str, precision: str) -> "Layer":
        """Of made-up numbers."""
        tokens, width = SIZES[device]
        options = {"dtype": getattr(torch, precision), "device": device}
        return cls(
            torch.randn(width, width, **options),
            torch.randn(RANK, width, **options).requires_grad_(),
            torch.randn(width, RANK, **options).requires_grad_(),
            torch.randn(tokens, width, **options).requires_grad_(),
        )

    def seconds(self) -> float:
        """Of one pass there and back."""
        _wait(self.inputs.device)
        began = time.perf_counter()
        out = self.inputs @ self.weight.T + (self.inputs @ self.lora_a.T) @ self.lora_b.T
        out.backward(torch.ones_like(out))  # type: ignore[no-untyped-call]
        _wait(self.inputs.device)
        return time.perf_counter() - began


def probe(device: str) -> dict[str, float]:
    """Seconds of a pass in each precision."""
    layers = {name: Layer.made(device, name) for name in PRECISIONS}
    found: dict[str, list[float]] = {name: [] for name in PRECISIONS}
    began = time.perf_counter()
    # The first pass of each loads what it needs, and does not count unless it is the only one.
    while len(found["bfloat16"]) < 2 or time.perf_counter() - began < MOST_SECONDS:
        for name, layer in layers.items():
            found[name].append(layer.seconds())
    return {name: min(times) for name, times in found.items()}


def main(arguments: list[str]) -> int:
    """Print what was found as JSON."""
    device, threads = arguments
    torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    sys.stdout.write(f"{json.dumps(probe(device))}\n")
    return 0


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
