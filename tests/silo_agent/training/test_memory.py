"""The parts of a rank's memory, by hand for a model whose numbers are easy, and how they go."""

from dataclasses import replace
from typing import Any

import pytest

from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget
from infra.base_model.model_shape import ModelShape
from silo_agent.training.activations_memory import (
    HOLES_SHARE,
    LARGEST_IN_HEAP_BYTES,
    LOGITS_AT_ONCE,
    WEIGHT_PASSES,
)
from silo_agent.training.engine_spec import PINNED, BaseWeights, HeldAs
from silo_agent.training.memory import (
    LIBRARIES_BYTES,
    Estimate,
    estimate,
    parameters_of,
    training_estimate,
)
from silo_agent.training.rank_work import Choice, Work
from silo_agent.training.ranks.families.masked_lm import ASKED
from silo_agent.training.weights_memory import (
    FLOAT32_BYTES,
    base_bytes,
    linear_bytes,
    resident_bytes,
)

HIDDEN, INNER, LAYERS, LENGTH, RANK = 64, 160, 3, 128, 4
SHAPE = ModelShape(
    parameters=10_000_000,
    file_bytes=40_000_000,
    largest=4_000_000,
    layer=200_000,
    linear=2_000_000,
    layers=LAYERS,
    hidden=HIDDEN,
    attention_width=HIDDEN,
    heads=4,
    feed_forward=INNER,
    vocabulary=50_000,
    norms=2,
    head_norms=0,
    is_gated=True,
    activation="fused",
    keeps_scores=False,
    has_residual_dropout=False,
    is_softcapped=False,
    tokenizer_bytes=0,
)


def layout(*names: str, rank: int = RANK) -> AdapterLayout:
    inputs = {"mlp.down_proj": (INNER, HIDDEN), "mlp.up_proj": (HIDDEN, INNER)}
    targets = tuple(
        AdapterTarget(
            module=f"model.layers.{layer}.{name}",
            in_features=inputs.get(name, (HIDDEN, HIDDEN))[0],
            out_features=inputs.get(name, (HIDDEN, HIDDEN))[1],
        )
        for layer in range(LAYERS)
        for name in names
    )
    return AdapterLayout(rank=rank, alpha=rank, seed=0, targets=targets)


QUERY_AND_VALUE = layout("self_attn.q_proj", "self_attn.v_proj")


def work(**changes: Any) -> Work:
    fields: dict[str, Any] = {
        "layout": QUERY_AND_VALUE,
        "residual_layout": None,
        "trained": "both",
        "sequence_length": LENGTH,
        "round_tokens": 0,
        "ranks": 2,
        "device": "cpu",
    }
    fields |= changes
    return Work(**{"held": PINNED[fields["device"]], **fields})


def part(found: Estimate, beginning: str) -> int:
    (size,) = [part.size_bytes for part in found.parts if part.name.startswith(beginning)]
    return size


STAGE_2 = Choice()


def kept(choice: Choice = STAGE_2, shape: ModelShape = SHAPE, **changes: Any) -> int:
    return part(estimate(shape, work(**changes), choice), "activations kept")


def test_the_parts_are_the_whole_and_each_is_told_once() -> None:
    found = estimate(SHAPE, work(), Choice())
    names = [part.name for part in found.parts]
    assert len(set(names)) == len(names) == 8
    assert found.total_bytes == sum(part.size_bytes for part in found.parts)
    assert found.moment == "training"
    assert part(found, "interpreter") == LIBRARIES_BYTES["cpu"]
    assert part(found, "base weights") == 40_000_000
    logits = LOGITS_AT_ONCE * LENGTH * 50_000 * FLOAT32_BYTES
    assert part(found, "logits of 50,000 words") == logits


def test_what_a_layer_keeps_is_counted_tensor_by_tensor() -> None:
    norms, attention, gate = 2 * HIDDEN, 4 * HIDDEN + 4 + LENGTH, 3 * INNER
    queries = HIDDEN + 2 * RANK
    ends = 2 * HIDDEN
    expected = LENGTH * FLOAT32_BYTES * (LAYERS * (norms + attention + gate + queries) + ends)
    assert kept() == expected


