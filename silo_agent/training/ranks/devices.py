"""The GPUs of a rank or of an evaluation, or the refusal: asked of torch alone, before the rest."""

import os

import torch

from data_contracts.errors import SiloOperatorError
from silo_agent.training.engine_spec import Device


def require_gpus(device: Device) -> None:
    """Raise SiloOperatorError when the ranks of this machine are more than its GPUs."""
    needed = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if device == "cuda" and torch.cuda.device_count() < needed:
        raise no_gpu(needed=needed, found=torch.cuda.device_count())


def single_device(device: Device) -> torch.device:
    """The device of a process that works alone; raises SiloOperatorError without a GPU."""
    if device == "cuda" and not torch.cuda.is_available():
        raise no_gpu(needed=1, found=0)
    return torch.device(device)


def loading_device(device: Device) -> torch.device:
    """Where a rank, or a process that works alone, puts its model."""
    index = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device("cuda", index) if device == "cuda" else torch.device("cpu")


def no_gpu(*, needed: int, found: int) -> SiloOperatorError:
    """The error for a machine with fewer GPUs than ranks."""
    return SiloOperatorError(
        "training device cuda",
        expected=f"{needed} GPU(s), one per rank",
        found=f"{found} that PyTorch can use",
        action="install a CUDA build of PyTorch and a driver, lower the ranks, or set the device "
        "to cpu",
    )
