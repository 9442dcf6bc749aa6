"""What DeepSpeed is told of ZeRO: the stage, and at stage 3 what leaves memory when."""

from typing import Any

from silo_agent.training.engine_spec import EngineSpec


def zero_settings(spec: EngineSpec) -> dict[str, Any]:
    """DeepSpeed's `zero_optimization`."""
    zero: dict[str, Any] = {"stage": spec.zero_stage, "overlap_comm": spec.device == "cuda"}
    if spec.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu"}
        zero["offload_param"] = {"device": "cpu"}
    if spec.offload == "nvme":
        # Of an adapter's optimizer there is little: only the base model goes to the disk.
        zero["offload_param"] = {"device": "nvme", "nvme_path": str(spec.offload_dir)}
    return zero
