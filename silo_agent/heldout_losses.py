"""Losses that were already measured, so that no forward pass runs twice.

A loss depends on the base model, the bytes of adapter and residual, their layouts, the held-out
records and how many sequences of which length are taken from them; that is the key.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from data_contracts.artifact import artifact_of_file
from data_contracts.records import RoundPlan
from infra.durable_files import write_durably
from silo_agent.training.job import EvaluatedAdapter

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
            f"{recipe.sequence_length}x{sequences}"
        )
        self._layout = plan.layout

    def get(self, adapter: EvaluatedAdapter) -> Measured | None:
        """The loss with `adapter`, whatever its name, if it was measured before."""
        entry = self._entries().get(self._key(adapter))
        return Measured(float(entry[0]), int(entry[1])) if entry else None

    def put(self, adapter: EvaluatedAdapter, measured: Measured) -> None:
        """Remember a loss."""
        entries = self._entries() | {self._key(adapter): [measured.loss, measured.tokens]}
        write_durably(self._path, json.dumps(entries, indent=1).encode())

    def _key(self, adapter: EvaluatedAdapter) -> str:
        layout = adapter.layout or self._layout
        stabilised = "rs" if layout.use_rslora else ""
        digest = artifact_of_file(adapter.path).digest if adapter.path else "base"
        residual = f"+{artifact_of_file(adapter.residual).digest}" if adapter.residual else ""
        return f"{self._prefix}:{layout.alpha}/{layout.rank}{stabilised}:{digest}{residual}"

    def _entries(self) -> dict[str, list[float]]:
        """A damaged book is an empty one: what is missing is measured again."""
        try:
            entries = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return entries if isinstance(entries, dict) else {}
