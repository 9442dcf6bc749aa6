"""The file of one masked payload: a header that says whose and of which attempt, then uint32.

48 bytes: 8 of magic and version, the number of entries (8, little-endian), and a digest of attempt,
silo and number of entries (32). Behind it the entries, little-endian. Whoever knows the plan knows
every byte of the header and the size, and the rest looks random: a file tells nothing of its
content and has one size for all silos of a round.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from data_contracts.masking.derivation import commitment, unfit
from data_contracts.masking.pads import ENTRY_BYTES, UInt32Array

MAGIC = b"CSMASK\x00\x01"
COUNT_BYTES, DIGEST_BYTES = 8, 32
HEADER_BYTES = len(MAGIC) + COUNT_BYTES + DIGEST_BYTES


@dataclass(frozen=True)
class MaskedFile:
    """A file that passed the gate. Any of its entries can be read alone."""

    path: Path
    silo: str
    entries: int

    def read_into(self, out: UInt32Array, first: int) -> None:
        """Entries `first` and on; raises UntrustedInputError where the file became shorter."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            view = out.data.cast("B")
            read = os.preadv(descriptor, [view], HEADER_BYTES + first * ENTRY_BYTES)
        finally:
            os.close(descriptor)
        if read != out.nbytes:
            raise _refused(self.silo, f"{self.entries} entries", "fewer", "truncated")


def masked_header(binding: bytes, silo: str, entries: int) -> bytes:
    """What every masked file of `silo` in this attempt begins with."""
    count = entries.to_bytes(COUNT_BYTES, "little")
    digest = bytes.fromhex(commitment("masked file", binding, silo.encode(), count))
    return MAGIC + count + digest


def masked_bytes(entries: int) -> int:
    """Size of a masked file, the same for every silo."""
    return HEADER_BYTES + entries * ENTRY_BYTES


def open_masked(path: Path, binding: bytes, silo: str, entries: int) -> MaskedFile:
    """The gate for a file that `silo` wrote: its size and its header, before anything is summed.

    Raises UntrustedInputError. Every content is a possible one, so nothing else can be checked.
    """
    size, expected = path.stat().st_size, masked_bytes(entries)
    if size != expected:
        raise _refused(silo, f"{expected} bytes", f"{size}", "wrong_size")
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    if header != masked_header(binding, silo, entries):
        what = f"the header of {silo}'s file in this attempt"
        raise _refused(silo, what, "another", "wrong_header")
    return MaskedFile(path, silo, entries)


def _refused(silo: str, expected: str, found: str, rule: str) -> Exception:
    return unfit(f"masked file of {silo}", expected, found, rule)
