"""A DeepSpeed engine around the LoRA model: build, one step, checkpoints, gathering the adapter.

The gradient of a step is that of (sum of answer-token losses) / (answer tokens of the whole step),
over all sequences of all ranks, plus the proximal term if the recipe has one, so the number of
ranks does not change the result. What is not trained leaves as the very bytes that came in.
"""

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from pydantic import TypeAdapter

from data_contracts.adapters.starting_adapter import Float32Array
from data_contracts.errors import SiloOperatorError
from infra.disk.durable_files import write_durably
from silo_agent.training.job import TrainingJob
from silo_agent.training.loss import RecordSums
from silo_agent.training.ranks.lora_model import (
    RESIDUAL_NAME,
    answer_nll,
    load_lora_model,
    record_nll,
    set_adapter,
    trained_parameters,
    without_adapters,
)
from silo_agent.training.ranks.packing import PackedSequence, answer_tokens
from silo_agent.training.ranks.packing_check import may_pack
from silo_agent.training.ranks.proximal_term import ProximalTerm
from silo_agent.training.ranks.starting_tensors import starting_tensors

NEVER = 10**9


@dataclass(frozen=True)
class ResumePoint:
    """What a checkpoint knows besides tensors. `step` counts finished steps.

    Held-out losses are those from before training, None where the job did not ask for them.
    """

    step: int
    tokens: int
    seconds: float
    first_step_loss: float
    last_step_loss: float
    base: RecordSums | None
    starting: RecordSums | None


def deepspeed_config(job: TrainingJob) -> dict[str, Any]:
    """The whole DeepSpeed configuration; the learning rate is set before each step."""
    recipe = job.recipe
    optimizer = {
        "lr": float(recipe.learning_rate),
        "weight_decay": float(recipe.weight_decay),
        # PyTorch's AdamW: DeepSpeed's own would be compiled at first use.
        "torch_adam": True,
    }
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": job.micro_batches_per_rank,
        "gradient_clipping": float(recipe.max_gradient_norm),
        "optimizer": {"type": "AdamW", "params": optimizer},
        "zero_optimization": {"stage": job.zero_stage, "overlap_comm": job.device == "cuda"},
        "bf16": {"enabled": job.device == "cuda"},
        "steps_per_print": NEVER,
    }


