"""What every rank does in one round; the top-level function reads in the order of the work."""

import time
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import torch.distributed as dist

from silo_agent.training.job import PackingCounts, TrainingJob, TrainingResult
from silo_agent.training.ranks.adapter_file import write_adapter
from silo_agent.training.ranks.engine import LoraEngine, ResumePoint
from silo_agent.training.ranks.lora_model import load_tokenizer
from silo_agent.training.ranks.packing import (
    PackedSequence,
    answer_tokens,
    pack_heldout,
    pack_training,
)
from silo_agent.training.ranks.process_group import join_ranks, peak_rss_bytes
from silo_agent.training.ranks.record_sums import RecordSums, mean_loss
from silo_agent.training.run_files import (
    ProgressWriter,
    RunFiles,
    StepMeter,
    read_result,
    write_result,
)


@dataclass(frozen=True)
class _Data:
    train: list[PackedSequence]
    heldout: list[PackedSequence]
    packing: PackingCounts


@dataclass(frozen=True)
class _Part:
    """One adapter's training: the federated one or the silo-only baseline."""

    name: str
    job: TrainingJob
    adapter: Path
    measures_before: bool
    measures_after: bool


@dataclass(frozen=True)
class _Trained:
    point: ResumePoint
    resumed_from_step: int
    after: RecordSums | None


def train_rank(job: TrainingJob, fingerprint: str) -> None:
    """Train, measure, save; raises ConsortiaError kinds for what a person can act on."""
    join_ranks(job)
    files = RunFiles(job.output_dir)
    progress = ProgressWriter(files.progress if dist.get_rank() == 0 else None)
    data = _packed(job, progress)
    result = read_result(files.result, TrainingResult, fingerprint)
    if result is None:
        measures_after = job.measure_local or _baseline_is_the_local_adapter(job)
        federated = _Part("training", job, files.adapter, True, measures_after)
        trained = _train_part(federated, data, fingerprint, progress)
        result = _result(data, trained, files.adapter)
        _publish(files, result, fingerprint)
    if job.silo_only.enabled and result.silo_only_adapter is None:
        _publish(
            files, _with_baseline(job, result, data, fingerprint, files, progress), fingerprint
        )
    dist.barrier()
    dist.destroy_process_group()


def _packed(job: TrainingJob, progress: ProgressWriter) -> _Data:
    progress.phase("packing")
    recipe, tokenizer = job.recipe, load_tokenizer(job.model_dir)
    train, counts = pack_training(
        tokenizer,
        job.train_records,
        length=recipe.sequence_length,
        count=recipe.local_steps * recipe.sequences_per_step,
        seed=recipe.seed,
        round_number=job.round,
    )
    heldout = pack_heldout(
        tokenizer,
        job.heldout_records,
        length=recipe.sequence_length,
        limit=job.heldout_sequences,
        # Not the recipe's seed, which changes with the round: losses of all rounds are compared.
        seed=job.layout.seed,
    )
    return _Data(train, heldout, counts)


def _train_part(part: _Part, data: _Data, fingerprint: str, progress: ProgressWriter) -> _Trained:
    progress.phase(f"{part.name}: loading the model")
    engine = LoraEngine(part.job)
    checkpoints = RunFiles(part.job.output_dir).checkpoints / part.name
    resumed = engine.load_checkpoint(checkpoints, fingerprint)
    point = resumed or _before_training(part, engine, data, progress)
    start = point.step
    point = _steps(part, engine, data, point, checkpoints, fingerprint, progress)
    after = None
    if part.measures_after:
        progress.phase(f"{part.name}: held-out loss")
        after = engine.heldout(data.heldout)
    tensors = engine.adapter()
    if dist.get_rank() == 0:
        write_adapter(part.adapter, part.job.layout, tensors)
    engine.close()
    return _Trained(point, start, after)


