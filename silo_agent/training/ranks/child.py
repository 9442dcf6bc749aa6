"""One training rank: `python -m silo_agent.training.ranks.child JOB.json [FINGERPRINT]`.

Started once per rank by torchrun, on one machine by `silo_agent.training.processes.launch`. In
order: held-out loss of the base model (if asked) and of the starting adapter, local training,
held-out loss, adapter, result; then the silo-only baseline (if asked) and the result again. A fault
that a person can act on is left in the failure file, any other in the log.
"""

import os
import sys
from pathlib import Path

from infra.processes.exit_codes import end_process
from infra.processes.heavy_imports import collector_paused
from infra.processes.parent_pipe import end_with_parent
from silo_agent.training.job import TrainingJob
from silo_agent.training.processes.rank_log import redirect_output
from silo_agent.training.run_files import RunFiles, exit_code_of


def main(arguments: list[str]) -> int:
    """Run one rank; the exit code is 0 only when the result file is complete."""
    redirect_output()
    job_path, *given = arguments
    os.umask(0o077)
    end_with_parent()
    job = TrainingJob.model_validate_json(Path(job_path).read_bytes())
    fingerprint = given[0] if given else job.fingerprint()
    # Else DeepSpeed takes the GPU of the machine for a job that asked for the CPU.
    os.environ["DS_ACCELERATOR"] = job.device
    return exit_code_of(lambda: _train(job, fingerprint), RunFiles(job.output_dir).failure)


def _train(job: TrainingJob, fingerprint: str) -> None:
    # Imports of torch, then of transformers, PEFT and DeepSpeed: seconds, so only after parsing.
    with collector_paused():
        from silo_agent.training.ranks.devices import require_gpus

        require_gpus(job.device)
        from silo_agent.training.ranks.local_training import train_rank

    train_rank(job, fingerprint)


if __name__ == "__main__":
    end_process(main(sys.argv[1:]))
