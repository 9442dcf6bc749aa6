"""How the agent calls torchrun, and what it reads from it.

The launcher is the one of a multi-node job; on one machine it opens no port: its rendezvous is a
file (torch/distributed/elastic/rendezvous/c10d_rendezvous_backend.py), and the TCP store that it
would otherwise share with the ranks, on every interface, is switched off
(dynamic_rendezvous.py). It never restarts a rank: a later call goes on from a checkpoint.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

TORCHRUN_VARIABLES = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}

_KEEP_ALIVE_SECONDS = 60
"""There is no other node to notice that this one is gone; each beat makes the file longer."""

_FAILURE = re.compile(r"^\s*rank\s*:\s*(\d+)\b.*\n\s*exitcode\s*:\s*(-?\d+)", re.MULTILINE)


def torchrun_command(ranks: int, command: list[str], directory: Path) -> list[str]:
    """Command line that starts `command` once per rank.

    `directory` is private, new for each launch and removed after it: torchrun pickles its state
    into the rendezvous file and reads it back.
    """
    return [
        *(sys.executable, "-P", "-m", "torch.distributed.run"),
        *("--nnodes", "1", "--nproc-per-node", str(ranks), "--max-restarts", "0"),
        *("--rdzv-backend", "c10d", "--rdzv-id", "silo-agent"),
        *("--rdzv-endpoint", str(directory / "torchrun-rendezvous")),
        *("--rdzv-conf", f"store_type=file,keep_alive_interval={_KEEP_ALIVE_SECONDS}"),
        # Else torchrun asks the name service for this machine, which may take long to say no.
        *("--local-addr", "localhost"),
        # Else an empty directory is left in the machine's temporary one.
        *("--log-dir", str(directory / "torchrun-logs")),
        # Else torchrun would build the command without -P.
        "--no-python",
        *command,
    ]


def closing_message(codes: Sequence[int]) -> str:
    """How ranks ended that torchrun did not start, in its words; of those that failed."""
    failed = ((rank, code) for rank, code in enumerate(codes) if code)
    lines = (f"  rank      : {rank}\n  exitcode  : {code}" for rank, code in failed)
    return "\n".join(("ranks that failed:", *lines))


def failed_ranks(log: Path) -> dict[int, int]:
    """Exit code of each rank that the launcher's log says failed; negative for a signal.

    Empty when the launcher itself failed, or says it in other words.
    """
    found = _FAILURE.findall(log.read_text(errors="replace"))
    return {int(rank): int(code) for rank, code in found}
