"""The ranks of one machine on CPUs: `python -m silo_agent.training.ranks.forked RANKS DIRECTORY`.

What every rank needs is imported once, and the ranks are forked from there: PyTorch, transformers,
PEFT and DeepSpeed cost as much as a short training. Nothing has been computed by then, so no pool
of threads is lost in the fork. CUDA cannot be used after one: ranks on GPUs come from torchrun.

A rank is in a session of its own, and ends when this process does. The first that fails ends the
others; how each ended is said on stdout in the words of torchrun.
"""

import os
import signal
import sys
import traceback
from multiprocessing.connection import wait
from typing import Protocol

from infra.processes.exit_codes import DONE, end_process
from infra.processes.heavy_imports import collector_paused
from infra.processes.parent_pipe import end_with_parent
from silo_agent.training.processes.torchrun import closing_message
from silo_agent.training.ranks import child

GRACE_SECONDS = 3.0


class Forked(Protocol):
    """What is used of `multiprocessing.Process`."""

    @property
    def sentinel(self) -> int: ...

    @property
    def exitcode(self) -> int | None: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...

    def join(self, timeout: float | None = None) -> None: ...


def main(arguments: list[str]) -> int:
    """Run the ranks until all have ended; 0 only when each of them ended with 0."""
    ranks, directory = int(arguments[0]), arguments[1]
    os.umask(0o077)
    # Else DeepSpeed takes the GPU of the machine for a job that asked for the CPU.
    os.environ["DS_ACCELERATOR"] = "cpu"
    with collector_paused():
        from torch.multiprocessing import start_processes  # type: ignore[attr-defined]

        import silo_agent.training.ranks.work  # noqa: F401  (for the ranks)
    forked = start_processes(  # type: ignore[no-untyped-call]
        _rank, (ranks, directory), nprocs=ranks, join=False, start_method="fork"
    )
    # Not before: a fork takes no thread along.
    end_with_parent()
    codes = exit_codes(list(forked.processes))
    if any(codes):
        sys.stdout.write(f"{closing_message(codes)}\n")
    return 1 if any(codes) else DONE


def exit_codes(ranks: list[Forked]) -> list[int]:
    """How each rank ended, negative for a signal; the first that fails ends the others."""
    running = list(ranks)
    while running:
        wait([rank.sentinel for rank in running])
        for rank in running:
            rank.join(0)
        running = [rank for rank in running if rank.exitcode is None]
        if any(rank.exitcode for rank in ranks):
            _end(running)
            break
    return [rank.exitcode or DONE for rank in ranks]


def _end(ranks: list[Forked]) -> None:
    for rank in ranks:
        rank.terminate()
    for rank in ranks:
        rank.join(GRACE_SECONDS)
        rank.kill()
        rank.join()


def _rank(index: int, ranks: int, directory: str) -> None:
    os.setsid()
    # This process has no handler of Python's to come back to, in the middle of a collective call.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    os.environ |= {"RANK": str(index), "LOCAL_RANK": str(index)}
    os.environ |= {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
    code = 1
    try:
        code = child.main([directory])
    except BaseException:
        traceback.print_exc()
    end_process(code)


if __name__ == "__main__":
    end_process(main(sys.argv[1:]))
