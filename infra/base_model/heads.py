"""The head of a task that a base model's files lack: which of its tensors are trained whole.

`from_pretrained` draws at random what the files do not have. For a head that is expected, and it is
trained; for anything else it would be a model that nobody has. A head is a module outside of the
model's body (or its pooler) of which the files have nothing at all. A bias alone, as that of an
output layer whose weights are the embeddings, stays zero, as transformers makes it for every user
of the model.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from data_contracts.protocol.records.adapter_layout import AdapterTarget, Initial

POOLER = "pooler"


class NotAHeadError(Exception):
    """The tensors that are missing are no head; the text names one."""


@dataclass(frozen=True)
class Head:
    """`trained` whole, and the names of biases that stay `zero`."""

    trained: tuple[AdapterTarget, ...]
    zero: tuple[str, ...]


def head_of(missing: Iterable[str], shapes: Mapping[str, tuple[int, ...]], body: str) -> Head:
    """What of the `missing` tensors is trained; `shapes` of all tensors in the model's order,
    `body` is the name of the part that every task shares.

    Raises NotAHeadError where a tensor of the body is missing, or a part of a module.
    """
    absent = set(missing)
    present = {name.rpartition(".")[0] for name in shapes if name not in absent}
    trained: list[AdapterTarget] = []
    zero: list[str] = []
    for name, shape in shapes.items():
        if name not in absent:
            continue
        module, _, leaf = name.rpartition(".")
        in_body = name.startswith(f"{body}.") and POOLER not in name.split(".")
        if in_body or len(shape) not in (1, 2):
            raise NotAHeadError(name)
        if module not in present and _is_of_module(module, shapes):
            trained.append(_whole(name, shape, leaf))
        elif leaf == "bias":
            zero.append(name)
        else:
            raise NotAHeadError(name)
    return Head(tuple(trained), tuple(zero))


def _is_of_module(module: str, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether the module has weights of its own: PEFT saves modules, and not single biases."""
    return f"{module}.weight" in shapes


def _whole(name: str, shape: tuple[int, ...], leaf: str) -> AdapterTarget:
    if len(shape) == 2:
        return AdapterTarget(
            module=name,
            in_features=shape[1],
            out_features=shape[0],
            whole="matrix",
            initial="normal",
        )
    initial: Initial = "ones" if leaf == "weight" else "zeros"
    return AdapterTarget(
        module=name, in_features=1, out_features=shape[0], whole="vector", initial=initial
    )
