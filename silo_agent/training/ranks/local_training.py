"""What every rank does in one round; the top-level function reads in the order of the work."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch.distributed as dist

from data_contracts.protocol.records.sent_layout import trained_layout
from infra.clock import SystemClock
from silo_agent.leaks.figures import LeakFigures
from silo_agent.training.adapter_file import write_adapter
from silo_agent.training.job import TrainingJob
from silo_agent.training.loss import Loss, of_records
from silo_agent.training.ranks.checkpoints import ResumePoint
from silo_agent.training.ranks.engine import LoraEngine
from silo_agent.training.ranks.families.registry import family_of
from silo_agent.training.ranks.kept_engine import KeptEngine
from silo_agent.training.ranks.leak_check import checked_leaks
from silo_agent.training.ranks.packed_records import (
    Packed,
    Shards,
    packed,
    packing_rule,
    shard_cache,
    shards_of,
)
from silo_agent.training.ranks.packing import PackingRule
from silo_agent.training.ranks.personal_measures import personal_measures
from silo_agent.training.ranks.process_group import gpu_memory_bytes, of_first_rank, peak_rss_bytes
from silo_agent.training.ranks.starting_tensors import starting_tensors
from silo_agent.training.ranks.training_steps import StepDone, training_steps
from silo_agent.training.results import PackingCounts, Progress, TrainingResult
from silo_agent.training.run_files import (
    ProgressWriter,
    RunFiles,
    StepMeter,
    training_result,
    write_result,
)


@dataclass(frozen=True)
class _Round:
    """What this rank works on and where it reports, for every adapter of the round."""

    job: TrainingJob
    fingerprint: str
    files: RunFiles
    progress: ProgressWriter
    shards: Shards
    rule: PackingRule
    packed: Packed
    kept: KeptEngine


@dataclass(frozen=True)
class _Part:
    """One adapter's training: the federated one or the silo-only baseline."""

    name: str
    job: TrainingJob
    adapter: Path
    measures_before: bool
    measures_after: bool
    leaves: bool = False


@dataclass(frozen=True)
class _Trained:
    packing: PackingCounts
    point: ResumePoint
    resumed_from_step: int
    micro_batch: int
    after: Loss | None
    leaks: LeakFigures | None = None


def train_in_ranks(job: TrainingJob, fingerprint: str, kept: KeptEngine) -> None:
    """Train, measure, save, in ranks that have met; what a result already has is not done again.

    Raises ConsortiaError kinds a person can act on.
    """
    round_ = _round(job, fingerprint, kept)
    result = of_first_rank(lambda: training_result(job, fingerprint))
    if result is None:
        federated = _Part("training", job, round_.files.adapter, True, job.measure_local, True)
        result = _result(round_, _train(round_, federated))
        # Before anything is done for comparison: whatever ends that, this counts.
        _publish(round_, result)
    if job.silo_only.enabled and result.silo_only_adapter is None:
        _publish(round_, _with_baseline(round_, result))
    if job.personal is not None and result.personal is None:
        _publish(round_, _with_personal(round_, result))
    dist.barrier()


def _round(job: TrainingJob, fingerprint: str, kept: KeptEngine) -> _Round:
    files = RunFiles(job.output_dir)
    path = files.progress if dist.get_rank() == 0 else None
    progress = ProgressWriter(path, gpu_memory_bytes)
    progress.phase("packing")
    directory = job.shards_dir or files.shards
    family = family_of(job.task)
    cache = shard_cache(job, family, directory, kept.tokenizer, progress.phase)
    shards = shards_of(job, cache)
    rule = packing_rule(job, family, kept.tokenizer, together=True)
    records = packed(job, shards, rule)
    return _Round(job, fingerprint, files, progress, shards, rule, records, kept)


