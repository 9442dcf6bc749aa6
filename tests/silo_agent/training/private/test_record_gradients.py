from pathlib import Path

import pytest
import torch

from data_contracts.errors import FederationOperatorError
from silo_agent.training.ranks.lora_model import trained_parameters
from silo_agent.training.ranks.packed_sequence import PackedSequence
from silo_agent.training.ranks.private.record_gradients import RecordGradients
from silo_agent.training.ranks.private.record_places import RecordPlaces
from tests.silo_agent.training.private.record_samples import (
    CPU,
    KINDS,
    Sample,
    one_by_one,
    sample,
)


def by_hooks(found: Sample) -> tuple[float, list[dict[str, torch.Tensor]]]:
    """Loss, and gradients of the records in their order."""
    places = RecordPlaces(found.sequences, CPU)
    hooks = RecordGradients(found.model, trained_parameters(found.model), CPU)
    loss, gradients = hooks.of(places, lambda: found.loss(found.sequences))
    hooks.end()
    own: list[dict[str, torch.Tensor]] = [{} for _ in places.order]
    for row, record in enumerate(places.order):
        own[record] = {name: each[row] for name, each in gradients.items()}
    return loss.item(), own


@pytest.mark.parametrize("checkpointing", [False, pytest.param(True, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_by_hooks_are_those_of_every_record_alone(
    kind: str, checkpointing: bool, tmp_path: Path
) -> None:
    found = sample(kind, tmp_path, checkpointing=checkpointing)
    expected = one_by_one(found)
    loss, own = by_hooks(found)
    with torch.no_grad():
        assert loss == pytest.approx(found.loss(found.sequences).item(), rel=1e-6)
    assert len(own) == len(expected) > 3
    seen = set[str]()
    for mine, alone in zip(own, expected, strict=True):
        assert mine.keys() == alone.keys()
        whole = torch.cat([each.flatten() for each in alone.values()]).norm()
        assert whole > 0
        for name, gradient in alone.items():
            assert (mine[name] - gradient).norm() / whole < 1e-5, name
            seen.update([name] if gradient.norm() > 0 else [])
    assert {name for name in expected[0] if "lora_" in name} <= seen


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_is_left_as_it_was(kind: str, tmp_path: Path) -> None:
    found = sample(kind, tmp_path)
    names = list(trained_parameters(found.model))
    by_hooks(found)
    assert list(trained_parameters(found.model)) == names
    assert all(parameter.grad is None for parameter in found.model.parameters())
    loss = found.loss(found.sequences)
    torch.autograd.backward(loss)
    parameters = trained_parameters(found.model)
    sums = {n: p.grad for n, p in parameters.items() if p.grad is not None}
    assert sums, "and is trained as before"


@pytest.mark.parametrize(
    ("trained", "named"),
    [("embed_tokens.weight", "Embedding"), ("norm.weight", "LlamaRMSNorm")],
)
def test_a_layer_of_which_nothing_is_known_is_refused_by_name(
    trained: str, named: str, tmp_path: Path
) -> None:
    found = sample("llama", tmp_path)
    name, parameter = next(
        (name, p) for name, p in found.model.named_parameters() if name.endswith(trained)
    )
    with pytest.raises(FederationOperatorError, match=named):
        RecordGradients(found.model, {name: parameter}, CPU)


def test_inputs_that_do_not_say_whose_they_are_are_refused_by_the_layer_s_name() -> None:
    row = PackedSequence()
    for length in (4, 6):
        row.append([1] * length, [1] * length)
    places = RecordPlaces([row, row], CPU)
    flat = torch.zeros(20, 3)
    with pytest.raises(FederationOperatorError, match=r"model\.layers\.1\.fc1"):
        places.gradients("model.layers.1.fc1", flat, flat, lambda inputs, _: inputs)


def test_one_record_owns_all_inputs_whatever_their_shape() -> None:
    row = PackedSequence()
    row.append([1] * 5, [1] * 5)
    inputs, deltas = torch.randn(5, 3), torch.randn(5, 2)
    found = RecordPlaces([row], CPU).gradients(
        "any", inputs, deltas, lambda x, d: torch.bmm(d.transpose(1, 2), x)
    )
    assert torch.allclose(found[0], deltas.T @ inputs)
