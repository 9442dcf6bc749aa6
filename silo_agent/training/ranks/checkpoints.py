"""What marks a checkpoint as complete, and where a job goes on from.

DeepSpeed writes the tensors of all ranks; the marker is written after them and names one set.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from infra.disk.durable_files import write_durably
from silo_agent.training.loss import Loss

MARKER_NAME = "complete.json"


@dataclass(frozen=True)
class ResumePoint:
    """What a checkpoint knows besides tensors. `step` counts finished steps.

    Losses of steps are None in a private job. Held-out losses are those from before training, None
    where the job did not ask for them.
    """

    step: int
    tokens: int
    seconds: float
    first_step_loss: float | None
    last_step_loss: float | None
    base: Loss | None
    starting: Loss | None

    @property
    def tag(self) -> str:
        """Name of the directory with the tensors."""
        return f"step-{self.step}"


_POINT = TypeAdapter(ResumePoint)


def mark_complete(directory: Path, point: ResumePoint, fingerprint: str) -> None:
    """Let the checkpoint of `point` count for the job with this fingerprint; older ones go."""
    told = _POINT.dump_python(point, mode="json")
    marker = {"fingerprint": fingerprint, "point": told}
    write_durably(directory / MARKER_NAME, json.dumps(marker).encode())
    for path in directory.glob("step-*"):
        if path.name != point.tag:
            shutil.rmtree(path)


def newest_complete(directory: Path, fingerprint: str) -> ResumePoint | None:
    """None also for a marker that another version of this program wrote."""
    try:
        marker = json.loads((directory / MARKER_NAME).read_bytes())
        if marker["fingerprint"] != fingerprint:
            return None
        return _POINT.validate_python(marker["point"])
    except (FileNotFoundError, ValueError):
        return None