class LoraEngine:
    """One adapter in training on this rank; every method is collective over the ranks."""

    def __init__(self, job: TrainingJob) -> None:
        self._job = job
        self._rank = dist.get_rank()
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        self._device = torch.device("cuda", local_rank) if job.device == "cuda" else _CPU
        config = deepspeed_config(job)
        self._stage_3_config = _stage_3_config(config) if job.zero_stage == 3 else None
        model = _starting_model(job)
        trainable = list(trained_parameters(model).values())
        self._engine, *_ = deepspeed.initialize(
            model=model, model_parameters=trainable, config=config
        )
        self._proximal = _proximal_term(job, self._engine.module)

    def may_pack(self) -> bool:
        """Whether conversations may share a sequence; see `packing_check`."""
        self._engine.eval()
        return may_pack(self._engine.module, self._device)

    def step(self, index: int, sequences: Sequence[PackedSequence]) -> float:
        """Train on one step's sequences (of all ranks); returns its mean loss per answer token.

        `index` counts from 0; the loss is that of the data, without the proximal term. Raises
        SiloOperatorError when it is not finite.
        """
        self._engine.train()
        ranks, tokens = self._job.ranks, answer_tokens(sequences)
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        self._set_learning_rate(index)
        if self._proximal is not None:
            self._proximal.begin_step()
        for sequence in sequences[self._rank :: ranks]:
            nll = answer_nll(self._engine, sequence, self._device)
            # DeepSpeed averages gradients over the ranks; times `ranks` makes it the sum.
            self._engine.backward(nll * (ranks / tokens), scale_wrt_gas=False)
            self._engine.step()
            total += nll.detach().double()
        dist.all_reduce(total)
        loss = total.item() / tokens
        if loss != loss or loss in (float("inf"), float("-inf")):
            raise SiloOperatorError(
                f"local training at step {index + 1}",
                expected="a finite loss",
                found=f"{loss}",
                action="ask the federation operator for a plan with a lower learning rate",
            )
        return loss

    def heldout(self, sequences: Sequence[PackedSequence], *, adapter: bool = True) -> RecordSums:
        """Sums of held-out records under the adapter as it is now, or the base model alone."""
        ranks = self._job.ranks
        self._engine.eval()
        module = self._engine.module
        counts = [tokens for each in sequences for tokens in each.record_answer_tokens]
        nats = torch.zeros(len(counts), dtype=torch.float64, device=self._device)
        places = list(accumulate((len(each.record_starts) for each in sequences), initial=0))
        with torch.no_grad(), nullcontext() if adapter else without_adapters(module):
            # At ZeRO-3 every forward pass is collective, so each rank does the same number.
            for start in range(0, len(sequences), ranks):
                position = start + self._rank
                own = sequences[min(position, len(sequences) - 1)]
                nll = record_nll(module, own, self._device)
                if position < len(sequences):
                    nats[places[position] : places[position + 1]] = nll
        dist.all_reduce(nats)
        return tuple(zip(nats.tolist(), counts, strict=True))

    def adapter(self) -> dict[str, Float32Array]:
        """Every adapter tensor in full and in float32, on every rank.

        A factor that is not trained is taken from the file: on CUDA the model rounds it to
        bfloat16.
        """
        tensors: dict[str, Float32Array] = {}
        if self._job.recipe.trained_factors != "both":
            tensors.update(starting_tensors(self._job.layout, self._job.starting_adapter))
        for name, parameter in trained_parameters(self._engine.module).items():
            tensors[name] = _whole(parameter).cpu().numpy()
        return tensors

    def save_checkpoint(self, directory: Path, point: ResumePoint, fingerprint: str) -> None:
        """Save optimizer and adapter, then the marker that makes it count, then drop older ones."""
        tag = f"step-{point.step}"
        self._engine.save_checkpoint(
            str(directory), tag=tag, save_latest=False, exclude_frozen_parameters=True
        )
        dist.barrier()
        if self._rank == 0:
            marker = {"fingerprint": fingerprint, "point": asdict(point)}
            write_durably(directory / MARKER_NAME, json.dumps(marker).encode())
            _remove_checkpoints(directory, keep=tag)
        dist.barrier()

    def load_checkpoint(self, directory: Path, fingerprint: str) -> ResumePoint | None:
        """Go back to the newest complete checkpoint of this very job, if there is one."""
        point = _resume_point(directory, fingerprint)
        if point is not None:
            self._engine.load_checkpoint(
                str(directory), tag=f"step-{point.step}", load_module_strict=False
            )
        dist.barrier()
        return point

    def close(self) -> None:
        """Free the engine's hooks, buffers and model before another one is built."""
        self._engine.destroy()
        del self._engine

    def _set_learning_rate(self, index: int) -> None:
        recipe = self._job.recipe
        share = min(1.0, (index + 1) / (recipe.warmup_steps + 1))
        for group in self._engine.optimizer.param_groups:
            group["lr"] = float(recipe.learning_rate) * share


MARKER_NAME = "complete.json"
_CPU = torch.device("cpu")


def _stage_3_config(config: dict[str, Any]) -> Any:
    """Tells `from_pretrained` to partition while loading; works as long as it is referenced."""
    from transformers.integrations import HfDeepSpeedConfig

    return HfDeepSpeedConfig(config)


def _starting_model(job: TrainingJob) -> Any:
    residual = job.residual_layout if job.starting_residual is not None else None
    model = load_lora_model(
        job.model_dir,
        job.layout,
        job.device,
        residual=residual,
        trained=job.recipe.trained_factors,
    )
    set_adapter(model, starting_tensors(job.layout, job.starting_adapter))
    if residual is not None:
        set_adapter(model, starting_tensors(residual, job.starting_residual), RESIDUAL_NAME)
    return model


def _proximal_term(job: TrainingJob, module: Any) -> ProximalTerm | None:
    mu = float(job.recipe.proximal_mu)
    if mu == 0:
        return None
    return ProximalTerm(trained_parameters(module), mu, job.micro_batches_per_rank, _whole)


def _whole(parameter: torch.nn.Parameter) -> torch.Tensor:
    """The optimizer's float32 value of a parameter, put together from all ranks."""
    full: torch.Tensor = deepspeed.utils.safe_get_full_fp32_param(parameter)
    return full.detach().float()


def _resume_point(directory: Path, fingerprint: str) -> ResumePoint | None:
    """None also for a marker that another version of this program wrote."""
    try:
        marker = json.loads((directory / MARKER_NAME).read_bytes())
        if marker["fingerprint"] != fingerprint:
            return None
        return TypeAdapter(ResumePoint).validate_python(marker["point"])
    except (FileNotFoundError, ValueError):
        return None


def _remove_checkpoints(directory: Path, keep: str) -> None:
    for path in directory.glob("step-*"):
        if path.name != keep:
            shutil.rmtree(path)
