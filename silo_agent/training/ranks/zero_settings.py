"""What DeepSpeed is told: the optimizer, and of ZeRO the stage and what leaves memory when."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from deepspeed.runtime.zero.partition_parameters import (
    Init,
    InsertPostInitMethodToModuleSubClasses,
)
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from silo_agent.training.engine_spec import EngineSpec

NEVER = 10**9


def deepspeed_config(spec: EngineSpec) -> dict[str, Any]:
    """The whole DeepSpeed configuration; the learning rate is set before each step."""
    optimizer = {
        "lr": 0.0,
        "weight_decay": float(spec.weight_decay),
        # PyTorch's AdamW: DeepSpeed's own would be compiled at first use.
        "torch_adam": True,
    }
    return {
        "train_micro_batch_size_per_gpu": min(spec.micro_batch, spec.sequences_per_rank),
        "gradient_accumulation_steps": spec.backward_passes,
        # Of a private step nothing but the gradients of single units is cut.
        "gradient_clipping": 0.0 if spec.private else float(spec.max_gradient_norm),
        "optimizer": {"type": "AdamW", "params": optimizer},
        "zero_optimization": zero_settings(spec),
        "bf16": {"enabled": spec.precision == "bfloat16"},
        "steps_per_print": NEVER,
    }


def zero_settings(spec: EngineSpec) -> dict[str, Any]:
    """DeepSpeed's `zero_optimization`."""
    zero: dict[str, Any] = {"stage": spec.zero_stage, "overlap_comm": spec.device == "cuda"}
    if spec.zero_stage == 3:
        # DeepSpeed keeps what it needs again within a billion parameters: small models stay whole.
        zero["stage3_max_reuse_distance"] = 0
        if spec.device == "cpu":
            # Nothing is sent beside the arithmetic there, so what is fetched early only takes room.
            zero["stage3_prefetch_bucket_size"] = 0
    if spec.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu"}
        zero["offload_param"] = {"device": "cpu"}
    if spec.offload == "nvme":
        # Of an adapter's optimizer there is little: only the base model goes to the disk.
        zero["offload_param"] = {"device": "nvme", "nvme_path": str(spec.offload_dir)}
    return zero


def stage_3_config(config: dict[str, Any]) -> Any:
    """Tells `from_pretrained` to partition while loading; works as long as it is referenced."""
    from transformers.integrations import HfDeepSpeedConfig

    return HfDeepSpeedConfig(config)


def leave_stage_3() -> None:
    """Undo what an engine at stage 3 leaves in the process, so that the next may have another.

    transformers would go on partitioning what it loads, and DeepSpeed has put a linear function of
    its own in the place of PyTorch's ("this will persist unless manually reset").
    """
    unset_hf_deepspeed_config()
    replaced = getattr(InsertPostInitMethodToModuleSubClasses, "linear_bk", None)
    if replaced is not None:
        torch.nn.functional.linear = replaced


@contextmanager
def numbers_left_whole() -> Iterator[None]:
    """While a model is loaded at stage 3, parameters without dimensions are left as they are.

    DeepSpeed 0.19 fails on them, and files have no others; once they have a dimension
    (`lora_model`) it takes them as all others.
    """
    original = Init._zero_init_param

    def with_dimensions(self: Any, parameter: Any) -> None:
        if parameter.dim():
            original(self, parameter)

    Init._zero_init_param = with_dimensions
    try:
        yield
    finally:
        Init._zero_init_param = original
