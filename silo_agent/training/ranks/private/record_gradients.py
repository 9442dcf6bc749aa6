"""The gradient of every record by itself, from one forward and one backward pass.

A linear layer's gradient is a product of its inputs and of the gradient of its outputs, summed over
tokens; summed over the tokens of each record it is that of each record (Goodfellow 2015,
arXiv:1510.01799). Both are there in the backward pass of the whole micro-batch: forward hooks put
an identity behind every trained layer that keeps the inputs, as PyTorch keeps what it needs (so
activations that are computed again are not held), and hands both on when the gradient comes by.

Meanwhile parameters ask for no gradient themselves: nothing that is summed over records exists.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.nn.functional import layer_norm

from data_contracts.errors import FederationOperatorError
from silo_agent.training.ranks.private.record_places import Combined, RecordPlaces

Gradients = dict[str, torch.Tensor]
"""Of records (records x shape, float32) by the names of the tensors."""

EXPERTS = "experts"
"""In the names of layers to which a router sends some of the tokens."""


class RecordGradients:
    """Of these parameters of a model, by their names; its hooks do nothing but while `of` asks.

    Raises FederationOperatorError for a trained layer of which it is not known how.
    """

    def __init__(
        self, model: Any, parameters: dict[str, torch.nn.Parameter], device: torch.device
    ) -> None:
        self.parameters = parameters
        self._anchor = torch.zeros((), device=device, requires_grad=True)
        self._places: RecordPlaces | None = None
        self._found: Gradients = {}
        self._hooks = [
            layer.register_forward_hook(partial(self._behind, name, tensors))
            for name, layer, tensors in _trained_layers(model, parameters)
        ]

    def of(
        self, places: RecordPlaces, summed_loss: Callable[[], torch.Tensor]
    ) -> tuple[torch.Tensor, Gradients]:
        """The loss, summed over all that is asked, and the gradient of each record's part of it, by
        `places.order`. Tensors of layers that nothing went through are left out."""
        self._places, self._found = places, {}
        try:
            with self._asking_for_none():
                loss = summed_loss()
                torch.autograd.backward(loss)
            return loss.detach(), self._found
        finally:
            self._places, self._found = None, {}

    def end(self) -> None:
        """Take the hooks away."""
        for hook in self._hooks:
            hook.remove()

    @contextmanager
    def _asking_for_none(self) -> Iterator[None]:
        for parameter in self.parameters.values():
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in self.parameters.values():
                parameter.requires_grad_(True)

    def _behind(
        self,
        name: str,
        tensors: dict[str, Combined],
        _layer: torch.nn.Module,
        inputs: tuple[torch.Tensor, ...],
        output: torch.Tensor,
    ) -> torch.Tensor | None:
        """Forward hook of a layer."""
        if self._places is None or not torch.is_grad_enabled():
            return None
        found: torch.Tensor = _Watched.apply(  # type: ignore[no-untyped-call]
            output, inputs[0].detach(), self._anchor, partial(self._add, name, tensors)
        )
        return found

    def _add(
        self, layer: str, tensors: dict[str, Combined], inputs: torch.Tensor, deltas: torch.Tensor
    ) -> None:
        """Of a layer that is called more than once gradients add up."""
        if self._places is None:
            raise ValueError("a gradient came by after its pass")
        for name, combined in tensors.items():
            found = self._places.gradients(layer, inputs, deltas, combined)
            known = self._found.get(name)
            self._found[name] = found if known is None else known + found


class _Watched(torch.autograd.Function):
    """The output of a layer as it is; its gradient and the layer's inputs are handed on."""

    @staticmethod
    def forward(
        ctx: Any,
        output: torch.Tensor,
        inputs: torch.Tensor,
        anchor: torch.Tensor,
        hand_on: Callable[[torch.Tensor, torch.Tensor], None],
    ) -> torch.Tensor:
        """`anchor` asks for a gradient, so that there is one also of the first layer."""
        del anchor
        ctx.save_for_backward(inputs)
        ctx.hand_on = hand_on
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        """The gradient goes on unchanged."""
        (inputs,), (deltas,) = ctx.saved_tensors, gradients
        ctx.hand_on(inputs, deltas)
        return deltas, None, None, None


def _trained_layers(
    model: Any, parameters: dict[str, torch.nn.Parameter]
) -> Iterator[tuple[str, torch.nn.Module, dict[str, Combined]]]:
    """Every layer with trained tensors, under its name, and how their gradients come about."""
    names = {id(parameter): name for name, parameter in parameters.items()}
    for name, layer in model.named_modules():
        own = {
            names[id(parameter)]: leaf
            for leaf, parameter in layer.named_parameters(recurse=False)
            if id(parameter) in names
        }
        if own:
            yield name, layer, {tensor: _combined(name, layer, own[tensor]) for tensor in own}


def _combined(name: str, layer: torch.nn.Module, leaf: str) -> Combined:
    if EXPERTS not in name.split(".") and leaf in ("weight", "bias"):
        # Of exactly these: what is derived from them may compute something else.
        if type(layer) is torch.nn.Linear:
            return _of_product if leaf == "weight" else _of_sum
        if type(layer) is torch.nn.LayerNorm and len(layer.normalized_shape) == 1:
            return partial(_of_scale, layer.eps) if leaf == "weight" else _of_sum
    raise FederationOperatorError(
        "adapter layout of a private plan",
        expected="linear layers and layer norms, through which all tokens go",
        found=f"{name}, a {type(layer).__name__}",
        action="leave the module out of the plan's adapter targets, or train without privacy",
    )


def _of_product(inputs: torch.Tensor, deltas: torch.Tensor) -> torch.Tensor:
    return torch.bmm(deltas.transpose(1, 2), inputs)


def _of_sum(inputs: torch.Tensor, deltas: torch.Tensor) -> torch.Tensor:
    del inputs
    return deltas.sum(1)


def _of_scale(eps: float, inputs: torch.Tensor, deltas: torch.Tensor) -> torch.Tensor:
    return (deltas * layer_norm(inputs, inputs.shape[-1:], eps=eps)).sum(1)
