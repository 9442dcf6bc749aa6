"""Tensors that are trained whole, merged under every rule, optimizer and defence: plain means.

The reference is NumPy in float64 on the tensors of the files.
"""

import itertools
import pickle
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from peft.utils import set_peft_model_state_dict

from aggregator.merge import target_view, whole_tensor
from aggregator.merge.adapter_merge import merge_adapters
from aggregator.merge.defence import defended, delta_kernel
from aggregator.merge.merge_inputs import LocalAdapter, MergeInputs
from aggregator.merge.rules import merge_module
from aggregator.merge.server_state import open_server_state
from aggregator.merge.step_formula import step_size
from aggregator.merge.step_size import stepped
from data_contracts.adapters.adapter_format import (
    AdapterFile,
    check_adapter,
    expected_shapes,
    open_adapter,
)
from data_contracts.adapters.starting_adapter import InitialAdapter, narrowed, tensors_of
from data_contracts.errors import UnusableMergeError
from data_contracts.protocol.artifact import artifact_of_file
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.merge_spec import (
    DiLoCo,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedExP,
    HeavyBall,
    MergeRule,
    RobustSpec,
    StatefulOptimizer,
)
from tests.aggregator.adapter_samples import inputs_of
from tests.data_contracts.whole_samples import LAYOUT, NORM, PAIR, WEIGHT, moved, written

WHOLES = LAYOUT.wholes
WEIGHTS = (30, 5, 50, 40, 25)
Float64Array = np.ndarray[Any, np.dtype[np.float64]]


def file_of(
    path: Path, seed: int, layout: AdapterLayout = LAYOUT, scale: float = 0.3
) -> AdapterFile:
    return open_adapter(written(path, moved(seed, scale, layout)), layout)


def of_silos(directory: Path, weights: tuple[int, ...] = WEIGHTS, **merge: Any) -> MergeInputs:
    """Silos from a start that is not the initial one, with what the round before started from."""
    files = [(file_of(directory / f"silo-{n}", n), weight) for n, weight in enumerate(weights)]
    start = file_of(directory / "start", 91)
    inputs = inputs_of(files, LAYOUT, start, **merge)
    return replace(inputs, earlier=file_of(directory / "earlier", 92, scale=0.2))


def tensor(source: Any, target: Any) -> Float64Array:
    return np.asarray(source.module(target)[1], dtype=np.float64)


def expected(
    inputs: MergeInputs, target: Any, coefficients: list[float], carried: float = 0.0
) -> Float64Array:
    """start + carried (start - earlier) + sum of c_i (W_i - start)."""
    start = tensor(inputs.starting, target)
    total = start + carried * (start - tensor(inputs.earlier, target))
    for adapter, coefficient in zip(inputs.locals, coefficients, strict=True):
        total = total + coefficient * (tensor(adapter.source, target) - start)
    return total


def shares(inputs: MergeInputs) -> list[float]:
    total = sum(adapter.weight for adapter in inputs.locals)
    return [adapter.weight / total for adapter in inputs.locals]


def require_merged(inputs: MergeInputs, wanted: Callable[[Any], Float64Array], into: Path) -> None:
    """In the file, to the last bit of float32; their error is zero, their norm that of the sum."""
    merge = merge_adapters(inputs, into, into.with_suffix(".state"))
    merged = open_adapter(into, LAYOUT)
    exactness = dict(merge.modules)
    for target in WHOLES:
        found, reference = merged.module(target)[1], wanted(target)
        np.testing.assert_allclose(found, reference, rtol=2e-7, atol=1e-9)
        assert exactness[target.module].error == exactness[target.module].discarded_energy == 0
        norms = merge_module(inputs, target).norms
        assert norms.true_sum == pytest.approx(float((reference**2).sum()), rel=1e-6)


RULES: list[tuple[MergeRule, int]] = [
    ("stack_truncate", 2),
    ("average", 2),
    ("zero_pad", 2),
    ("frozen_a", 2),
    ("alternating", 2),
    ("alternating", 3),
    ("fedsvd", 2),
    ("residual", 2),
]


@pytest.mark.parametrize(("rule", "number"), RULES)
def test_every_rule_takes_the_weighted_mean(tmp_path: Path, rule: MergeRule, number: int) -> None:
    merge: dict[str, Any] = {"rule": rule}
    if rule == "residual":
        merge["residual_rank"] = 2
    inputs = replace(of_silos(tmp_path, **merge), round_number=number)
    require_merged(
        inputs, lambda target: expected(inputs, target, shares(inputs)), tmp_path / "merged"
    )


