"""The merged adapter before evaluation, with how exact the merge was."""

from typing import ClassVar, Literal

from data_contracts.artifact import ArtifactRef
from data_contracts.records.base import RoundRecord
from data_contracts.wire_types import DecimalString, Digest, ModuleName, Part


class ModuleExactness(Part):
    """Share of the stacked sum's squared Frobenius norm that truncation discarded, 0 to 1."""

    module: ModuleName
    discarded_energy: DecimalString


class Candidate(RoundRecord):
    """Deterministic in the close record: same bytes for the same wheels and kind of CPU."""

    kind: ClassVar[str] = "candidate"

    close_digest: Digest
    merge_rule: Literal["stack_truncate"]
    adapter: ArtifactRef
    discarded_energy: DecimalString
    modules: tuple[ModuleExactness, ...]
