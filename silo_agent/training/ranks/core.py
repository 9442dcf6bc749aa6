"""A core between the two factors of every LoRA pair: the model computes s B C A for s B A.

PEFT sees the modules that it made, with their names and shapes. The core is a linear layer of its
own inside the module of A, whose output it multiplies; where it is the identity the model is, to
the bit, the one without it.
"""

from typing import Any

import torch
from torch.nn import functional

from data_contracts.protocol.records.adapter_layout import CORE_SUFFIX


class CoredLinear(torch.nn.Module):
    """A module of a factor A (rank x in) followed by a core (rank x rank)."""

    def __init__(self, factor: torch.nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = factor.in_features, factor.out_features
        self.weight = factor.weight
        self.core = torch.nn.Linear(self.out_features, self.out_features, bias=False)
        self.core.to(self.weight)
        torch.nn.init.eye_(self.core.weight)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """C A x for inputs x (..., in)."""
        through: torch.Tensor = self.core(functional.linear(inputs, self.weight))
        return through


def add_cores(model: Any, adapter: str) -> None:
    """Put a core, the identity, behind every factor A of an adapter of a PEFT model."""
    for module in list(model.modules()):
        factors = getattr(module, "lora_A", {})
        if adapter in factors:
            factors[adapter] = CoredLinear(factors[adapter])


def core_parameters(model: Any, adapter: str) -> dict[str, torch.nn.Parameter]:
    """The cores under the names that their changes have in a file; none of a model without them."""
    ending = f".lora_A.{adapter}.core.weight"
    return {
        name.removesuffix(ending) + CORE_SUFFIX: parameter
        for name, parameter in model.named_parameters()
        if name.endswith(ending)
    }
