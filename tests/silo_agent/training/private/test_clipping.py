import pytest
import torch

from silo_agent.training.ranks.private.clipping import ClippedSum, Part
from tests.silo_agent.training.private.record_samples import CPU

SHAPES = {"a": torch.Size((4, 7)), "b": torch.Size((9, 4)), "bias": torch.Size((5,))}
NORM = 1.5

Gradients = dict[str, torch.Tensor]


def drawn(records: int, scale: float = 1.0) -> Gradients:
    """Of so many records."""
    torch.manual_seed(records)
    return {name: scale * torch.randn(records, *shape) for name, shape in SHAPES.items()}


def flat(gradients: Gradients) -> torch.Tensor:
    """(Records x all numbers), float64."""
    return torch.cat([each.flatten(1) for each in gradients.values()], 1).double()


def summed() -> ClippedSum:
    return ClippedSum(SHAPES, NORM, CPU)


@pytest.mark.parametrize("scale", [1e-3, 0.1, 0.3, 1e4])
def test_the_sum_is_that_of_units_that_are_cut_over_all_tensors_together(scale: float) -> None:
    parts = [Part(1, 0.5), Part(2, 1.0), Part(1, 0.25), Part(3, 0.1)]
    gradients = drawn(4, scale)
    total = summed()
    norms = total.add(gradients, parts, {1, 2, 3})
    of_record = flat(gradients)
    units = torch.stack(
        [0.5 * of_record[0] + 0.25 * of_record[2], of_record[1], 0.1 * of_record[3]]
    )
    assert norms == pytest.approx(units.norm(dim=1).tolist(), rel=1e-6)
    cut = units * (NORM / units.norm(dim=1, keepdim=True)).clamp_max(1)
    assert torch.allclose(total.values.double(), cut.sum(0), rtol=1e-5, atol=1e-6 * scale)
    assert {name: each.shape for name, each in total.by_name().items()} == SHAPES


@pytest.mark.parametrize("scale", [0.2, 1.0, 1e6])
def test_no_unit_adds_more_than_the_norm(scale: float) -> None:
    """Of one record, and of several in opposite and in the same directions."""
    for count in range(1, 60):
        total, gradients = summed(), drawn(count, scale)
        total.add(gradients, [Part(0, 1 / count)] * count, {0})
        assert total.values.double().norm() <= NORM


def test_a_unit_whose_records_go_through_apart_is_cut_as_a_whole() -> None:
    gradients, parts = drawn(6), [Part(unit, 0.4) for unit in (0, 1, 1, 1, 2, 2)]
    at_once, apart = summed(), summed()
    expected = at_once.add(gradients, parts, {0, 1, 2})
    norms: list[float] = []
    for some, done in (([0, 1], {0}), ([2], set[int]()), ([3, 4, 5], {1, 2})):
        own = {name: each[some] for name, each in gradients.items()}
        norms += apart.add(own, [parts[record] for record in some], done)
    assert norms == pytest.approx(expected, rel=1e-6)
    assert torch.allclose(apart.values, at_once.values, atol=1e-6)


def test_tensors_that_only_some_records_went_through_count_as_zero_for_the_others() -> None:
    gradients, parts = drawn(2), [Part(0, 1.0), Part(0, 1.0)]
    apart, whole = summed(), summed()
    apart.add({"a": gradients["a"][:1]}, parts[:1], set())
    apart.add({"b": gradients["b"][1:]}, parts[1:], {0})
    for name, row in (("a", 1), ("b", 0), ("bias", slice(None))):
        gradients[name][row] = 0
    whole.add(gradients, parts, {0})
    assert torch.allclose(apart.values, whole.values, atol=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_a_record_without_a_finite_gradient_counts_as_nothing(bad: float) -> None:
    gradients, parts = drawn(3), [Part(unit, 1.0) for unit in range(3)]
    expected = summed()
    expected.add({n: each[[0, 2]] for n, each in gradients.items()}, [parts[0], parts[2]], {0, 2})
    gradients["b"][1, 3, 2] = bad
    total = summed()
    assert total.add(gradients, parts, {0, 1, 2})[1] == 0
    assert torch.allclose(total.values, expected.values, atol=1e-6)


def test_nothing_is_drawn_and_nothing_is_summed() -> None:
    assert not summed().values.any()
