import pytest
import torch

from silo_agent.training.ranks.proximal_term import ProximalTerm

MU, PASSES, RATE = 0.3, 4, 0.1


def whole(parameter: torch.nn.Parameter) -> torch.Tensor:
    return parameter.detach()


def gradients(layer: torch.nn.Linear, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    """What several backward passes leave, as gradient accumulation does."""
    layer.zero_grad()
    for part in inputs.chunk(PASSES):
        layer(part).square().sum().backward()
    return {name: p.grad.clone() for name, p in layer.named_parameters() if p.grad is not None}


def test_one_step_adds_the_gradient_of_the_penalty_once() -> None:
    torch.manual_seed(0)
    layer, inputs = torch.nn.Linear(5, 3), torch.randn(8, 5)
    start = {name: p.detach().clone() for name, p in layer.named_parameters()}
    term = ProximalTerm(dict(layer.named_parameters()), MU, PASSES, whole)
    term.begin_step()
    at_start = gradients(layer, inputs)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.sub_(RATE * torch.randn_like(parameter))
    without = gradients(layer, inputs)
    term.begin_step()
    found = gradients(layer, inputs)
    assert at_start.keys() == found.keys() == start.keys()
    for name, parameter in layer.named_parameters():
        pull = MU * (parameter.detach() - start[name])
        assert found[name] - without[name] == pytest.approx(pull, abs=1e-5)
        assert float(pull.abs().max()) > 1e-3


def test_at_its_start_nothing_is_pulled() -> None:
    torch.manual_seed(1)
    layer, inputs = torch.nn.Linear(5, 3), torch.randn(8, 5)
    before = gradients(layer, inputs)
    ProximalTerm(dict(layer.named_parameters()), MU, PASSES, whole).begin_step()
    after = gradients(layer, inputs)
    assert all(torch.equal(before[name], after[name]) for name in before)