@pytest.mark.parametrize(("rule", "number"), RULES)
def test_the_order_of_the_silos_does_not_show(tmp_path: Path, rule: MergeRule, number: int) -> None:
    merge: dict[str, Any] = {"rule": rule}
    if rule == "residual":
        merge["residual_rank"] = 2
    inputs = replace(of_silos(tmp_path, (3, 1, 2), **merge), round_number=number)
    digests = {
        merge_adapters(replace(inputs, locals=order), tmp_path / "merged").adapter.digest
        for order in itertools.permutations(inputs.locals)
    }
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("optimizer", "rate", "carried"),
    [
        (FedAvg(learning_rate=Decimal("0.6")), 0.6, 0.0),
        (HeavyBall(learning_rate=Decimal("0.8"), momentum=Decimal("0.3")), 0.8, 0.3),
    ],
)
def test_a_rate_and_a_heavy_ball_move_it_as_they_move_products(
    tmp_path: Path, optimizer: FedAvg | HeavyBall, rate: float, carried: float
) -> None:
    inputs = of_silos(tmp_path, optimizer=optimizer)
    coefficients = [rate * share for share in shares(inputs)]
    require_merged(
        inputs, lambda target: expected(inputs, target, coefficients, carried), tmp_path / "merged"
    )


def flat_delta(inputs: MergeInputs, adapter: LocalAdapter) -> Float64Array:
    """Of all modules, pairs as products."""
    own = adapter.source
    start = narrowed(inputs.starting, own.layout)
    (a, b), (a_0, b_0) = own.module(PAIR), start.module(PAIR)
    product = own.layout.scaling * (b.astype(np.float64) @ a - b_0.astype(np.float64) @ a_0)
    heads = [tensor(own, target) - tensor(start, target) for target in WHOLES]
    return np.concatenate([product.ravel(), *(head.ravel() for head in heads)])


def test_fedexp_steps_by_heads_and_pairs_together(tmp_path: Path) -> None:
    optimizer = FedExP(max_step=Decimal(100), momentum=Decimal("0.25"))
    near = file_of(tmp_path / "near", 93, scale=0.01)
    inputs = stepped(replace(of_silos(tmp_path, optimizer=optimizer), starting=near))
    deltas = [flat_delta(inputs, adapter) for adapter in inputs.locals]
    own = sum(w * float(d @ d) for w, d in zip(shares(inputs), deltas, strict=True))
    mean = sum(w * d for w, d in zip(shares(inputs), deltas, strict=True))
    step = step_size(own, float(np.square(mean).sum()), 100)
    assert inputs.step == pytest.approx(step, abs=1e-5)
    assert step > 1
    coefficients = [float(inputs.step or 0) * share for share in shares(inputs)]
    require_merged(
        inputs, lambda target: expected(inputs, target, coefficients, 0.25), tmp_path / "merged"
    )


def plain_step(
    optimizer: StatefulOptimizer, start: Float64Array, delta: Float64Array, state: list[Any]
) -> tuple[Float64Array, list[Any]]:
    """Their papers' lines in NumPy; momentum is that of minus the delta."""
    match optimizer:
        case FedAdam():
            first, second = state or [0 * delta, 0 * delta + float(optimizer.tau) ** 2]
            first = float(optimizer.beta1) * first + (1 - float(optimizer.beta1)) * delta
            second = float(optimizer.beta2) * second + (1 - float(optimizer.beta2)) * delta**2
            step = first / (np.sqrt(second) + float(optimizer.tau))
            return start + float(optimizer.learning_rate) * step, [first, second]
        case _:
            momentum, rate = float(optimizer.momentum), float(optimizer.learning_rate)
            velocity = (momentum * state[0] if state else 0) - delta
            step = momentum * velocity - delta if isinstance(optimizer, DiLoCo) else velocity
            return start - rate * step, [velocity]


