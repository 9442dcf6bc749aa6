"""What the ranks do for a personal adapter beyond any training: the records that are set aside for
its gate, and its losses.

Engine and adapter are those of the training that was done.
"""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from data_contracts.dataset.forms.lines import form_of_file
from data_contracts.protocol.records.model_family import CAUSAL
from infra.base_model.context import context_tokens
from silo_agent.training.job import TrainingJob
from silo_agent.training.loss import Loss
from silo_agent.training.personal_part import PersonalMeasures
from silo_agent.training.prompt_gate import chosen_gate, likeness
from silo_agent.training.ranks.gated_measures import BothWays, Measuring
from silo_agent.training.ranks.packed_sequence import PackedSequence
from silo_agent.training.ranks.packing import PackingRule, pack_heldout
from silo_agent.training.ranks.starting_tensors import NamedTensors, starting_tensors
from silo_agent.training.ranks.token_shard import Fit, Places, TokenShard

SET_ASIDE_OF_256 = 26
"""A tenth of the records, by the first byte of a digest of each."""
FEWEST_SET_ASIDE = 4
"""Below so many nothing is set aside, and the personal adapter acts on every record."""


class PartOfShard(TokenShard):
    """Some of a shard's conversations, counted from 0 in their order."""

    def __init__(self, whole: TokenShard, places: Places) -> None:
        self.path, self.records = whole.path, whole.records
        self._whole, self._chosen = whole, places

    def __len__(self) -> int:
        return len(self._chosen)

    @property
    def rest(self) -> "PartOfShard":
        """The other conversations."""
        others = np.setdiff1d(np.arange(len(self._whole)), self._chosen)
        return PartOfShard(self._whole, others)

    def fit(self, places: Places, room: int) -> Fit:
        """As of the whole, for places in the part."""
        return self._whole.fit(self._chosen[places], room)

    def records_of(self, places: Places) -> Places:
        """As of the whole, for places in the part."""
        return self._whole.records_of(self._chosen[places])

    def in_file(self, place: int) -> int:
        """As of the whole, for a place in the part."""
        return self._whole.in_file(int(self._chosen[place]))

    def cut(self, place: int, room: int) -> tuple[list[int], list[int]]:
        """As of the whole, for a place in the part."""
        return self._whole.cut(int(self._chosen[place]), room)


class Trained(Measuring, Protocol):
    """An engine as far as it measures."""

    @property
    def may_pack(self) -> bool: ...

    def put(self, tensors: NamedTensors, adapter: str = ...) -> None: ...


def centre_of(job: TrainingJob, device: torch.device) -> dict[str, torch.Tensor] | None:
    """Where a personal adapter is pulled to, by tensor names; None for every other training."""
    if job.personal is None:
        return None
    tensors = starting_tensors(job.layout, job.personal.centre)
    return {name: torch.from_numpy(np.array(array)).to(device) for name, array in tensors}


def trained_part(job: TrainingJob, shard: TokenShard) -> TokenShard:
    """What a job trains on: all records, but for those that a gate is chosen on."""
    aside = _aside(job, shard)
    return shard if aside is None else PartOfShard(shard, np.flatnonzero(~aside))


def is_set_aside(record: bytes, seed: int) -> bool:
    """Follows from the record alone, so it is the same in all rounds of a run, whatever records
    come or go."""
    drawn = hashlib.sha256(b"%d " % seed + record.strip()).digest()[0]
    return drawn < SET_ASIDE_OF_256


def personal_measures(
    engine: Trained,
    job: TrainingJob,
    adapter: Path,
    trained_on: TokenShard,
    heldout: Sequence[PackedSequence],
) -> PersonalMeasures:
    """What the adapter in a file is worth on held-out records; collective."""

    def put(is_in: bool) -> None:
        engine.put(starting_tensors(job.layout, adapter if is_in else None))

    measuring = BothWays(engine, put)
    if not isinstance(trained_on, PartOfShard):
        own = Loss.of(measuring.answers(heldout, with_it=True)).without_records()
        return PersonalMeasures(own=own, used=own)
    rest, length = trained_on.rest, job.recipe.sequence_length
    rule = PackingRule(length, engine.may_pack, context_tokens(job.model_dir))
    some = {"limit": job.heldout_sequences, "seed": job.layout.seed}
    prompts = measuring.states(pack_heldout(trained_on, rule, **some))
    centre = [math.fsum(values) / len(prompts) for values in zip(*prompts, strict=True)]
    known = [likeness(state, centre) for state in prompts]
    gate = chosen_gate(centre, measuring.of(pack_heldout(rest, rule, **some), centre), known)
    found = measuring.of(heldout, centre)
    return PersonalMeasures(
        own=Loss.of(found.with_it).without_records(),
        used=Loss.of(found.mixed(gate)).without_records(),
        frozen_alone=Loss.of(found.without).without_records(),
        gate=gate,
        chosen_for=found.share(gate),
        set_aside=len(rest),
    )


def _aside(job: TrainingJob, shard: TokenShard) -> NDArray[np.bool_] | None:
    """Which conversations are set aside, with the record that they are of; None where that is not
    asked for, or there are too few."""
    if job.personal is None or not job.personal.is_mixed:
        return None
    if job.task.family != CAUSAL or form_of_file(job.train_records).name == "text":
        # Without prompts there is nothing that a gate could ask.
        return None
    with job.train_records.open("rb") as lines:
        drawn = (is_set_aside(line, job.layout.seed) for line in lines if line.strip())
        aside = np.fromiter(drawn, dtype=np.bool_)
    # Of some records there are several conversations, which stay together.
    records = shard.records_of(np.arange(len(shard)))
    is_enough = FEWEST_SET_ASIDE <= aside.sum() < len(aside)
    return aside[records] if is_enough and len(aside) == records[-1] + 1 else None
