"""One training rank: `python -m silo_agent.training.ranks.child ORDERS_DIRECTORY`.

Started once per rank by torchrun, or forked with the others (`forked`), for
`silo_agent.training.processes.resident_ranks`. It does the jobs that are ordered in the directory,
one after the other, until the last. A job is local training (held-out loss of the base model, if
asked, and of the starting adapter, training, held-out loss, adapter, result; then the silo-only
baseline, if asked, and the result again) or an evaluation. A fault that a person can act on is left
in the job's failure file, any other in the log; either ends all ranks.
"""

import os
import sys
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from infra.processes.exit_codes import DONE, end_process
from infra.processes.heavy_imports import collector_paused
from infra.processes.parent_pipe import end_with_parent
from silo_agent.training.job import EvaluationJob, TrainingJob
from silo_agent.training.nodes.node import ALL_RANKS_VARIABLE, FIRST_RANK_VARIABLE
from silo_agent.training.orders import Order, Orders
from silo_agent.training.processes.rank_log import redirect_output
from silo_agent.training.run_files import RunFiles, exit_code_of

if TYPE_CHECKING:
    from silo_agent.training.ranks.work import Work


class _Rank:
    """What a rank is once its first order has come."""

    def __init__(self) -> None:
        self._work: Work | None = None

    def do(self, order: Order) -> int:
        """Exit code of this job: 0 only when its result file is complete."""
        raw = order.job.read_bytes()
        kind = TrainingJob if order.kind == "training" else EvaluationJob
        job = kind.model_validate_json(raw)
        return exit_code_of(partial(self._do, order, job), RunFiles(job.output_dir).failure)

    def _do(self, order: Order, job: TrainingJob | EvaluationJob) -> None:
        if self._work is None:
            self._work = _joined(order)
        self._work.do(job, order.fingerprint)


def _joined(order: Order) -> "Work":
    """Imports of torch, then of transformers, PEFT and DeepSpeed: seconds, so after parsing."""
    # Else DeepSpeed takes the GPU of the machine for a job that asked for the CPU.
    os.environ["DS_ACCELERATOR"] = order.device
    with collector_paused():
        from silo_agent.training.ranks.devices import require_gpus

        require_gpus(order.device)
        from silo_agent.training.ranks.work import Work

    return Work(order.device, order.threads)


def _count_all_nodes() -> None:
    """Ranks of this machine become some of all; devices go by `LOCAL_RANK`."""
    first = os.environ.get(FIRST_RANK_VARIABLE)
    if first is not None:
        os.environ["RANK"] = str(int(first) + int(os.environ["LOCAL_RANK"]))
        os.environ["WORLD_SIZE"] = os.environ[ALL_RANKS_VARIABLE]


def main(arguments: list[str]) -> int:
    """Run one rank; the exit code is 0 only when every job was done."""
    _count_all_nodes()
    redirect_output()
    (directory,) = arguments
    os.umask(0o077)
    end_with_parent()
    orders, rank = Orders(Path(directory)), _Rank()
    for number in count(1):
        order = orders.wait(number)
        redirect_output(order.job.parent)
        code = rank.do(order)
        if code != DONE or order.is_last:
            return code
        if os.environ["RANK"] == "0":
            orders.finish(number)
    return DONE


if __name__ == "__main__":
    end_process(main(sys.argv[1:]))
