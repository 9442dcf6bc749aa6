"""A DeepSpeed engine around the LoRA model: build, one step, checkpoints, gathering the adapter.

The gradient of a step is that of (sum of losses) / (how much the whole step asks: answer tokens, or
what else the model's family predicts), over all sequences of all ranks, plus the proximal term if
the recipe has one, so the number of ranks does not change the result. What is not trained leaves as
the very bytes that came in.

An engine does one job after another. `begin` makes it what it was when it was built, so a job's
adapter is the same, bit for bit, on an engine that has been used and on a new one: working and
float32 values of the parameters, moments and step of the optimizer, and all counters.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist

from data_contracts.adapters.starting_adapter import Float32Array
from data_contracts.errors import SiloOperatorError
from silo_agent.training.engine_spec import EngineSpec
from silo_agent.training.job import TrainingJob
from silo_agent.training.loss import HeldoutSums
from silo_agent.training.ranks.base_model import together
from silo_agent.training.ranks.checkpoints import ResumePoint, mark_complete, newest_complete
from silo_agent.training.ranks.devices import loading_device
from silo_agent.training.ranks.engine_state import optimizer_steps, reset, whole_value
from silo_agent.training.ranks.families.family import Family
from silo_agent.training.ranks.families.registry import family_of
from silo_agent.training.ranks.lora_model import (
    ADAPTER_NAME,
    RESIDUAL_NAME,
    load_lora_model,
    placed_parameters,
    set_adapter,
    trained_parameters,
    without_adapters,
)
from silo_agent.training.ranks.packed_sequence import PackedSequence, answer_tokens, micro_batches
from silo_agent.training.ranks.personal_measures import centre_of
from silo_agent.training.ranks.process_group import of_first_rank
from silo_agent.training.ranks.proximal_term import ProximalTerm
from silo_agent.training.ranks.quantised import compute_as_in_training
from silo_agent.training.ranks.starting_tensors import (
    NamedTensors,
    begun_tensors,
    left_tensors,
    starting_tensors,
)
from silo_agent.training.ranks.zero_settings import (
    deepspeed_config,
    leave_stage_3,
    stage_3_config,
)


class LoraEngine:
    """Trains one adapter at a time on this rank; every method is collective over the ranks."""

    def __init__(self, spec: EngineSpec) -> None:
        self.spec, self._rank = spec, dist.get_rank()
        self._device = loading_device(spec.device)
        self.family: Family = family_of(spec.task)
        """With what it has loaded beside the model: another of the same task has nothing."""
        self.family.load_beside(spec.model_dir, self._device)
        config = deepspeed_config(spec)
        self._stage_3_config = stage_3_config(config) if spec.zero_stage == 3 else None
        model = load_lora_model(
            spec.model_dir,
            spec.layout,
            spec.device,
            residual=spec.residual_layout,
            trained=spec.trained,
            held=spec.held,
            task=spec.task,
        )
        if spec.gradient_checkpointing:
            self.family.recompute(model, partitioned=spec.zero_stage == 3)
        trainable = list(trained_parameters(model).values())
        self._engine, *_ = deepspeed.initialize(
            model=model, model_parameters=trainable, config=config
        )
        self._first_steps = optimizer_steps(self._optimizer)
        self._job: TrainingJob | None = None
        self._proximal: ProximalTerm | None = None

    def begin(self, job: TrainingJob) -> None:
        """Take the job's starting adapter as if the engine had just been built for it.

        Raises UntrustedInputError when a file is not an adapter of the job's layout.
        """
        if job.engine != self.spec:
            raise ValueError("the job is not one of this engine")
        self.end()
        torch.manual_seed(job.recipe.seed % 2**63)
        self.put(begun_tensors(job))
        if self.spec.residual_layout is not None:
            residual = starting_tensors(self.spec.residual_layout, job.starting_residual)
            self.put(residual, RESIDUAL_NAME)
        self._engine.optimizer.refresh_fp32_params()
        reset(self._optimizer, self._first_steps)
        self._engine.global_steps = self._engine.global_samples = 0
        self._engine.micro_steps = self._engine.skipped_steps = 0
        self._job = job
        self._proximal = self._proximal_term(job)

    def end(self) -> None:
        """Leave the job, so that nothing of it acts on the next."""
        if self._proximal is not None:
            self._proximal.end()
        self._job = self._proximal = None

    def put(self, tensors: NamedTensors, adapter: str = ADAPTER_NAME) -> None:
        """Put an adapter into the model; training goes on from what `begin` took."""
        parameters = list(placed_parameters(self._engine.module, adapter).values())
        with together(parameters):
            set_adapter(self._engine.module, tensors, adapter)

    @cached_property
    def may_pack(self) -> bool:
        """Whether conversations may share a sequence, asked once; see `packing_check`."""
        return self.family.may_pack(self._asked, self._device)

    @cached_property
    def may_batch(self) -> bool:
        """Whether sequences may go through the model side by side, asked once as `may_pack` is."""
        together = self.may_pack
        return self.family.may_batch(self._asked, self._device, together=together)

    def step(self, index: int, sequences: Sequence[PackedSequence]) -> float:
        """Train on one step's sequences (of all ranks); returns its mean loss, of what is asked.

        `index` counts from 0; the loss is that of the data, without the proximal term. Raises
        SiloOperatorError when it is not finite.
        """
        self._engine.train()
        ranks, tokens = self.spec.ranks, answer_tokens(sequences)
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        self._set_learning_rate(index)
        if self._proximal is not None:
            self._proximal.begin_step()
        own = sequences[self._rank :: ranks]
        size = self.spec.micro_batch
        summed_loss = self.family.step_loss(self._engine, own, size, self._device)
        for micro_batch in micro_batches(own, size):
            loss = summed_loss(micro_batch)
            # DeepSpeed averages gradients over the ranks; times `ranks` makes it the sum.
            self._engine.backward(loss * (ranks / tokens), scale_wrt_gas=False)
            self._engine.step()
            total += loss.detach().double()
        dist.all_reduce(total)
        mean = total.item() / tokens
        if not math.isfinite(mean):
            raise SiloOperatorError(
                f"local training at step {index + 1}",
                expected="a finite loss",
                found=f"{mean}",
                action="ask the federation operator for a plan with a lower learning rate",
            )
        return mean

    def in_training(self) -> tuple[Any, torch.device]:
        """The model as it trains, and where it is, for gradients that are not made by the engine;
        forward passes are collective at stage 3."""
        self._engine.train()
        return self._engine.module, self._device

    def step_along(self, index: int, gradients: Mapping[str, torch.Tensor]) -> None:
        """Step `index` with gradients of the trained tensors, the same on every rank.

        They take the way of all gradients, through DeepSpeed: they are those of a product.
        """
        self._engine.train()
        self._set_learning_rate(index)
        trained = trained_parameters(self._engine.module)
        products = [(p * gradients[name].to(p.dtype)).sum() for name, p in trained.items()]
        self._engine.backward(torch.stack(products).sum(), scale_wrt_gas=False)
        self._engine.step()

    def heldout(self, sequences: Sequence[PackedSequence], *, adapter: bool = True) -> HeldoutSums:
        """Sums of held-out records under the adapter as it is now, or the base model alone."""
        ranks = self.spec.ranks
        self._engine.eval()
        module = self._engine.module
        counts = [tokens for each in sequences for tokens in each.record_answer_tokens]
        places = list(accumulate((len(each.record_starts) for each in sequences), initial=0))
        found = torch.empty(0)
        with torch.no_grad(), nullcontext() if adapter else without_adapters(module):
            # At ZeRO-3 every forward pass is collective, so each rank does the same number.
            for start in range(0, len(sequences), ranks):
                position = start + self._rank
                own = sequences[min(position, len(sequences) - 1)]
                measured = self.family.measured(module, own, self._device)
                if not start:
                    found = measured.new_zeros(len(counts), measured.shape[1])
                if position < len(sequences):
                    found[places[position] : places[position + 1]] = measured
        dist.all_reduce(found)
        return self.family.scores(found).sums(counts)

    def measured_model(self) -> tuple[Any, torch.device]:
        """The model as it measures, and where it is; forward passes are collective at stage 3."""
        self._engine.eval()
        return self._engine.module, self._device

    def adapter(self) -> dict[str, Float32Array]:
        """Every tensor of the file that training leaves, in full, in float32, on every rank."""
        parameters = trained_parameters(self._engine.module)
        tensors = {name: whole_value(each).cpu().numpy() for name, each in parameters.items()}
        return tensors if self.spec.trained == "both" else left_tensors(self._running, tensors)

    def save_checkpoint(self, directory: Path, point: ResumePoint, fingerprint: str) -> None:
        """Save optimizer and adapter, then the marker that makes it count, then drop older ones."""
        self._engine.save_checkpoint(
            str(directory), tag=point.tag, save_latest=False, exclude_frozen_parameters=True
        )
        dist.barrier()
        if self._rank == 0:
            mark_complete(directory, point, fingerprint)
        dist.barrier()

    def load_checkpoint(self, directory: Path, fingerprint: str) -> ResumePoint | None:
        """Go back to the newest complete checkpoint of this very job, if there is one."""
        point = of_first_rank(lambda: newest_complete(directory, fingerprint))
        if point is not None:
            self._engine.load_checkpoint(str(directory), tag=point.tag, load_module_strict=False)
        dist.barrier()
        return point

    def close(self) -> None:
        """Free the engine's hooks, buffers and model before another one is built."""
        self._engine.destroy()
        del self._engine
        if self.spec.zero_stage == 3:
            self._stage_3_config = None
            leave_stage_3()

    @property
    def _asked(self) -> Any:
        """The model without dropout, else as it trains."""
        self._engine.eval()
        compute_as_in_training(self._engine.module)
        return self._engine.module

    @property
    def _running(self) -> TrainingJob:
        if self._job is None:
            raise ValueError("no job has begun")
        return self._job

    @property
    def _optimizer(self) -> torch.optim.Optimizer:
        """PyTorch's, below the one that partitions."""
        optimizer: torch.optim.Optimizer = self._engine.optimizer.optimizer
        return optimizer

    def _set_learning_rate(self, index: int) -> None:
        recipe = self._running.recipe
        share = min(1.0, (index + 1) / (recipe.warmup_steps + 1))
        for group in self._engine.optimizer.param_groups:
            group["lr"] = float(recipe.learning_rate) * share

    def _proximal_term(self, job: TrainingJob) -> ProximalTerm | None:
        mu = float(job.recipe.proximal_mu)
        if mu == 0:
            return None
        parameters = trained_parameters(self._engine.module)
        centre = centre_of(job, self._device)
        return ProximalTerm(parameters, mu, self.spec.backward_passes, whole_value, centre)