def _begun(round_: _Round, job: TrainingJob) -> tuple[_Round, LoraEngine]:
    """An engine at the start of `job`, and the records packed as its model can take them."""
    engine = round_.kept.for_training(job)
    if round_.packed.counts.together and not engine.may_pack:
        # Records are packed before a model is loaded, so that a fault in them is found in seconds.
        round_.progress.phase("one conversation a sequence: the model does not keep them apart")
        rule = replace(round_.rule, together=False)
        round_ = replace(round_, rule=rule, packed=packed(job, round_.shards, rule))
    return round_, engine


def _train(round_: _Round, part: _Part) -> _Trained:
    round_.progress.phase(f"{part.name}: loading the model")
    round_, engine = _begun(round_, part.job)
    if engine.spec.micro_batch < part.job.micro_batch:
        round_.progress.phase("micro-batch 1: the model does not keep sequences side by side apart")
    resumed = engine.load_checkpoint(_checkpoints(part), round_.fingerprint)
    start = resumed or _before_training(round_, part, engine)
    point = _steps(round_, part, engine, start)
    after = None
    if part.measures_after and point.step == part.job.recipe.local_steps:
        after = _heldout_loss(round_, part.name, engine)
    tensors = engine.adapter()
    if dist.get_rank() == 0:
        trained = part.job.recipe.trained_factors
        write_adapter(part.adapter, trained_layout(trained, part.job.layout), tensors)
    asks = part.leaves and part.job.leak_check is not None
    leaks = _leaks(round_, engine, point) if asks else None
    engine.end()
    return _Trained(round_.packed.counts, point, start.step, engine.spec.micro_batch, after, leaks)


def _leaks(round_: _Round, engine: LoraEngine, point: ResumePoint) -> LeakFigures | None:
    round_.progress.phase("leak check")
    return checked_leaks(engine, round_.job, round_.shards, round_.packed, round_.rule, point)


def _heldout_loss(round_: _Round, name: str, engine: LoraEngine) -> Loss:
    round_.progress.phase(f"{name}: held-out loss")
    return _measured(round_, engine).without_records()


def _measured(round_: _Round, engine: LoraEngine, *, adapter: bool = True) -> Loss:
    heldout = round_.packed.heldout
    sums = engine.heldout(heldout, adapter=adapter)
    return Loss.of(of_records(sums.conversations, heldout.records), sums.right)


def _before_training(round_: _Round, part: _Part, engine: LoraEngine) -> ResumePoint:
    job, starting, base = part.job, None, None
    # B is zero without a starting adapter, so base and starting adapter are the same model.
    same = job.starting_adapter is None and job.starting_residual is None
    if part.measures_before and (job.measure_starting or (job.measure_base and same)):
        round_.progress.phase("held-out loss before training")
        starting = _measured(round_, engine)
    if part.measures_before and job.measure_base:
        base = starting if same else _measured(round_, engine, adapter=False)
    return ResumePoint(0, 0, 0.0, None, None, base, starting)


def _steps(round_: _Round, part: _Part, engine: LoraEngine, point: ResumePoint) -> ResumePoint:
    job = part.job
    steps = job.recipe.local_steps
    meter, longest = StepMeter(part.name, point.step, steps), _step_seconds(point)
    packed, whole = round_.packed.train, round_.shards.train
    with training_steps(engine, job, round_.fingerprint, packed, whole, round_.rule) as step:
        for index in range(point.step, steps):
            if _is_time_over(job, index, longest):
                break
            began = time.monotonic()
            done = step(index)
            point = _after(point, job, done, time.monotonic() - began)
            round_.progress.report(_shown(job, meter.after(index + 1, done.loss, done.tokens)))
            if job.checkpoint_every_steps and (index + 1) % job.checkpoint_every_steps == 0:
                engine.save_checkpoint(_checkpoints(part), point, round_.fingerprint)
            longest = max(longest, time.monotonic() - began)
    return point


