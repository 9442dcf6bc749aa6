"""Held-out losses in one process: `python -m silo_agent.training.ranks.evaluate JOB FINGERPRINT`.

The base model is loaded once and the adapters are exchanged on it. The measure is the one of
training: same packing, same order, mean nats per answer token. DeepSpeed is not imported here;
ranks that have an engine measure the same way on it.
"""

import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from infra.processes.exit_codes import end_process
from infra.processes.heavy_imports import collector_paused
from infra.processes.parent_pipe import end_with_parent
from silo_agent.training.job import EvaluatedAdapter, EvaluationJob
from silo_agent.training.loss import HeldoutSums, Loss, RecordSums, of_records
from silo_agent.training.prompt_gate import PromptGate
from silo_agent.training.results import EvaluationResult, HeldoutLoss, Progress
from silo_agent.training.run_files import ProgressWriter, RunFiles, exit_code_of, write_result

if TYPE_CHECKING:
    import torch

    from silo_agent.training.ranks.conversation import ChatTokenizer
    from silo_agent.training.ranks.gated_measures import Alone
    from silo_agent.training.ranks.packed_sequence import PackedSequence
    from silo_agent.training.ranks.packing import PackedSequences, PackingRule
    from silo_agent.training.ranks.shard_cache import ShardCache
    from silo_agent.training.ranks.starting_tensors import NamedTensors

WORST_LOSS = 1e6
"""Nats per token that stand for a loss that is not finite."""
WITHOUT = EvaluatedAdapter(name="without", path=None)
"""In the place of a personal adapter: a B of zero."""


def main(arguments: list[str]) -> int:
    """Measure what the job names; the exit code is 0 only when the result file is complete."""
    job_path, fingerprint = arguments
    os.umask(0o077)
    end_with_parent()
    job = EvaluationJob.model_validate_json(Path(job_path).read_bytes())
    files = RunFiles(job.output_dir)

    def measure() -> None:
        write_result(files.result, evaluate(job, ProgressWriter(files.progress)), fingerprint)

    return exit_code_of(measure, files.failure)


@dataclass(frozen=True)
class _Measured:
    """Sums of the conversations of each sequence, which record each conversation is of, and how
    much of all is right."""

    by_sequence: tuple[RecordSums, ...]
    records: Sequence[int]
    right: float | None


class MeasuredModel(Protocol):
    """A model in which adapters are exchanged; `may_pack`: conversations may share a sequence."""

    @property
    def may_pack(self) -> bool: ...

    def put(self, tensors: "NamedTensors", adapter: str = ...) -> None: ...

    def heldout(self, sequences: Sequence["PackedSequence"]) -> HeldoutSums: ...

    def measured_model(self) -> "tuple[Any, torch.device]": ...


def evaluate(job: EvaluationJob, progress: ProgressWriter) -> EvaluationResult:
    """One loss per adapter and held-out set; raises UntrustedInputError for a bad adapter."""
    began = time.monotonic()
    progress.phase("loading the model")
    with collector_paused():
        import torch

        from silo_agent.training.ranks.base_model import load_tokenizer
        from silo_agent.training.ranks.plain_model import PlainModel

    torch.set_num_threads(job.threads)
    model = PlainModel(job)
    losses = measure(job, model, load_tokenizer, progress)
    seconds = time.monotonic() - began
    return EvaluationResult(losses=losses, seconds=seconds, together=model.may_pack)


def measure(
    job: EvaluationJob,
    model: MeasuredModel,
    tokenizer: Callable[[Path], "ChatTokenizer"],
    progress: ProgressWriter,
) -> tuple[HeldoutLoss, ...]:
    """One loss per adapter and held-out set on a model of the job's layouts.

    `tokenizer` gives that of a model's folder, where records have to be tokenised.
    """
    from silo_agent.training.ranks.families.registry import family_of
    from silo_agent.training.ranks.packed_records import packing_rule, shard_cache

    directory, family = job.shards_dir or RunFiles(job.output_dir).shards, family_of(job.task)
    cache = shard_cache(job, family, directory, tokenizer, progress.phase)
    if family.packs and not model.may_pack:
        progress.phase("one conversation a sequence: the model does not keep them apart")
    losses: list[HeldoutLoss] = []
    rule = packing_rule(job, family, tokenizer, together=model.may_pack)
    sets = _packed_sets(job, cache, rule)
    sums = _Sums(job, model, sets)
    for adapter in job.adapters:
        for name, found in sums.of(adapter):
            sequences = sets[name]
            by_sequence = _by_sequence(found.conversations, sequences)
            measured = _Measured(by_sequence, sequences.records, found.right)
            losses.append(_heldout_loss(job, adapter, name, measured))
            done = Progress(
                phase="held-out losses",
                step=len(losses),
                steps=len(job.adapters) * len(sets),
                loss=losses[-1].nats,
            )
            progress.report(done)
    return tuple(losses)


