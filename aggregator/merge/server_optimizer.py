"""Server optimizers with a state: one step on the product of a module, from the merged delta.

The dense matrix of one module (out x in) is formed, because momentum and second moments of a
product have no low rank; memory is that of one module per worker. What the silos sent is minus a
gradient (Reddi et al. 2021), so that momentum and Nesterov's step are those of `torch.optim.SGD`
itself, which is called and not written again.
"""

import torch

from data_contracts.protocol.records.merge_spec import (
    OPTIMIZER_STATE,
    DiLoCo,
    FedAdam,
    FedAvgM,
    ServerOptimizer,
    StatefulOptimizer,
)

State = tuple[torch.Tensor, ...]


def state_names(optimizer: ServerOptimizer) -> tuple[str, ...]:
    """What an optimizer keeps for every module; see `OPTIMIZER_STATE`."""
    return OPTIMIZER_STATE[optimizer.name]


def initial_state(optimizer: ServerOptimizer, shape: tuple[int, int]) -> State:
    """The state before any step: zero, but tau squared for FedAdam's second moment."""
    match optimizer:
        case FedAdam(tau=tau):
            return torch.zeros(shape), torch.full(shape, float(tau) ** 2)
        case _:
            return tuple(torch.zeros(shape) for _ in state_names(optimizer))


def server_step(
    optimizer: StatefulOptimizer, start: torch.Tensor, delta: torch.Tensor, state: State
) -> tuple[torch.Tensor, State]:
    """The new product and the new state from the starting product and the merged delta.

    All are float32 (out x in); `state` is empty in the first round of a run.
    """
    match optimizer:
        case FedAvgM(learning_rate=rate, momentum=momentum):
            return _sgd(start, delta, state, float(rate), float(momentum), nesterov=False)
        case DiLoCo(learning_rate=rate, momentum=momentum):
            return _sgd(start, delta, state, float(rate), float(momentum), nesterov=True)
        case FedAdam():
            return _adam(optimizer, start, delta, state)


def _sgd(
    start: torch.Tensor,
    delta: torch.Tensor,
    state: State,
    rate: float,
    momentum: float,
    *,
    nesterov: bool,
) -> tuple[torch.Tensor, State]:
    weights = torch.nn.Parameter(start.clone())
    weights.grad = -delta
    sgd = torch.optim.SGD([weights], lr=rate, momentum=momentum, nesterov=nesterov)
    if state:
        sgd.state[weights]["momentum_buffer"] = state[0].clone()
    sgd.step()
    kept = sgd.state[weights].get("momentum_buffer")
    return weights.detach(), (-delta if kept is None else kept,)


def _adam(
    optimizer: FedAdam, start: torch.Tensor, delta: torch.Tensor, state: State
) -> tuple[torch.Tensor, State]:
    """Algorithm 2 of Reddi et al. 2021, without bias correction; v starts at tau squared."""
    beta1, beta2 = float(optimizer.beta1), float(optimizer.beta2)
    tau = float(optimizer.tau)
    first, second = state or initial_state(optimizer, (delta.shape[0], delta.shape[1]))
    first = beta1 * first + (1 - beta1) * delta
    second = beta2 * second + (1 - beta2) * delta.square()
    step = first / (second.sqrt() + tau)
    return start + float(optimizer.learning_rate) * step, (first, second)