@pytest.mark.parametrize(
    ("names", "inputs"),
    [
        (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), HIDDEN),
        (("self_attn.q_proj", "self_attn.o_proj"), HIDDEN),
        (("self_attn.o_proj",), 0),
        (("mlp.up_proj",), HIDDEN),
        (("mlp.down_proj",), INNER),
        (("self_attn.q_proj", "mlp.up_proj", "mlp.down_proj"), 2 * HIDDEN + INNER),
    ],
)
def test_an_input_is_kept_once_for_all_modules_that_share_it(
    names: tuple[str, ...], inputs: int
) -> None:
    """And the input of the output projection is the result of attention, which is kept anyway."""
    without = kept(layout=layout("self_attn.o_proj", rank=1))
    ranks = RANK * len(names) - 1
    added = LAYERS * LENGTH * FLOAT32_BYTES * (inputs + ranks)
    assert kept(layout=layout(*names)) - without == added


def test_where_only_b_is_trained_inputs_are_kept_at_stage_3_alone() -> None:
    inputs = LAYERS * LENGTH * FLOAT32_BYTES * HIDDEN
    assert kept() - kept(trained="b") == inputs
    assert kept(Choice(3)) - kept(Choice(3), trained="b") == 0
    assert kept(trained="core") == kept(trained="b"), "and where cores are"


def test_activations_grow_with_the_micro_batch_and_faster_with_the_length() -> None:
    assert kept(Choice(micro_batch=4)) == 4 * kept()
    assert kept(sequence_length=2 * LENGTH) > 2 * kept(), "the mask is square"
    scores = replace(SHAPE, keeps_scores=True)
    assert kept(shape=scores, sequence_length=8 * LENGTH) > 20 * kept(shape=scores)


def test_dropout_softcaps_and_composed_activations_keep_more() -> None:
    more = LAYERS * LENGTH * FLOAT32_BYTES
    dropping = replace(SHAPE, has_residual_dropout=True)
    assert kept(shape=dropping) - kept() == more * 2 * HIDDEN
    plain = replace(SHAPE, is_gated=False)
    composed = replace(plain, activation="composed")
    assert kept(shape=composed) - kept(shape=plain) == more * 3 * INNER
    capped = estimate(replace(SHAPE, is_softcapped=True), work(), Choice())
    assert part(capped, "logits") > part(estimate(SHAPE, work(), Choice()), "logits")


def test_checkpointing_keeps_an_input_for_each_layer() -> None:
    saving = Choice(gradient_checkpointing=True)
    assert kept(saving) == LENGTH * FLOAT32_BYTES * (LAYERS + 2) * HIDDEN
    small = replace(SHAPE, vocabulary=10)
    found, without = (estimate(small, work(), choice) for choice in (saving, Choice()))
    assert part(found, "a layer in its backward") > part(without, "a layer in its backward")
    assert found.total_bytes < without.total_bytes


def test_what_passes_through_the_heap_leaves_holes_in_it_and_larger_tensors_do_not() -> None:
    def holes(**changes: Any) -> int:
        return part(estimate(SHAPE, work(**changes), STAGE_2), "holes")

    saving = estimate(SHAPE, work(), Choice(gradient_checkpointing=True))
    assert holes() == part(saving, "holes") > 0, "computed again it passes through it too"
    ends = LENGTH * FLOAT32_BYTES * 2 * HIDDEN
    assert holes() == pytest.approx(HOLES_SHARE * (kept() - ends), rel=1e-6)
    at = LARGEST_IN_HEAP_BYTES // (INNER * FLOAT32_BYTES)
    assert holes(sequence_length=at) > holes(sequence_length=at + 1), "gates are not in it"
    assert holes(device="cuda") == 0
    whole = part(estimate(SHAPE, work(), Choice(3)), "holes")
    weights = WEIGHT_PASSES["partitioned"] * LAYERS * 4 * SHAPE.layer
    assert whole - holes() == pytest.approx(HOLES_SHARE * weights, abs=1)
    scores = replace(SHAPE, keeps_scores=True)
    mask = LENGTH * FLOAT32_BYTES * LAYERS * (4 + LENGTH)
    without = part(estimate(scores, work(), STAGE_2), "holes")
    assert holes() - without == pytest.approx(HOLES_SHARE * mask, abs=1), "scores leave room"