@pytest.mark.parametrize("optimizer", [FedAvgM(), DiLoCo(), FedAdam(tau=Decimal("0.01"))])
def test_an_optimizer_with_a_state_steps_on_the_tensor_over_rounds(
    tmp_path: Path, optimizer: StatefulOptimizer
) -> None:
    states: dict[str, list[Any]] = {target.module: [] for target in WHOLES}
    inputs = of_silos(tmp_path, optimizer=optimizer)
    for number in (2, 3, 4):
        inputs = replace(inputs, round_number=number, earlier=None)
        into, state_file = tmp_path / f"merged-{number}", tmp_path / f"state-{number}"
        merge_adapters(inputs, into, state_file)
        merged = open_adapter(into, LAYOUT)
        for target in WHOLES:
            start = tensor(inputs.starting, target)
            delta = (
                expected(replace(inputs, earlier=inputs.starting), target, shares(inputs)) - start
            )
            reference, states[target.module] = plain_step(
                optimizer, start, delta, states[target.module]
            )
            np.testing.assert_allclose(merged.module(target)[1], reference, rtol=2e-5, atol=2e-6)
        state = open_server_state(state_file, LAYOUT, optimizer)
        for part, reference in zip(state.module(WEIGHT), states[WEIGHT.module], strict=True):
            assert part.shape == (WEIGHT.out_features, WEIGHT.in_features)
            np.testing.assert_allclose(part.numpy(), reference, rtol=2e-5, atol=2e-6)
        inputs = replace(inputs, starting=merged, server_state=state)


DEFENCES = [
    RobustSpec(tolerated_silos=1),
    RobustSpec(tolerated_silos=1, clip="none", mixing="none", rule="multi_krum"),
    RobustSpec(tolerated_silos=1, mixing="none", rule="mean"),
    RobustSpec(tolerated_silos=1, mixing="none", rule="centred_clipping"),
    RobustSpec(tolerated_silos=1, mixing="none", rule="geometric_median"),
    RobustSpec(tolerated_silos=0, mixing="none", rule="mean"),
]


@pytest.mark.parametrize("defence", DEFENCES, ids=lambda d: f"{d.rule}-{d.mixing}")
@pytest.mark.parametrize("rule", ["stack_truncate", "alternating"])
def test_the_weights_of_a_defence_hold_for_heads(
    tmp_path: Path, defence: RobustSpec, rule: MergeRule
) -> None:
    inputs = of_silos(tmp_path, rule=rule, robust=defence)
    if rule == "alternating":
        inputs = replace(inputs, earlier=None)
    inputs = defended(inputs).inputs
    assert inputs.defence is not None
    weights, carried = list(inputs.defence.silos), inputs.defence.centre
    before = inputs if inputs.earlier else replace(inputs, earlier=inputs.starting)
    require_merged(
        inputs, lambda target: expected(before, target, weights, carried), tmp_path / "merged"
    )


