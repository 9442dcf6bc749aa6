"""Readiness of memory: the newest plan beside what a training process may take, in one line.

Without a plan it is the largest model of the policy at the policy's own limits: whoever reads it
learns before any plan whether one at these limits would be refused.
"""

from pathlib import Path

import psutil

from data_contracts.errors import ConsortiaError
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget
from infra.base_model.model_shape import ModelShape, model_shape
from infra.base_model.weight_files import Weights, read_weights
from silo_agent.config import SiloConfig
from silo_agent.policy.policy_file import AllowedModel, Limits
from silo_agent.readiness.checklist import Item, of_fault, there, wrong
from silo_agent.readiness.facts import Facts
from silo_agent.training.memory_plan import MemoryPlan, memory_plan, sequences_per_rank
from silo_agent.training.memory_room import gigabytes, room_of
from silo_agent.training.precision import held_as
from silo_agent.training.rank_work import Choice, Work

NAME = "memory"
SETTINGS = "zero_stage, micro_batch and gradient_checkpointing in silo-agent.toml"


def memory(facts: Facts) -> list[Item]:
    """What a training process takes at its peak, and whether there is so much."""
    if facts.policy.policy is None:
        return []
    plan = facts.plan
    allowed = facts.policy.policy.model(plan.base_model.digest) if plan is not None else None
    try:
        if plan is not None and allowed is not None:
            planned = memory_plan(facts.config.path(allowed.path), plan, facts.config)
            return [_of_plan(planned, f"round {plan.round}")]
        return [_of_limits(facts, facts.policy.policy.models, facts.policy.policy.limits)]
    except ConsortiaError as error:
        return [Item(NAME, "not checked", of_fault(NAME, error).detail)]
    except OSError as error:
        return [Item(NAME, "not checked", str(error))]


def _of_plan(planned: MemoryPlan, which: str) -> Item:
    shown = planned.shown
    needed, words = shown.estimate.total_bytes, choice_words(shown.choice)
    detail = f"{which} takes {gigabytes(needed)} a training process ({words}); {there_is(planned)}"
    if planned.chosen is None:
        return wrong(NAME, detail, f'set {SETTINGS} to "auto" where they are not, or lower ranks')
    free, all_ranks = psutil.virtual_memory().available, needed * planned.work.ranks
    if planned.work.device == "cpu" and free < all_ranks:
        detail += f"; only {gigabytes(free)} are free at the moment"
        return Item(NAME, "warning", detail, "end other programs before a round begins")
    return there(NAME, detail)


def _of_limits(facts: Facts, models: tuple[AllowedModel, ...], limits: Limits) -> Item:
    """A warning at most: the limits are what the silo agrees to, not what it is asked for."""
    folders = [facts.config.path(model.path) for model in models]
    largest = max(folders, key=lambda folder: model_shape(folder).parameters)
    planned = by_hand(
        facts.config,
        largest,
        layout_of_headers(read_weights(largest), model_shape(largest), limits.max_rank),
        length=limits.max_sequence_length,
        sequences=limits.max_sequences_per_step,
    )
    sizes = f"length {limits.max_sequence_length:,}, rank {limits.max_rank}"
    item = _of_plan(planned, f"a plan at the policy's limits ({sizes})")
    if item.state == "there":
        return item
    step = f'it would be refused: lower the policy\'s limits, or set {SETTINGS} to "auto"'
    return Item(NAME, "warning", item.detail, step if planned.chosen is None else item.next_step)


def by_hand(
    config: SiloConfig,
    model_dir: Path,
    layout: AdapterLayout,
    *,
    length: int,
    sequences: int,
    steps: int = 0,
) -> MemoryPlan:
    """As for a plan of one layout and no residual, with `sequences` in each of `steps` steps.

    A dual personal adapter is trained beside such a layout.
    """
    training = config.training
    work = Work(
        layout=layout,
        residual_layout=layout if config.personal.method == "dual" else None,
        trained="both",
        sequence_length=length,
        round_tokens=min(steps, training.steps_at_most or steps) * sequences * length,
        ranks=training.ranks,
        device=training.device,
        held=held_as(config),
    )
    each = sequences_per_rank(sequences, training)
    return MemoryPlan(model_shape(model_dir), work, each, training, room_of(training))


def layout_of_headers(weights: Weights, shape: ModelShape, rank: int) -> AdapterLayout:
    """LoRA on every matrix of a layer, near enough to what the model itself would say."""
    targets = [
        AdapterTarget(
            module=name.removesuffix(".weight"),
            in_features=tensor.shape[1],
            out_features=tensor.shape[0],
        )
        for name, tensor in weights.items()
        if len(tensor.shape) == 2 and ".experts." not in name and _is_of_a_layer(name)
    ]
    whole = AdapterTarget(module="all", in_features=shape.hidden, out_features=shape.hidden)
    return AdapterLayout(rank=rank, alpha=rank, seed=0, targets=tuple(targets) or (whole,))


def choice_words(choice: Choice) -> str:
    """A choice in a few words."""
    words = [f"stage {choice.zero_stage}", f"micro-batch {choice.micro_batch}"]
    if choice.gradient_checkpointing:
        words.append("gradient checkpointing")
    if choice.offload != "none":
        words.append(f"offload to {choice.offload}")
    return ", ".join(words)


def there_is(planned: MemoryPlan) -> str:
    """The room of a training process and where it is from."""
    room = planned.room
    if room.size_bytes is None:
        return f"how much there is, is not known: {room.source}"
    return f"{gigabytes(room.size_bytes)} are there ({room.source})"


def _is_of_a_layer(name: str) -> bool:
    return any(part.isdigit() for part in name.split("."))
