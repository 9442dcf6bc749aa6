"""Numbers that nobody can guess who does not know the silo's secret: what a private step draws.

Each is a part of the keystream of AES-256 in counter mode, under a key that HKDF-SHA256 (RFC 5869)
gives for the secret, the fingerprint of the job, one purpose and one step. So a step that is done
again, after a kill, draws the same and adds the same noise; nothing that differs in the job, in the
step or in the secret has anything to do with it.
"""

from pathlib import Path
from typing import Literal

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from data_contracts.errors import SiloOperatorError
from data_contracts.masking.pads import keystream

Purpose = Literal["units", "records", "pieces", "shown", "dropout", "noise"]
SECRET_BYTES = KEY_BYTES = 32
VERSION = b"consortia private steps 1"
ENTRIES_OF_A_WORD = 2

Words = NDArray[np.uint64]


class SecretNumbers:
    """Of one job; raises SiloOperatorError where the file of the secret is not as it should be."""

    def __init__(self, secret: Path, fingerprint: str) -> None:
        self._secret, self._fingerprint = _read(secret), fingerprint

    def key(self, purpose: Purpose, step: int) -> bytes:
        """32 bytes for one purpose in one step; steps count from 0."""
        parts = (VERSION, purpose.encode(), self._fingerprint.encode(), step.to_bytes(8, "big"))
        info = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        derivation = HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=info)
        return derivation.derive(self._secret)

    def words(self, purpose: Purpose, step: int, count: int) -> Words:
        """So many numbers of 64 bits, each of them as likely as any other."""
        return words_of(self.key(purpose, step), 0, count)


def words_of(key: bytes, first: int, count: int) -> Words:
    """Numbers `first` to `first + count` of a key, in any order and by any number of processes."""
    entries = keystream(key, first * ENTRIES_OF_A_WORD, count * ENTRIES_OF_A_WORD)
    return entries.view("<u8")


def _read(path: Path) -> bytes:
    try:
        found = path.read_bytes()
    except OSError as error:
        raise _no_secret(path, error.strerror or type(error).__name__) from error
    if len(found) != SECRET_BYTES:
        raise _no_secret(path, f"{len(found)} bytes")
    return found


def _no_secret(path: Path, found: str) -> SiloOperatorError:
    return SiloOperatorError(
        f"secret of private training, {path}",
        expected=f"a file of {SECRET_BYTES} random bytes that this process can read",
        found=found,
        action="restore the silo's home from a backup, or remove the file and start the agent "
        "again, which draws another",
    )
