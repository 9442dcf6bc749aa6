"""What a result is bound to: the job, and the bytes of every file that it names."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.artifact import artifact_of_file


def fingerprint_of(described: str, files: Sequence[Path]) -> str:
    """SHA-256 over a job in words and the bytes of `files`; SiloOperatorError where one cannot be
    read."""
    digest = hashlib.sha256(described.encode())
    for path in files:
        try:
            digest.update(artifact_of_file(path).digest.encode())
        except OSError as error:
            raise SiloOperatorError(
                f"file of a training job, {path}",
                expected="a readable file",
                found=error.strerror or str(error),
                action="run the data gate and fetch the round's adapters again",
            ) from error
    return digest.hexdigest()
