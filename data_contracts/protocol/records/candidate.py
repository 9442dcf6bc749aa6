"""The merged adapter before evaluation: how exact the merge was, and each silo's part in it."""

from decimal import Decimal
from typing import Annotated, ClassVar

from pydantic import Field

from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.records.evidence_ref import EvidenceRef
from data_contracts.protocol.records.merge_spec import MergeRule
from data_contracts.protocol.records.round_record import RoundRecord
from data_contracts.protocol.wire_types import DecimalString, Digest, ModuleName, Part, SiloId


class ModuleExactness(Part):
    """How far the merge of one module is from the true weighted sum of products.

    `discarded_energy`: share, 0 to 1, of the sum's squared Frobenius norm that truncation dropped.
    `error`: Frobenius norm of (merge - sum) over that of the sum; of a sum of zero, 0;
    of a masked sum, None: nobody saw the products.
    """

    module: ModuleName
    discarded_energy: DecimalString
    error: DecimalString | None = Decimal("0")


class SiloInfluence(Part):
    """What one silo did to a merge under a defence.

    `influence`: its share, 0 to 1, of the sum of |coefficient| x norm, or, under a rule that works
    entry by entry, of the entries that were kept. `kept`: the factor by which its delta was
    shortened, 1 when it was not clipped. `norm` and `distance` (to the merged delta, where the rule
    has weights) are Frobenius norms of products. `alarm`: one of them lies far outside the others'.
    """

    silo: SiloId
    influence: DecimalString
    kept: DecimalString
    norm: DecimalString
    distance: DecimalString | None
    alarm: bool


class StepNorms(Part):
    """What the step of `fedexp` follows from where silos' changes are masked.

    `mean_square`: the weighted mean of the squared norms of their changes, which is in the sum that
    was opened, as silos said it; `square_of_mean`: the squared norm of the mean change.
    """

    mean_square: DecimalString
    square_of_mean: DecimalString


class Candidate(RoundRecord):
    """Deterministic in the close record: same bytes for the same wheels and kind of CPU.

    `residual` and `server_state` are what the next round starts from besides the adapter;
    `needs_person` holds the candidate until a person has looked at the alarms. `step` is what the
    optimizer `fedexp` multiplied the merged delta with, `step_norms` what it follows from behind
    masks. `error_interval`: half the width of the 95 % interval of `error` where that is estimated
    from random probes, and `discarded_energy` with it; None where both were measured in full.
    `unmasking`: the shares that opened a masked sum, and the countersignatures on which they were
    revealed.
    """

    kind: ClassVar[str] = "candidate"
    table_fields: ClassVar[tuple[str, ...]] = ("modules", "influences")
    added_fields: ClassVar[tuple[str, ...]] = ("step", "error_interval", "unmasking", "step_norms")

    close_digest: Digest
    merge_rule: MergeRule
    adapter: ArtifactRef
    residual: ArtifactRef | None = None
    server_state: ArtifactRef | None = None
    discarded_energy: DecimalString
    error: DecimalString | None = Decimal("0")
    error_interval: DecimalString | None = None
    modules: tuple[ModuleExactness, ...]
    influences: tuple[SiloInfluence, ...] = ()
    needs_person: bool = False
    step: DecimalString | None = None
    unmasking: Annotated[tuple[EvidenceRef, ...], Field(min_length=1, max_length=100)] | None = None
    step_norms: StepNorms | None = None