def test_each_stage_partitions_more() -> None:
    sizes = [estimate(SHAPE, work(ranks=4), Choice(stage)) for stage in (1, 2, 3)]
    states = [part(size, "adapter") for size in sizes]
    trained = parameters_of(QUERY_AND_VALUE)
    assert states[0] - states[1] == FLOAT32_BYTES * trained - FLOAT32_BYTES * trained // 4
    weights = [part(size, "base weights") for size in sizes]
    assert weights[0] == weights[1] == 4 * 10_000_000
    assert weights[2] == 4 * (10_000_000 // 4 + 4_000_000), "a share, and the largest tensor"
    alone = [estimate(SHAPE, work(ranks=1), Choice(stage)) for stage in (1, 2)]
    assert alone[0] == alone[1], "a single rank has nobody to share with"


def test_optimizer_states_follow_what_is_trained() -> None:
    assert parameters_of(QUERY_AND_VALUE) == LAYERS * 2 * RANK * 2 * HIDDEN
    assert parameters_of(QUERY_AND_VALUE, "core") == LAYERS * 2 * RANK**2
    halves = [parameters_of(layout("mlp.down_proj"), factor) for factor in ("a", "b")]
    assert halves == [LAYERS * RANK * INNER, LAYERS * RANK * HIDDEN]
    both, half = (
        part(estimate(SHAPE, work(trained=factors), STAGE_2), "adapter")
        for factors in ("both", "a")
    )
    assert half < both
    cores, ranks = parameters_of(QUERY_AND_VALUE, "core"), work().ranks
    found = part(estimate(SHAPE, work(trained="core"), STAGE_2), "adapter")
    alone = FLOAT32_BYTES * (2 * cores + (3 * cores + cores) // ranks)
    assert found == alone + FLOAT32_BYTES * parameters_of(QUERY_AND_VALUE), "beside their bases"
    beside = estimate(SHAPE, work(residual_layout=QUERY_AND_VALUE), Choice())
    assert part(beside, "adapter") == both + FLOAT32_BYTES * parameters_of(QUERY_AND_VALUE)


def test_loading_can_be_the_fullest_moment() -> None:
    """Files in half precision lie in memory beside what is made of them."""
    large = replace(SHAPE, parameters=10**9, file_bytes=2 * 10**9)
    found = estimate(large, work(), Choice())
    assert found.moment == "loading"
    assert part(found, "base weights, while they are read") == 6 * 10**9
    first = part(estimate(large, work(), Choice(3)), "base weights, while they are read")
    assert first == 2 * 10**9 + 2 * 10**9 + 4 * 4_000_000, "file, a share, the largest tensor"


def test_on_a_gpu_weights_are_halves_and_can_be_elsewhere() -> None:
    gpu = work(device="cuda")
    whole = estimate(SHAPE, gpu, Choice(3))
    assert part(whole, "base weights") == 2 * (5_000_000 + 4_000_000)
    elsewhere = estimate(SHAPE, gpu, Choice(3, offload="cpu"))
    assert part(elsewhere, "base weights") == 2 * 4_000_000
    assert part(elsewhere, "adapter") < part(whole, "adapter")
    on_cpu = estimate(SHAPE, work(), Choice(3, offload="cpu"))
    assert on_cpu == estimate(SHAPE, work(), Choice(3)), "there is no elsewhere on a CPU"


def test_in_half_precision_weights_and_activations_are_halves_and_the_optimizer_is_not() -> None:
    half = Work(**{**vars(work()), "held": HeldAs("bfloat16")})
    whole, found = (training_estimate(SHAPE, each, STAGE_2) for each in (work(), half))
    assert found.moment == whole.moment == "training"
    for name in ("base weights", "activations kept", "communication", "holes"):
        assert part(found, name) * 2 == pytest.approx(part(whole, name), abs=2)
    states = 3 * FLOAT32_BYTES * parameters_of(QUERY_AND_VALUE) // 2
    assert states < part(found, "adapter") < part(whole, "adapter")


@pytest.mark.parametrize(("base_weights", "bits"), [("8-bit", 8), ("4-bit", 4)])
def test_of_quantised_weights_linear_layers_alone_are_small(
    base_weights: BaseWeights, bits: int
) -> None:
    held = HeldAs("bfloat16", base_weights)
    scales = SHAPE.linear * FLOAT32_BYTES // {8: HIDDEN, 4: 64}[bits]
    expected = SHAPE.linear * bits // 8 + scales + 2 * (SHAPE.parameters - SHAPE.linear)
    assert base_bytes(SHAPE, held) == expected
    gpu = Work(**{**vars(work(device="cuda", ranks=1)), "held": held, "sequence_length": 4096})
    assert part(estimate(SHAPE, gpu, STAGE_2), "base weights") == expected
    mapped = replace(SHAPE, file_bytes=2 * SHAPE.parameters)
    on_cpu = resident_bytes(mapped, held)
    assert on_cpu == mapped.file_bytes + linear_bytes(SHAPE, held), "the files stay mapped"


def test_what_is_trained_quantised_is_measured_in_full_and_that_has_to_fit_too() -> None:
    large = replace(SHAPE, parameters=10**9, linear=9 * 10**8, file_bytes=2 * 10**9)
    quantised = HeldAs("bfloat16", "4-bit")
    alone, pair = (
        estimate(large, Work(**{**vars(work(device="cuda", ranks=n)), "held": quantised}), STAGE_2)
        for n in (1, 2)
    )
    assert alone.moment == pair.moment == "measuring"
    assert part(alone, "pinned base weights") == 2 * 10**9
    shared = 10**9 + 2 * 4_000_000
    assert part(pair, "pinned base weights") == shared, "ranks share them out, as at stage 3"
    otherwise = Work(**{**vars(work(device="cuda", ranks=1)), "held": HeldAs("float32")})
    elsewhere = estimate(large, otherwise, Choice(3, offload="cpu"))
    assert elsewhere.total_bytes < 2 * 10**9, "what is offloaded is so while it is measured, too"
    full = estimate(large, work(device="cuda"), STAGE_2)
    assert full.moment == "training", "what trains the pinned model measures on it"


def test_a_longer_round_has_more_records() -> None:
    short, long = (estimate(SHAPE, work(round_tokens=n), Choice()) for n in (0, 10**6))
    assert long.total_bytes - short.total_bytes == part(long, "tokens of the round") > 0


def test_a_masked_model_computes_logits_of_all_tokens_and_asks_a_few() -> None:
    found = estimate(SHAPE, work(family="masked-lm"), STAGE_2)
    whole = LENGTH * 50_000 * FLOAT32_BYTES
    assert part(found, "logits") == pytest.approx((1 + ASKED * LOGITS_AT_ONCE) * whole, abs=1)


def test_classes_and_pairs_have_no_logits_to_speak_of() -> None:
    for family in ("sequence-classification", "dual-encoder"):
        found = estimate(SHAPE, work(family=family), STAGE_2)
        assert part(found, "a layer in its backward pass") > 0


def test_rows_of_one_record_are_no_longer_than_the_model_was_made_for() -> None:
    short = replace(SHAPE, context=LENGTH // 2)
    alone, half = (work(family="masked-lm", sequence_length=n) for n in (LENGTH, LENGTH // 2))
    assert estimate(short, alone, STAGE_2) == estimate(short, half, STAGE_2)
    assert kept(shape=short) == kept(), "conversations that share a row may be longer together"


def test_a_tower_for_pictures_is_counted_with_the_tokens_of_a_picture() -> None:
    pictures = replace(SHAPE, layers=5, hidden=48, attention_width=48, context=17)
    both = replace(SHAPE, pictures=pictures)
    looking = tuple(
        target.model_copy(update={"module": f"vision_model.{target.module}"})
        for target in QUERY_AND_VALUE.targets
    )
    with_pictures = QUERY_AND_VALUE.model_copy(
        update={"targets": QUERY_AND_VALUE.targets + looking}
    )
    pair: dict[str, Any] = {"family": "dual-encoder", "layout": with_pictures}
    tensors = 2 * 48 + 4 * 48 + 4 + 17 + 3 * INNER + HIDDEN + RANK
    more = 17 * FLOAT32_BYTES * (5 * tensors + 2 * 48)
    assert kept(shape=both, **pair) - kept() == more
    assert kept(Choice(micro_batch=3), both, **pair) == 3 * kept(shape=both, **pair)
    saving = Choice(gradient_checkpointing=True)
    ends = 17 * FLOAT32_BYTES * (5 + 2) * 48
    assert kept(saving, both, **pair) - kept(saving) == ends
