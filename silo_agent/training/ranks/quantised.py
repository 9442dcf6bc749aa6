"""Base weights that are quantised as they are loaded, by bitsandbytes; everything else stays.

Linear layers become its own, GPT-2's transposed ones too; the output head, embeddings and norms are
as they were. What was loaded is looked at: a model that bitsandbytes left as it is would be trained
as if it were quantised. Its kernels for GPUs were never run here (docs/precision.md).
"""

import logging
from typing import Any, Literal

import torch

from data_contracts.errors import SiloOperatorError
from silo_agent.training.engine_spec import HeldAs
from silo_agent.training.quantisation import require_bitsandbytes

LAYERS = {"8-bit": "Linear8bitLt", "4-bit": "Linear4bit"}
QUANT_TYPE_4_BIT = "nf4"
"""Of a number's 16 values, those that fit weights (QLoRA, arXiv:2305.14314, section 3)."""


def quantising(held: HeldAs, device: torch.device) -> dict[str, Any]:
    """Options of `from_pretrained`; none for full weights.

    Raises SiloOperatorError where bitsandbytes is not installed, or not for this device.
    """
    if held.base_weights == "full":
        return {}
    require_bitsandbytes(held.base_weights)
    from transformers import BitsAndBytesConfig

    _require_backend(held.base_weights)
    # It says for each layer and pass that inputs are float16 while they are quantised.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    chosen: dict[str, Any] = {"load_in_8bit": True}
    if held.base_weights == "4-bit":
        chosen = {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": QUANT_TYPE_4_BIT,
            "bnb_4bit_compute_dtype": getattr(torch, held.precision),
        }
    # Else transformers takes the GPU of the machine for a job that asked for the CPU.
    return {"quantization_config": BitsAndBytesConfig(**chosen), "device_map": {"": device}}


def require_quantised(model: Any, base_weights: Literal["full", "8-bit", "4-bit"]) -> None:
    """Raise SiloOperatorError unless layers of the loaded model are held so."""
    if base_weights == "full":
        return
    found = quantised_layers(model)
    if not found:
        raise SiloOperatorError(
            f'base_weights = "{base_weights}" in silo-agent.toml',
            expected="a base model with linear layers that bitsandbytes can quantise",
            found=f"none in {type(model).__name__}",
            action='set base_weights = "full"',
        )
    for layer in found:
        # Where the CPU has AVX512-BF16, 4-bit weights are put in another order by a pass without
        # gradients, and are not put back for the next one with them.
        layer.support_avx512bf16_for_cpu = False


def quantised_layers(model: Any) -> list[Any]:
    """Those of bitsandbytes, below LoRA or not."""
    return [each for each in model.modules() if type(each).__name__ in LAYERS.values()]


def compute_as_in_training(model: Any) -> None:
    """Let quantised layers of a model in evaluation mode do what they do in training.

    On a CPU 8-bit ones would round their inputs there, and neighbours change how.
    """
    for layer in quantised_layers(model):
        # PEFT calls its own layers so, too, which have dropout in them.
        if not hasattr(layer, "base_layer"):
            layer.train()


def _require_backend(base_weights: str) -> None:
    from transformers.integrations import validate_bnb_backend_availability

    try:
        validate_bnb_backend_availability(raise_exception=True)
    except (ImportError, RuntimeError) as error:
        raise SiloOperatorError(
            f'base_weights = "{base_weights}" in silo-agent.toml',
            expected="a bitsandbytes that works on this machine's device",
            found=str(error).strip().splitlines()[0][:200],
            action="see `python -m bitsandbytes` on the machine that trains, or set base_weights = "
            '"full"',
        ) from None
