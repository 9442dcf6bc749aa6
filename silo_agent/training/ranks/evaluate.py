"""Held-out losses in one process: `python -m silo_agent.training.ranks.evaluate JOB FINGERPRINT`.

The base model is loaded once and the adapters are exchanged on it. The measure is the one of
training: same packing, same order, mean nats per answer token. DeepSpeed is not imported.
"""

import math
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.processes.exit_codes import end_process
from infra.processes.heavy_imports import collector_paused
from infra.processes.parent_pipe import end_with_parent
from silo_agent.training.job import (
    EvaluatedAdapter,
    EvaluationJob,
    EvaluationResult,
    HeldoutLoss,
    Progress,
)
from silo_agent.training.loss import Loss, RecordSums
from silo_agent.training.run_files import ProgressWriter, RunFiles, exit_code_of, write_result

if TYPE_CHECKING:
    from silo_agent.training.ranks.packing import PackedSequence

WORST_LOSS = 1e6
"""Nats per token that stand for a loss that is not finite."""


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


def evaluate(job: EvaluationJob, progress: ProgressWriter) -> EvaluationResult:
    """One loss per adapter and held-out set; raises UntrustedInputError for a bad adapter."""
    began = time.monotonic()
    progress.phase("loading the model")
    with collector_paused():
        import torch

        from silo_agent.training.ranks import devices, lora_model, packing_check

    torch.set_num_threads(job.threads)
    device = devices.single_device(job.device)
    sets = _packed_sets(job)
    model = lora_model.load_lora_model(
        job.model_dir, job.layout, job.device, residual=job.residual_layout
    )
    model.to(device).eval()
    together = packing_check.may_pack(model, device)
    if not together:
        progress.phase("one conversation a sequence: the model does not keep them apart")
        sets = _packed_sets(job, together=False)
    losses: list[HeldoutLoss] = []
    for adapter in job.adapters:
        _exchange(model, job, adapter)
        for name, sequences in sets.items():
            sums = _record_sums(model, sequences, device)
            losses.append(_heldout_loss(job, adapter, name, sums))
            done = Progress(
                phase="held-out losses",
                step=len(losses),
                steps=len(job.adapters) * len(sets),
                loss=losses[-1].nats,
            )
            progress.report(done)
    seconds = time.monotonic() - began
    return EvaluationResult(losses=tuple(losses), seconds=seconds, together=together)


def _packed_sets(job: EvaluationJob, *, together: bool = True) -> "dict[str, list[PackedSequence]]":
    from silo_agent.training.ranks.base_model import load_tokenizer
    from silo_agent.training.ranks.conversation import Conversations
    from silo_agent.training.ranks.packing import PackingRule, pack_heldout

    conversations = Conversations(load_tokenizer(job.model_dir), job.prompt_date)
    return {
        heldout.name: pack_heldout(
            conversations,
            heldout.records,
            PackingRule(job.sequence_length, together),
            limit=job.heldout_sequences,
            seed=job.layout.seed,
        )
        for heldout in job.heldout
    }


def _exchange(model: Any, job: EvaluationJob, adapter: EvaluatedAdapter) -> None:
    """Put `adapter` and its residual into the model.

    What has no file has a B of zero, as the initial adapter has: it leaves the base model.
    """
    from silo_agent.training.ranks.lora_model import RESIDUAL_NAME, set_adapter
    from silo_agent.training.ranks.starting_tensors import starting_tensors, widened_tensors

    if adapter.path is None or adapter.layout is None:
        set_adapter(model, starting_tensors(job.layout, adapter.path))
    else:
        set_adapter(model, widened_tensors(job.layout, adapter.layout, adapter.path))
    if job.residual_layout is not None:
        residual = starting_tensors(job.residual_layout, adapter.residual)
        set_adapter(model, residual, RESIDUAL_NAME)


def _record_sums(
    model: Any, sequences: "list[PackedSequence]", device: Any
) -> tuple[RecordSums, ...]:
    """Sums of the records of each sequence."""
    import torch

    from silo_agent.training.ranks.lora_model import record_nll

    with torch.no_grad():
        nats = [record_nll(model, sequence, device).tolist() for sequence in sequences]
    return tuple(
        tuple((_finite(n, t), t) for n, t in zip(each, sequence.record_answer_tokens, strict=True))
        for each, sequence in zip(nats, sequences, strict=True)
    )


def _finite(nats: float, tokens: int) -> float:
    """A candidate that makes the model overflow is a very bad one, not a fault of this silo."""
    worst = WORST_LOSS * tokens
    return min(nats, worst) if math.isfinite(nats) else worst


def _heldout_loss(
    job: EvaluationJob, adapter: EvaluatedAdapter, heldout: str, sums: tuple[RecordSums, ...]
) -> HeldoutLoss:
    loss = Loss.of(tuple(record for sequence in sums for record in sequence))
    return HeldoutLoss(
        adapter=adapter.name,
        heldout=heldout,
        nats=loss.nats,
        tokens=loss.tokens,
        sequences=tuple(_total(sequence) for sequence in sums) if job.per_sequence else (),
        records=loss.records if job.per_record else (),
    )


def _total(sums: RecordSums) -> tuple[float, int]:
    return sum(nats for nats, _ in sums), sum(tokens for _, tokens in sums)


if __name__ == "__main__":
    end_process(main(sys.argv[1:]))