def test_a_defence_sees_heads_and_pairs_as_one_delta(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = of_silos(tmp_path)
    flat = np.stack([flat_delta(inputs, adapter) for adapter in inputs.locals])
    kernel, centre = delta_kernel(inputs)
    np.testing.assert_allclose(kernel, flat @ flat.T, rtol=1e-6, atol=1e-6)
    moved_before = flat_delta(
        replace(inputs, starting=inputs.earlier or inputs.starting),
        LocalAdapter(inputs.starting, "start", 1),
    )
    assert centre is not None
    np.testing.assert_allclose(centre.products, flat @ moved_before, rtol=1e-6, atol=1e-6)
    monkeypatch.setattr(target_view, "CHUNK_NUMBERS", 40)
    in_parts, _ = delta_kernel(inputs)
    np.testing.assert_allclose(in_parts, kernel, rtol=1e-12)


def test_a_head_alone_gives_a_silo_away(tmp_path: Path) -> None:
    """Its pairs are those of the others."""
    inputs = of_silos(tmp_path, robust=RobustSpec(tolerated_silos=1, clip="none", mixing="none"))
    calm = moved(1, 0.01)
    loud = calm | {"base_model.model.classifier.weight": np.full((5, 6), 40, np.float32)}
    files = [written(tmp_path / f"calm-{n}", moved(n, 0.01)) for n in range(4)]
    files.append(written(tmp_path / "loud", loud))
    local = [
        LocalAdapter(open_adapter(path, LAYOUT), artifact_of_file(path).digest, 10)
        for path in files
    ]
    found = defended(replace(inputs, locals=tuple(local), starting=InitialAdapter(LAYOUT)))
    part = found.parts[artifact_of_file(files[-1]).digest]
    assert part.alarm
    assert part.norm > 100 * min(other.norm for other in found.parts.values())


@pytest.mark.parametrize("name", ["median", "trimmed_mean"])
@pytest.mark.parametrize(("rule", "number"), [("frozen_a", 2), ("alternating", 2), ("fedsvd", 3)])
@pytest.mark.parametrize("slice_numbers", [1, 1 << 22])
def test_median_and_trimmed_mean_take_it_entry_by_entry(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    rule: MergeRule,
    number: int,
    slice_numbers: int,
) -> None:
    monkeypatch.setattr(whole_tensor, "SLICE_NUMBERS", slice_numbers)
    robust = {"tolerated_silos": 1, "clip": "none", "mixing": "none", "rule": name}
    found = defended(replace(of_silos(tmp_path, rule=rule, robust=robust), round_number=number))

    def wanted(target: Any) -> Float64Array:
        stack = np.stack([tensor(adapter.source, target) for adapter in found.inputs.locals])
        if name == "median":
            return np.asarray(np.median(stack, axis=0))
        return np.asarray(np.sort(stack, axis=0)[1:-1].mean(axis=0))

    require_merged(found.inputs, wanted, tmp_path / "merged")
    assert sum(part.influence for part in found.parts.values()) == pytest.approx(1)


def test_the_influence_under_a_median_counts_heads(tmp_path: Path) -> None:
    robust = {"tolerated_silos": 1, "clip": "none", "mixing": "none", "rule": "median"}
    inputs = of_silos(tmp_path, (1, 1, 1, 1, 1), rule="frozen_a", robust=robust)
    found, kept = defended(inputs), np.zeros(5)
    for target in LAYOUT.targets:
        stack = np.stack([tensor(adapter.source, target) for adapter in found.inputs.locals])
        middle = np.median(stack, axis=0)
        kept += (stack == middle).reshape(5, -1).sum(axis=1)
    for adapter, count in zip(found.inputs.locals, kept, strict=True):
        assert found.parts[adapter.digest].influence == pytest.approx(count / kept.sum())


def test_silos_of_several_ranks_all_count_at_a_head(tmp_path: Path) -> None:
    layouts = [LAYOUT.model_copy(update={"rank": n, "alpha": n}) for n in (1, 2, 1)]
    files = [
        (file_of(tmp_path / f"silo-{n}", n, layout), 10 + n) for n, layout in enumerate(layouts)
    ]
    for rule, how in (("stack_truncate", "trained"), ("stack_truncate", None), ("zero_pad", None)):
        inputs = inputs_of(files, LAYOUT, rule=rule, rank_weights=how)
        before = replace(inputs, earlier=inputs.starting)
        require_merged(
            inputs,
            lambda target, before=before: expected(before, target, shares(before)),  # type: ignore[misc]
            tmp_path / f"merged-{rule}-{how}",
        )


def test_names_and_shapes_are_those_that_peft_saves() -> None:
    class Tiny(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = torch.nn.ModuleDict({"down": torch.nn.Linear(6, 3)})
            self.classifier = torch.nn.Linear(6, 5)
            self.norm = torch.nn.LayerNorm(6, bias=False)

    model = get_peft_model(
        Tiny(),
        LoraConfig(r=2, target_modules=["model.down"], modules_to_save=["classifier", "norm"]),
    )
    saved = get_peft_model_state_dict(model)
    assert {name: tuple(tensor.shape) for name, tensor in saved.items()} == expected_shapes(LAYOUT)
    tensors = {name: torch.from_numpy(tensor) for name, tensor in moved(3).items()}
    set_peft_model_state_dict(model, tensors)
    features, own = torch.randn(4, 6), moved(3)
    wanted = features.numpy() @ own["base_model.model.classifier.weight"].T
    wanted = wanted + own["base_model.model.classifier.bias"]
    found = model.base_model.model.classifier(features).detach().numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_residual_has_pairs_only_and_goes_on(tmp_path: Path) -> None:
    inputs = of_silos(tmp_path, rule="residual", residual_rank=2)
    layout = LAYOUT.without_wholes.model_copy(update={"rank": 2, "alpha": 2})
    for number in (2, 3):
        state = tmp_path / f"residual-{number}"
        merged = merge_adapters(replace(inputs, round_number=number), tmp_path / "merged", state)
        assert merged.residual == artifact_of_file(state)
        residual = open_adapter(state, layout)
        assert tensors_of(residual).keys() == {
            f"base_model.model.{PAIR.module}.lora_{name}.weight" for name in "AB"
        }
        inputs = replace(inputs, residual=residual)
    assert [name for name, _ in merged.modules] == [target.module for target in LAYOUT.targets]


def test_a_merge_goes_on_where_it_was_and_travels_to_workers(tmp_path: Path) -> None:
    inputs = of_silos(tmp_path, rule="residual", residual_rank=2)
    whole = merge_adapters(inputs, tmp_path / "whole", tmp_path / "state")

    def stop(done: int, _all: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge_adapters(inputs, tmp_path / "again", tmp_path / "again-state", on_progress=stop)
    merged_anew: list[int] = []

    def elsewhere(given: MergeInputs, indices: list[int]) -> Any:
        there = pickle.loads(pickle.dumps(given))  # noqa: S301
        for index in indices:
            merged_anew.append(index)
            module = merge_module(there, there.layout.targets[index])
            yield index, pickle.loads(pickle.dumps(module))  # noqa: S301

    again = merge_adapters(
        inputs, tmp_path / "again", tmp_path / "again-state", merge_modules=elsewhere
    )
    assert again == whole
    assert merged_anew == [3]
    big = WEIGHT.model_copy(update={"in_features": 3000})
    layout = LAYOUT.model_copy(update={"targets": (PAIR, big)})
    file = file_of(tmp_path / "big", 1, layout)
    sent = pickle.dumps(merge_module(inputs_of([(file, 1)], layout), big))
    assert len(sent) < 2 * 4 * 5 * 3000


def test_a_head_that_no_silo_trained_stays(tmp_path: Path) -> None:
    file = open_adapter(
        written(tmp_path / "pairs", moved(1, layout=LAYOUT.without_wholes)), LAYOUT.without_wholes
    )
    start = file_of(tmp_path / "start", 5)
    for optimizer in (FedAvg(), FedAdam()):
        inputs = inputs_of([(file, 3)], LAYOUT, start, optimizer=optimizer)
        merge_adapters(inputs, tmp_path / "merged", tmp_path / "state")
        for target in WHOLES:
            found = open_adapter(tmp_path / "merged", LAYOUT).module(target)[1]
            assert np.array_equal(found, start.module(target)[1])
        if optimizer == FedAdam():
            state = open_server_state(tmp_path / "state", LAYOUT, FedAdam()).module(NORM)
            assert float(state[1].max()) == pytest.approx(1e-6)


def test_heads_as_they_start_and_pairs_that_cancel_are_no_adapter(tmp_path: Path) -> None:
    one = moved(1, only="lora_")
    other = {n: -t if ".lora_B." in n else t for n, t in one.items()}
    files = [(written(tmp_path / f"{n}", t), 1) for n, t in enumerate((one, other))]
    adapters = [(open_adapter(path, LAYOUT), weight) for path, weight in files]
    with pytest.raises(UnusableMergeError, match="deltas cancel"):
        merge_adapters(inputs_of(adapters, LAYOUT), tmp_path / "merged")
    head = one | {"base_model.model.classifier.bias": np.full(5, 0.1, np.float32)}
    adapters[0] = (open_adapter(written(tmp_path / "2", head), LAYOUT), 1)
    merge_adapters(inputs_of(adapters, LAYOUT), tmp_path / "merged")
    check_adapter(tmp_path / "merged", LAYOUT)


def test_a_head_beyond_every_gate_names_the_loudest_silo(tmp_path: Path) -> None:
    loud = moved(1) | {"base_model.model.norm.weight": np.full(6, 9_000, np.float32)}
    adapters = [
        (open_adapter(written(tmp_path / "a", moved(2)), LAYOUT), 10),
        (open_adapter(written(tmp_path / "b", loud), LAYOUT), 10),
    ]
    inputs = inputs_of(adapters, LAYOUT, optimizer=FedAvg(learning_rate=Decimal(4)))
    digest = artifact_of_file(tmp_path / "b").digest[:16]
    with pytest.raises(UnusableMergeError, match=rf"norm\.weight(.|\n)*{digest}"):
        merge_adapters(inputs, tmp_path / "merged")
