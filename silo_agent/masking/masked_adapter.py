"""The local adapter as it leaves in a confidential round: a masked file, written once.

Two passes over the adapter where the plan bounds the norm of the whole difference, else one. Pieces
are rounded and masked on several threads and written in order, so that the bytes depend on the
number of threads as little as the memory does on the size of the adapter.
"""

from dataclasses import dataclass
from pathlib import Path

from data_contracts.masking.fixed_point import Float64Array
from data_contracts.masking.masked_file import masked_header, open_masked
from data_contracts.masking.pads import UInt32Array
from data_contracts.masking.pieces import MaskedChange
from data_contracts.masking.silo_mask import MaskTerms, OwnPlace
from data_contracts.protocol.artifact import ArtifactRef, artifact_of_file
from infra.processes.worker_threads import in_order
from silo_agent.compression.streamed_file import streamed_file


@dataclass(frozen=True)
class MaskedAdapter:
    """What was written, for the silo's own people: how many entries were cut to the range, and the
    part (0 to 1) of the difference that the bound on its norm left. None where it was there before.
    """

    sent: ArtifactRef
    clipped: int | None = None
    kept: float | None = None


def write_masked(
    path: Path, change: MaskedChange, place: OwnPlace, terms: MaskTerms, workers: int
) -> MaskedAdapter:
    """Write the masked file of `place.silo`; where there is one already, that is what is sent.

    The second would show its difference to the first to whoever has both. Raises SiloOperatorError
    for an adapter that cannot be masked (see `MaskedChange.pieces`) or a disk that refuses; then
    there is no file.
    """
    binding, silo, count = place.group.binding, place.silo, change.payload.entries
    if path.exists():
        open_masked(path, binding, silo, count)
        return MaskedAdapter(artifact_of_file(path))
    mask, clipped = place.mask(terms, change.payload), 0
    kept = 1.0 if terms.largest_norm is None else terms.kept(change.norm())

    def masked(piece: tuple[int, Float64Array]) -> tuple[UInt32Array, int]:
        return mask.masked(*piece)

    with streamed_file(path) as file:
        file.write(masked_header(binding, silo, count))
        for entries, cut in in_order(masked, change.pieces(terms.fixed_point, kept), workers):
            file.write(entries)
            clipped += cut
    return MaskedAdapter(file.artifact, clipped, kept)
