"""What an optimizer holds of the trained parameters, looked at and put back."""

import deepspeed
import torch


def optimizer_steps(optimizer: torch.optim.Optimizer) -> float:
    """Steps that an optimizer counts before its first one: DeepSpeed may have made some."""
    return max((float(state["step"]) for state in optimizer.state.values()), default=0.0)


def reset(optimizer: torch.optim.Optimizer, steps: float) -> None:
    """Moments become zero in place, because DeepSpeed holds views of them."""
    for state in optimizer.state.values():
        for value in state.values():
            value.zero_()
        state["step"].fill_(steps)


def whole_value(parameter: torch.nn.Parameter) -> torch.Tensor:
    """The optimizer's float32 value of a parameter, put together from all ranks."""
    full: torch.Tensor = deepspeed.utils.safe_get_full_fp32_param(parameter)
    return full.detach().float()
