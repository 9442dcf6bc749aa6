"""Held-out losses in one process: `python -m silo_agent.training.evaluate JOB.json FINGERPRINT`.

The base model is loaded once and the adapters are exchanged on it. The measure is the one of
training: same packing, same order, mean nats per answer token. DeepSpeed is not imported.
"""

import math
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_contracts.errors import ConsortiaError
from silo_agent.training.job import EvaluationJob, EvaluationResult, HeldoutLoss, Progress
from silo_agent.training.run_files import ProgressWriter, RunFiles, write_failure, write_result
from silo_agent.training.watchdog import AGENT_PIPE_VARIABLE, end_process, end_with_agent

if TYPE_CHECKING:
    from silo_agent.training.packing import PackedSequence

WORST_LOSS = 1e6
"""Nats per token that stand for a loss that is not finite."""


def main(arguments: list[str]) -> int:
    """Measure what the job names; the exit code is 0 only when the result file is complete."""
    job_path, fingerprint = arguments
    os.umask(0o077)
    if pipe := os.environ.get(AGENT_PIPE_VARIABLE):
        end_with_agent(Path(pipe))
    job = EvaluationJob.model_validate_json(Path(job_path).read_bytes())
    files = RunFiles(job.output_dir)
    try:
        result = evaluate(job, ProgressWriter(files.progress))
    except ConsortiaError as error:
        write_failure(files.failure, error)
        return 1
    write_result(files.result, result, fingerprint)
    return 0


def evaluate(job: EvaluationJob, progress: ProgressWriter) -> EvaluationResult:
    """One loss per adapter and held-out set; raises UntrustedInputError for a bad adapter."""
    began = time.monotonic()
    progress.phase("loading the model")
    import torch

    from silo_agent.training import lora_model
    from silo_agent.training.packing import pack_heldout
    from silo_agent.training.starting_tensors import starting_tensors

    torch.set_num_threads(job.threads)
    device = lora_model.single_device(job.device)
    tokenizer = lora_model.load_tokenizer(job.model_dir)
    sets: dict[str, list[PackedSequence]] = {
        heldout.name: pack_heldout(
            tokenizer,
            heldout.records,
            length=job.sequence_length,
            limit=job.heldout_sequences,
            seed=job.adapter.seed,
        )
        for heldout in job.heldout
    }
    model = lora_model.load_lora_model(job.model_dir, job.adapter, job.device).to(device).eval()
    losses: list[HeldoutLoss] = []
    for adapter in job.adapters:
        # Without a path: B is zero in the initial adapter, which leaves the base model.
        lora_model.set_adapter(model, starting_tensors(job.adapter, adapter.path))
        for name, sequences in sets.items():
            losses.append(_measured(model, adapter.name, name, sequences, device))
            done = Progress(
                phase="held-out losses",
                step=len(losses),
                steps=len(job.adapters) * len(sets),
                loss=losses[-1].loss,
            )
            progress.report(done)
    return EvaluationResult(losses=tuple(losses), seconds=time.monotonic() - began)


def _measured(
    model: Any, adapter: str, heldout: str, sequences: "list[PackedSequence]", device: Any
) -> HeldoutLoss:
    import torch

    from silo_agent.training.lora_model import answer_nll
    from silo_agent.training.packing import answer_tokens

    with torch.no_grad():
        total = sum(answer_nll(model, sequence, device).double().item() for sequence in sequences)
    tokens = answer_tokens(sequences)
    loss = total / tokens
    # A candidate that makes the model overflow is a very bad one, not a fault of this silo.
    loss = min(loss, WORST_LOSS) if math.isfinite(loss) else WORST_LOSS
    return HeldoutLoss(adapter=adapter, heldout=heldout, loss=loss, tokens=tokens)


if __name__ == "__main__":
    end_process(main(sys.argv[1:]))