class _Sums:
    """Sums of an adapter on every held-out set; what is measured without a personal adapter is
    measured once for all that were trained beside the same."""

    def __init__(
        self, job: EvaluationJob, model: MeasuredModel, sets: "dict[str, PackedSequences]"
    ) -> None:
        self._job, self._model, self._sets = job, model, sets
        self._alone: dict[tuple[Path | None, str], Alone] = {}

    def of(self, adapter: EvaluatedAdapter) -> Iterator[tuple[str, HeldoutSums]]:
        """The name of each set, with the sums of its conversations."""
        _exchange(self._model, self._job, adapter)
        for name, sequences in self._sets.items():
            if adapter.gate is None:
                yield name, self._model.heldout(sequences)
            else:
                yield name, HeldoutSums(self._gated(adapter, adapter.gate, name))

    def _gated(self, adapter: EvaluatedAdapter, gate: PromptGate, name: str) -> RecordSums:
        from silo_agent.training.ranks.gated_measures import BothWays

        def put(is_in: bool) -> None:
            _put(self._model, self._job, adapter if is_in else WITHOUT)

        both, sequences, beside = BothWays(self._model, put), self._sets[name], adapter.residual
        if (beside, name) not in self._alone:
            self._alone[beside, name] = both.alone(sequences)
        return both.mixed(sequences, self._alone[beside, name], gate)


def _packed_sets(
    job: EvaluationJob, cache: "ShardCache", rule: "PackingRule"
) -> "dict[str, PackedSequences]":
    from silo_agent.training.ranks.packing import pack_heldout

    return {
        heldout.name: pack_heldout(
            cache.of(heldout.records),
            rule,
            limit=job.heldout_sequences,
            seed=job.layout.seed,
        )
        for heldout in job.heldout
    }


def _exchange(model: MeasuredModel, job: EvaluationJob, adapter: EvaluatedAdapter) -> None:
    """Put `adapter` and its residual into the model.

    What has no file has a B of zero, as the initial adapter has: it leaves the base model.
    """
    from silo_agent.training.ranks.lora_model import RESIDUAL_NAME
    from silo_agent.training.ranks.starting_tensors import starting_tensors

    _put(model, job, adapter)
    if job.residual_layout is not None:
        model.put(starting_tensors(job.residual_layout, adapter.residual), RESIDUAL_NAME)


def _put(model: MeasuredModel, job: EvaluationJob, adapter: EvaluatedAdapter) -> None:
    """Put `adapter` into the model, and leave the residual as it is."""
    from silo_agent.training.ranks.starting_tensors import starting_tensors, widened_tensors

    if adapter.path is None or adapter.layout is None:
        model.put(starting_tensors(job.layout, adapter.path))
    else:
        model.put(widened_tensors(job.layout, adapter.layout, adapter.path))


def _by_sequence(
    conversations: RecordSums, sequences: Sequence["PackedSequence"]
) -> tuple[RecordSums, ...]:
    """Sums of the conversations of each sequence."""
    sums = iter(conversations)
    return tuple(
        tuple((_finite(n, t), t) for n, t in islice(sums, len(sequence.record_starts)))
        for sequence in sequences
    )


def _finite(nats: float, tokens: int) -> float:
    """A candidate that makes the model overflow is a very bad one, not a fault of this silo."""
    worst = WORST_LOSS * tokens
    return min(nats, worst) if math.isfinite(nats) else worst


def _heldout_loss(
    job: EvaluationJob, adapter: EvaluatedAdapter, heldout: str, measured: _Measured
) -> HeldoutLoss:
    sums = measured.by_sequence
    told = tuple(conversation for sequence in sums for conversation in sequence)
    loss = Loss.of(of_records(told, measured.records), measured.right)
    return HeldoutLoss(
        adapter=adapter.name,
        heldout=heldout,
        nats=loss.nats,
        tokens=loss.tokens,
        sequences=tuple(_total(sequence) for sequence in sums) if job.per_sequence else (),
        records=loss.records if job.per_record else (),
        right=loss.right,
    )


def _total(sums: RecordSums) -> tuple[float, int]:
    return sum(nats for nats, _ in sums), sum(tokens for _, tokens in sums)


if __name__ == "__main__":
    end_process(main(sys.argv[1:]))
