"""Losses that were already measured, so that no forward pass runs twice.

A loss depends on the base model, the adapter's bytes, the held-out records and how many sequences
of which length are taken from them; that is the key.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from data_contracts.artifact import artifact_of_file
from data_contracts.records import RoundPlan
from infra.durable_files import write_durably

LOSSES_NAME = "heldout-losses.json"


@dataclass(frozen=True)
class Measured:
    """Mean loss in nats per answer token over `tokens` answer tokens."""

    loss: float
    tokens: int


class LossBook:
    """The silo's measured losses for one plan and one held-out file."""

    def __init__(self, home: Path, plan: RoundPlan, heldout: Path, sequences: int) -> None:
        self._path = home / LOSSES_NAME
        recipe = plan.recipe
        self._prefix = (
            f"{plan.base_model.digest[:16]}:{artifact_of_file(heldout).digest[:16]}:"
            f"{recipe.sequence_length}x{sequences}:{plan.adapter.alpha}/{plan.adapter.rank}"
        )

    def get(self, adapter: Path | None) -> Measured | None:
        """The loss with `adapter` (None: the base model), if it was measured before."""
        entry = self._entries().get(self._key(adapter))
        return Measured(float(entry[0]), int(entry[1])) if entry else None

    def put(self, adapter: Path | None, measured: Measured) -> None:
        """Remember a loss."""
        entries = self._entries() | {self._key(adapter): [measured.loss, measured.tokens]}
        write_durably(self._path, json.dumps(entries, indent=1).encode())

    def _key(self, adapter: Path | None) -> str:
        digest = artifact_of_file(adapter).digest if adapter else "base"
        return f"{self._prefix}:{digest}"

    def _entries(self) -> dict[str, list[float]]:
        """A damaged book is an empty one: what is missing is measured again."""
        try:
            entries = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return entries if isinstance(entries, dict) else {}
