"""One differentially private training of an adapter, a step at a time (Abadi et al. 2016).

A step draws units, cuts the gradient of each to one norm over all trained tensors, adds them up
over the ranks, adds Gaussian noise once, and divides by how many units are expected, whatever was
drawn. What the optimizer is given is that alone. DeepSpeed never sees a gradient of the data.

All that is drawn follows from the silo's secret, the job's fingerprint and the number of the step
(`secret_numbers`), never from a plan's seed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
import torch.distributed as dist

from silo_agent.training.engine_spec import EngineSpec
from silo_agent.training.job import TrainingJob
from silo_agent.training.private_part import PrivatePart
from silo_agent.training.ranks.families.family import Family
from silo_agent.training.ranks.lora_model import trained_parameters
from silo_agent.training.ranks.packing import PackingRule
from silo_agent.training.ranks.private.clipping import ClippedSum
from silo_agent.training.ranks.private.draw import DrawnUnit, Population
from silo_agent.training.ranks.private.micro_batches import MicroBatch, micro_batches, shared_out
from silo_agent.training.ranks.private.noise import add_noise
from silo_agent.training.ranks.private.record_gradients import RecordGradients
from silo_agent.training.ranks.private.record_places import RecordPlaces
from silo_agent.training.ranks.private.secret_numbers import SecretNumbers
from silo_agent.training.ranks.token_shard import TokenShard


class Stepped(Protocol):
    """An engine, `LoraEngine` in the ranks, as far as it is given gradients."""

    @property
    def spec(self) -> EngineSpec: ...

    @property
    def family(self) -> Family: ...

    def in_training(self) -> tuple[Any, torch.device]: ...

    def step_along(self, index: int, gradients: Mapping[str, torch.Tensor]) -> None: ...


@dataclass
class Seen:
    """Of what a step drew: the summed loss, how much was asked, and tokens. Not private."""

    loss: float = 0.0
    asked: int = 0
    tokens: int = 0


class PrivateSteps:
    """The steps of `job` on an engine that has begun it; every method is collective.

    Raises SiloOperatorError where secret or units are not what they should be, and
    FederationOperatorError for layers that cannot be trained so.
    """

    def __init__(
        self,
        engine: Stepped,
        job: TrainingJob,
        private: PrivatePart,
        fingerprint: str,
        shard: TokenShard,
        rule: PackingRule,
    ) -> None:
        self._engine, self._private = engine, private
        self._numbers = SecretNumbers(private.secret, fingerprint)
        self._population = Population(shard, rule.room, private)
        self._shard, self._rule, self._round = shard, rule, job.round
        self._family = engine.family
        self._model, self._device = engine.in_training()
        trained = trained_parameters(self._model)
        self._gradients = RecordGradients(self._model, trained, self._device)

    def step(self, index: int) -> Seen:
        """Step `index`, counted from 0; what was seen on all ranks."""
        rank, ranks = dist.get_rank(), self._engine.spec.ranks
        drawn = self._population.drawn(self._numbers, index)
        total, seen = self._clipped(shared_out(drawn, ranks)[rank], index)
        private = self._private
        deviation = float(private.noise_multiplier * private.clipping_norm)
        add_noise(total.values, deviation, self._numbers.key("noise", index), rank, ranks)
        dist.all_reduce(total.values)
        total.values.div_(private.expected_units)
        self._engine.step_along(index, total.by_name())
        return self._of_all(seen)

    def end(self) -> None:
        """Leave the model as it was."""
        self._gradients.end()

    def _clipped(self, units: list[DrawnUnit], index: int) -> tuple[ClippedSum, Seen]:
        """The sum over this rank's units."""
        shapes = {name: p.shape for name, p in self._gradients.parameters.items()}
        total, seen = ClippedSum(shapes, float(self._private.clipping_norm), self._device), Seen()
        self._engine.in_training()
        self._seed_dropout(index)
        size = self._engine.spec.micro_batch
        for some in micro_batches(units, self._shard, self._rule, size, draw=self._round):
            self._add(some, total, seen)
        return total, seen

    def _add(self, some: MicroBatch, total: ClippedSum, seen: Seen) -> None:
        places = RecordPlaces(some.sequences, self._device)
        compute = partial(self._family.batch_loss, self._model, some.sequences, self._device)
        loss, gradients = self._gradients.of(places, compute)
        total.add(gradients, [some.parts[record] for record in places.order], some.done)
        seen.loss += loss.double().item()
        seen.asked += sum(each.answer_tokens for each in some.sequences)
        seen.tokens += sum(len(each.token_ids) for each in some.sequences)

    def _seed_dropout(self, index: int) -> None:
        """By the secret as well, and other numbers on every rank."""
        words = self._numbers.words("dropout", index, self._engine.spec.ranks)
        torch.manual_seed(int(words[dist.get_rank()]) % 2**63)

    def _of_all(self, seen: Seen) -> Seen:
        found = torch.tensor([seen.loss, seen.asked, seen.tokens], dtype=torch.float64)
        found = found.to(self._device)
        dist.all_reduce(found)
        loss, asked, tokens = found.tolist()
        return Seen(loss, int(asked), int(tokens))
