"""Losses that were already measured, so that no forward pass runs twice.

A loss depends on the base model, the precision in which the device measures, the bytes of adapter
and residual, their layouts, the gate between them where there is one, the held-out records, how
many sequences of which length are taken from them in which order, and the date that a chat template
writes; that is the key.
Sums of single records are kept beside the losses, for the newest such choice of records alone:
they say something about each record, so they go when other records are measured.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from data_contracts.protocol.artifact import artifact_of_file, digest_of_bytes
from data_contracts.protocol.records import RoundPlan
from infra.disk.durable_files import write_durably
from silo_agent.training.engine_spec import PINNED, Device
from silo_agent.training.job import EvaluatedAdapter
from silo_agent.training.loss import Loss, RecordSums, mean_loss

LOSSES_NAME = "heldout-losses.json"
SUMS_NAME = "heldout-record-sums.json"
MAX_LOSSES = 4096
"""The newest are kept: more than a request for coalitions and a year of nightly rounds need."""

MEASURE_VERSION = 3
"""Raised whenever the same records would give other losses, so that no old one is compared."""

Finite = Annotated[float, Field(allow_inf_nan=False)]
Tokens = Annotated[int, Field(ge=1, strict=True)]
Share = Annotated[float, Field(ge=0, le=1)]
Entry = tuple[Finite, Tokens] | tuple[Finite, Tokens, Share]
"""Loss, how much it is the mean of, and of families that count it the share that is right."""
_LOSSES = TypeAdapter(dict[str, Entry])


class LossBook:
    """The silo's measured losses for one plan and one held-out file.

    A file that is damaged or of another version is an empty one: what is missing is measured again.
    """

    def __init__(
        self, home: Path, plan: RoundPlan, heldout: Path, sequences: int, device: Device = "cpu"
    ) -> None:
        self._losses_path, self._sums_path = home / LOSSES_NAME, home / SUMS_NAME
        self._prefix = (
            f"{plan.base_model.digest[:16]}:{artifact_of_file(heldout).digest[:16]}:"
            f"{plan.recipe.sequence_length}x{sequences}:{plan.layout.seed}:"
            f"{MEASURE_VERSION}@{plan.day}:{PINNED[device].precision}"
        )
        if plan.task is not None:
            self._prefix += f":{digest_of_bytes(plan.task.model_dump_json().encode())[:16]}"
        self._layout = plan.layout

    def get(self, adapter: EvaluatedAdapter) -> Loss | None:
        """The loss with `adapter`, whatever its name, if it was measured before."""
        return self._loss(self._key(adapter))

    def put(self, adapter: EvaluatedAdapter, loss: Loss) -> None:
        """Remember a loss, and the sums of its records where it has them."""
        key = self._key(adapter)
        if loss.records:
            # Before the loss, without which they do not count: never a loss that has lost its sums.
            sums = self._sums().having(key, loss.records)
            write_durably(self._sums_path, sums.model_dump_json().encode())
        losses = self._losses()
        losses.pop(key, None)
        entry = (loss.nats, loss.tokens)
        losses[key] = entry if loss.right is None else (*entry, loss.right)
        newest = dict(list(losses.items())[-MAX_LOSSES:])
        write_durably(self._losses_path, json.dumps(newest, indent=1).encode())

    def without_records(self, adapters: Sequence[EvaluatedAdapter]) -> tuple[EvaluatedAdapter, ...]:
        """Those of whose records nothing is known, of the same model under two names the first."""
        keyed: dict[str, EvaluatedAdapter] = {}
        for adapter in adapters:
            keyed.setdefault(self._key(adapter), adapter)
        known = {key: self._loss(key) for key in keyed}
        return tuple(
            adapter
            for key, adapter in keyed.items()
            if (found := known[key]) is None or not found.records
        )

    def _loss(self, key: str) -> Loss | None:
        entry = self._losses().get(key)
        if entry is None:
            return None
        right = entry[2] if len(entry) == 3 else None
        loss = Loss(nats=entry[0], tokens=entry[1], records=self._sums().of(key), right=right)
        return loss if _agrees(loss) else loss.without_records()

    def _key(self, adapter: EvaluatedAdapter) -> str:
        layout = adapter.layout or self._layout
        stabilised = "rs" if layout.use_rslora else ""
        digest = artifact_of_file(adapter.path).digest if adapter.path else "base"
        residual = f"+{artifact_of_file(adapter.residual).digest}" if adapter.residual else ""
        gate = adapter.gate.model_dump_json().encode() if adapter.gate else None
        mixed = f"?{digest_of_bytes(gate)}" if gate else ""
        return f"{self._prefix}:{layout.alpha}/{layout.rank}{stabilised}:{digest}{residual}{mixed}"

    def _losses(self) -> dict[str, Entry]:
        try:
            return _LOSSES.validate_json(self._losses_path.read_bytes())
        except (OSError, ValidationError):
            return {}

    def _sums(self) -> "_Sums":
        """Of other records than this book's: none."""
        try:
            sums = _Sums.model_validate_json(self._sums_path.read_bytes())
        except (OSError, ValidationError):
            return _Sums(chosen=self._prefix)
        return sums if sums.chosen == self._prefix else _Sums(chosen=self._prefix)


class _Sums(BaseModel):
    """Sums in nats by key, all of the same records, which have `tokens` answer tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    chosen: str
    tokens: tuple[Tokens, ...] = ()
    nats: dict[str, tuple[Finite, ...]] = {}

    @model_validator(mode="after")
    def _are_of_the_same_records(self) -> Self:
        if any(len(sums) != len(self.tokens) for sums in self.nats.values()):
            raise ValueError("expected as many sums as records")
        return self

    def of(self, key: str) -> RecordSums:
        """Empty when there are none."""
        nats = self.nats.get(key)
        return () if nats is None else tuple(zip(nats, self.tokens, strict=True))

    def having(self, key: str, records: RecordSums) -> "_Sums":
        """With sums under `key`; those that are not of the same records are dropped."""
        tokens = tuple(count for _, count in records)
        others = self.nats if tokens == self.tokens else {}
        nats = others | {key: tuple(value for value, _ in records)}
        return _Sums(chosen=self.chosen, tokens=tokens, nats=nats)


def _agrees(loss: Loss) -> bool:
    """Whether sums are those of the loss beside them."""
    return (
        bool(loss.records)
        and sum(tokens for _, tokens in loss.records) == loss.tokens
        and math.isclose(mean_loss(loss.records), loss.nats, rel_tol=1e-9, abs_tol=1e-12)
    )