def _after(point: ResumePoint, job: TrainingJob, done: StepDone, seconds: float) -> ResumePoint:
    # What a private step has seen goes no further than the progress that is shown in the silo.
    loss = done.loss if job.private is None else None
    return replace(
        point,
        step=point.step + 1,
        tokens=point.tokens + done.tokens,
        seconds=point.seconds + seconds,
        first_step_loss=point.first_step_loss if point.step else loss,
        last_step_loss=loss,
    )


def _shown(job: TrainingJob, progress: Progress) -> Progress:
    """Tokens by second are in the status that leaves: of private steps they would tell how much was
    drawn."""
    hidden = {"tokens_per_second": None} if job.private is not None else {}
    return progress.model_copy(update=hidden)


def _step_seconds(point: ResumePoint) -> float:
    """The mean of the steps that are done; 0 of none."""
    return point.seconds / point.step if point.step else 0.0


def _is_time_over(job: TrainingJob, done: int, step_seconds: float) -> bool:
    """By the clock of the first rank, so that all ranks agree; asked of none where nothing may end
    early."""
    return job.may_end(done) and of_first_rank(
        lambda: job.is_time_over(done, step_seconds, SystemClock().now())
    )


def _checkpoints(part: _Part) -> Path:
    return RunFiles(part.job.output_dir).checkpoints / part.name


def _result(round_: _Round, trained: _Trained) -> TrainingResult:
    point = trained.point
    return TrainingResult(
        adapter=round_.files.adapter,
        tokens=point.tokens,
        steps=point.step,
        resumed_from_step=trained.resumed_from_step,
        first_step_loss=point.first_step_loss,
        last_step_loss=point.last_step_loss,
        seconds=point.seconds,
        tokens_per_second=point.tokens / max(point.seconds, 1e-6),
        peak_rss_bytes_per_rank=peak_rss_bytes(),
        packing=trained.packing,
        micro_batch=trained.micro_batch,
        base_weights=round_.job.base_weights,
        base=point.base,
        starting=point.starting,
        local=trained.after,
        leaks=trained.leaks,
    )


def _with_baseline(round_: _Round, result: TrainingResult) -> TrainingResult:
    """Add the silo-only baseline: trained, or the local adapter itself where both start equal.

    As it was where there was no time for as many steps as the plan has.
    """
    if round_.job.is_its_own_baseline:
        adapter, loss = result.adapter, result.local
        if loss is None and round_.job.measures:
            loss = _local_loss(round_, result)
    else:
        adapter = round_.files.silo_only_adapter
        alone = round_.job.alone().model_copy(update={"least_steps": 1})
        is_short = result.steps < alone.recipe.local_steps
        if is_short or _is_time_over(alone, result.steps, result.seconds / result.steps):
            return result
        trained = _train(round_, _Part("silo-only training", alone, adapter, False, alone.measures))
        if trained.point.step < alone.recipe.local_steps:
            return result
        loss = trained.after
    update = {
        "silo_only": loss,
        "silo_only_adapter": adapter,
        "peak_rss_bytes_per_rank": max(result.peak_rss_bytes_per_rank, peak_rss_bytes()),
    }
    return result.model_copy(update=update)


def _with_personal(round_: _Round, result: TrainingResult) -> TrainingResult:
    """Add what a personal adapter is worth here, as it was written."""
    round_, engine = _begun(round_, round_.job)
    round_.progress.phase("personal adapter: held-out loss")
    heldout, whole = round_.packed.heldout, round_.shards.train
    measures = personal_measures(engine, round_.job, result.adapter, whole, heldout)
    engine.end()
    return result.model_copy(update={"personal": measures})


def _local_loss(round_: _Round, result: TrainingResult) -> Loss:
    """Of the adapter that was trained, as it was written."""
    round_, engine = _begun(round_, round_.job)
    engine.put(starting_tensors(round_.job.layout, result.adapter))
    loss = _heldout_loss(round_, "local adapter", engine)
    engine.end()
    return loss


def _publish(round_: _Round, result: TrainingResult) -> None:
    if dist.get_rank() == 0:
        write_result(round_.files.result, result, round_.fingerprint)
    dist.barrier()
