"""What ranks are to do next: one file per job in a private directory, and one when it is done.

Files, so that a rank needs no port, and so that an order survives a reader that is not there yet.
"""

import time
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from infra.disk.durable_files import write_durably
from silo_agent.training.engine_spec import Device

BUSY_SECONDS = 2.0
QUICK_POLL_SECONDS, IDLE_POLL_SECONDS = 0.02, 0.2
"""A rank that has just worked often gets its next order at once; later it may take its time."""


class Order(BaseModel):
    """A job for all ranks, its file and fingerprint; they end after the last one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["training", "evaluation"]
    job: Path
    fingerprint: str
    device: Device
    threads: Annotated[int, Field(ge=1)]
    is_last: bool


class Orders:
    """The orders in one directory, numbered from 1."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def give(self, number: int, order: Order) -> None:
        """Order a job; it is seen complete or not at all."""
        write_durably(self._order(number), order.model_dump_json().encode())

    def wait(self, number: int) -> Order:
        """The order with this number, when it has come."""
        path, began = self._order(number), time.monotonic()
        while not path.exists():
            quick = time.monotonic() - began < BUSY_SECONDS
            time.sleep(QUICK_POLL_SECONDS if quick else IDLE_POLL_SECONDS)
        return Order.model_validate_json(path.read_bytes())

    def finish(self, number: int) -> None:
        """Say that every rank has done the job."""
        self._done(number).touch()

    def is_finished(self, number: int) -> bool:
        """Whether every rank has done the job."""
        return self._done(number).exists()

    def _order(self, number: int) -> Path:
        return self._directory / f"order-{number:06d}.json"

    def _done(self, number: int) -> Path:
        return self._directory / f"done-{number:06d}"
