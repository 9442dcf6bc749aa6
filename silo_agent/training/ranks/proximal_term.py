"""The proximal term mu/2 |p - p_start|^2 over the trained parameters (FedProx, Li et al. 2020).

Its gradient mu (p - p_start) is the same on every rank and for every micro-batch of a step. So it
is computed once per step, from the float32 values that the optimizer holds, and each backward pass
adds one share of it: shares add up over the micro-batches and are averaged over the ranks, as the
gradient of the data is, before the gradient is clipped. No parameter is read during a backward
pass, so it does not matter whether ZeRO keeps parameters whole or in parts.
"""

from collections.abc import Callable
from functools import partial

import torch


class ProximalTerm:
    """Adds its gradient to what backward passes leave in `parameters`.

    They are pulled towards `centre`, float32 tensors under their names, or without one to what they
    are now. `whole` gives a parameter's float32 value; it is called for every parameter in the same
    order on every rank, so it may be collective. Every parameter has to take part in every one of
    the step's `backward_passes`.
    """

    def __init__(
        self,
        parameters: dict[str, torch.nn.Parameter],
        mu: float,
        backward_passes: int,
        whole: Callable[[torch.nn.Parameter], torch.Tensor],
        centre: dict[str, torch.Tensor] | None = None,
    ) -> None:
        self._parameters = parameters
        self._share_of_mu = mu / backward_passes
        self._whole = whole
        self._start = centre or {name: whole(p).clone() for name, p in parameters.items()}
        self._pull: dict[str, torch.Tensor] = {}
        self._hooks = [
            parameter.register_hook(partial(self._add, name))  # type: ignore[no-untyped-call]
            for name, parameter in parameters.items()
        ]

    def begin_step(self) -> None:
        """Take the parameters as they are now as the p of the coming step; collective."""
        for name, parameter in self._parameters.items():
            self._pull[name] = (self._whole(parameter) - self._start[name]) * self._share_of_mu

    def end(self) -> None:
        """Add nothing to the gradients of any later backward pass."""
        for hook in self._hooks:
            hook.remove()

    def _add(self, name: str, gradient: torch.Tensor) -> torch.Tensor:
        return gradient + self._pull[name].to(gradient.dtype)