def _before_training(
    part: _Part, engine: LoraEngine, data: _Data, progress: ProgressWriter
) -> ResumePoint:
    job, starting, base = part.job, None, None
    # B is zero without a starting adapter, so base and starting adapter are the same model.
    same = job.starting_adapter is None and job.starting_residual is None
    if part.measures_before and (job.measure_starting or (job.measure_base and same)):
        progress.phase("held-out loss before training")
        starting = engine.heldout(data.heldout)
    if part.measures_before and job.measure_base:
        base = starting if same else engine.heldout(data.heldout, adapter=False)
    return ResumePoint(0, 0, 0.0, 0.0, 0.0, base, starting)


def _steps(
    part: _Part,
    engine: LoraEngine,
    data: _Data,
    point: ResumePoint,
    checkpoints: Path,
    fingerprint: str,
    progress: ProgressWriter,
) -> ResumePoint:
    job = part.job
    steps, size = job.recipe.local_steps, job.recipe.sequences_per_step
    meter = StepMeter(part.name, point.step, steps)
    for index in range(point.step, steps):
        began = time.monotonic()
        sequences = data.train[index * size : (index + 1) * size]
        loss = engine.step(index, sequences)
        tokens = sum(len(sequence.token_ids) for sequence in sequences)
        point = ResumePoint(
            step=index + 1,
            tokens=point.tokens + tokens,
            seconds=point.seconds + time.monotonic() - began,
            first_step_loss=point.first_step_loss if index else loss,
            last_step_loss=loss,
            base=point.base,
            starting=point.starting,
        )
        progress.report(meter.after(index + 1, loss, tokens))
        if job.checkpoint_every_steps and (index + 1) % job.checkpoint_every_steps == 0:
            engine.save_checkpoint(checkpoints, point, fingerprint)
    return point


def _result(data: _Data, trained: _Trained, adapter: Path) -> TrainingResult:
    point = trained.point
    return TrainingResult(
        adapter=adapter,
        tokens=point.tokens,
        steps=point.step,
        resumed_from_step=trained.resumed_from_step,
        first_step_loss=point.first_step_loss,
        last_step_loss=point.last_step_loss,
        seconds=point.seconds,
        tokens_per_second=point.tokens / max(point.seconds, 1e-6),
        peak_rss_bytes_per_rank=peak_rss_bytes(),
        packing=data.packing,
        base_loss=_mean(point.base),
        starting_loss=_mean(point.starting),
        local_loss=_mean(trained.after),
        heldout_tokens=answer_tokens(data.heldout),
        base_records=point.base or (),
        starting_records=point.starting or (),
    )


def _with_baseline(
    job: TrainingJob,
    result: TrainingResult,
    data: _Data,
    fingerprint: str,
    files: RunFiles,
    progress: ProgressWriter,
) -> TrainingResult:
    """Add the silo-only baseline: trained, or the local adapter itself where both start equal."""
    if _baseline_is_the_local_adapter(job):
        adapter, loss = result.adapter, result.local_loss
    else:
        adapter = files.silo_only_adapter
        part = _Part("silo-only training", _baseline_job(job), adapter, False, True)
        loss = _mean(_train_part(part, data, fingerprint, progress).after)
    update = {
        "silo_only_loss": loss,
        "silo_only_adapter": adapter,
        "peak_rss_bytes_per_rank": max(result.peak_rss_bytes_per_rank, peak_rss_bytes()),
    }
    return result.model_copy(update=update)


def _mean(sums: RecordSums | None) -> float | None:
    return mean_loss(sums) if sums else None


def _baseline_is_the_local_adapter(job: TrainingJob) -> bool:
    return job.silo_only.enabled and _baseline_job(job) == job


def _baseline_job(job: TrainingJob) -> TrainingJob:
    """A silo alone starts from its own past, trains both factors and is pulled back to nothing.

    What a merge rule asks for, a frozen factor or a proximal term, would only make it weaker.
    """
    alone = {"trained_factors": "both", "proximal_mu": Decimal("0")}
    changes = {
        "recipe": job.recipe.model_copy(update=alone),
        "starting_adapter": job.silo_only.previous_adapter,
        "starting_residual": None,
    }
    return job.model_copy(update=changes)


def _publish(files: RunFiles, result: TrainingResult, fingerprint: str) -> None:
    if dist.get_rank() == 0:
        write_result(files.result, result, fingerprint)
    dist.barrier()
