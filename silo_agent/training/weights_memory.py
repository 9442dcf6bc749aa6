"""How many bytes the base weights take, whole or quantised."""

from infra.base_model.model_shape import ModelShape
from silo_agent.training.engine_spec import HeldAs, Precision

NUMBER_BYTES: dict[Precision, int] = {"float32": 4, "bfloat16": 2}
FLOAT32_BYTES = 4
BLOCK_4_BIT = 64
"""Numbers that share a scale where there are 4 bits for each; of 8 bits it is a row (bitsandbytes
0.50, `quantize_4bit` and `int8_vectorwise_quant`)."""


QUANTISER_BYTES = 55_000_000
"""bitsandbytes, and the compiler of PyTorch that it loads (measured)."""


def base_bytes(shape: ModelShape, held: HeldAs) -> int:
    """All base weights; of quantised ones linear layers alone are."""
    size, linear = NUMBER_BYTES[held.precision], shape.linear
    if held.base_weights == "full":
        return shape.parameters * size
    return linear_bytes(shape, held) + (shape.parameters - linear) * size


def linear_bytes(shape: ModelShape, held: HeldAs) -> int:
    """Linear layers alone, with the scales of quantised ones."""
    if held.base_weights == "full":
        return shape.linear * NUMBER_BYTES[held.precision]
    scaled = shape.hidden if held.base_weights == "8-bit" else BLOCK_4_BIT
    bits = int(held.base_weights[0])
    return shape.linear * bits // 8 + shape.linear * FLOAT32_BYTES // scaled


def resident_bytes(shape: ModelShape, held: HeldAs) -> int:
    """As `base_bytes`, in main memory: what is not quantised is a part of the mapped files, where
    they are of its precision, and keeps their pages there, which the kernel may let go of."""
    is_mapped = shape.file_bytes == shape.parameters * NUMBER_BYTES[held.precision]
    if held.base_weights == "full" or not is_mapped:
        return base_bytes(shape, held)
    return shape.file_bytes + linear_bytes(shape, held)
