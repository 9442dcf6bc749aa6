"""How much memory a rank may take: what the silo says, or its share of what the machine has.

Of the machine the total counts and not what is free: that changes from minute to minute, with other
agents whose idle ranks give theirs back when asked, and a job that is tried again must find what it
began. A container's limit counts as the machine.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from silo_agent.config import TrainingSection

USABLE_SHARE = 0.9
"""The rest is for the agent, the system and what else runs there."""

GIGABYTE = 10**9
CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
GPU_SECONDS = 20
_GPU_COMMAND = ("nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits")


@dataclass(frozen=True)
class Room:
    """Bytes for one rank, None where nobody could say, and in words where that is from."""

    size_bytes: int | None
    source: str

    def holds(self, size_bytes: int) -> bool:
        """Whether so much fits; what is not known refuses nothing."""
        return self.size_bytes is None or size_bytes <= self.size_bytes


def room_of(training: TrainingSection) -> Room:
    """The room of one rank under these settings, on this machine."""
    if training.memory_gb is not None:
        return Room(round(training.memory_gb * GIGABYTE), "memory_gb of silo-agent.toml")
    share, ranks = f"{USABLE_SHARE:.0%} of", training.ranks_per_machine
    if training.device == "cuda":
        total = _smallest_gpu()
        if total is None:
            return Room(None, "nvidia-smi does not say it; set memory_gb in silo-agent.toml")
        return Room(int(USABLE_SHARE * total), f"{share} the smallest GPU's {gigabytes(total)}")
    total = machine_bytes()
    each = int(USABLE_SHARE * total) // ranks
    return Room(each, f"{share} this machine's {gigabytes(total)}, for {ranks} ranks")


def machine_bytes() -> int:
    """Main memory that programs here may take together."""
    limits = [int(text) for text in map(_limit, CGROUP_LIMITS) if text.isdigit()]
    return min([psutil.virtual_memory().total, *limits])


def gigabytes(size_bytes: int) -> str:
    """A size as it is shown."""
    return f"{size_bytes / GIGABYTE:.2f} GB"


def _limit(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _smallest_gpu() -> int | None:
    """Asked of the driver's own program: this process never loads torch."""
    try:
        done = subprocess.run(
            _GPU_COMMAND, capture_output=True, text=True, timeout=GPU_SECONDS, check=True
        )
        return min(int(line) for line in done.stdout.split()) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
