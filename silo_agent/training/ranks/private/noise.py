"""Gaussian noise from secret numbers.

Each value is half of the sum of four normal ones (Holohan and Braghin 2021, "Secure random sampling
in differential privacy"): which numbers in floating point it can be does not tell, as that of a
single one does, what it was added to. Values 2k and 2k + 1 follow from words 8k to 8k + 7 of the
key: they are the sums of the cosines and of the sines of four pairs (Box and Muller 1958), in
float64. So several ranks can make a part each.
"""

import math

import numpy as np
import torch

from silo_agent.training.ranks.private.secret_numbers import words_of

PAIRS = 4
WORDS_OF_A_VALUE = PAIRS
BITS = 53
"""As many as a float64 tells apart between 0 and 1."""
AT_A_TIME = 1 << 17
"""Values: what is made of them on the way takes some 20 MiB."""


def normals(key: bytes, first: int, count: int, device: torch.device) -> torch.Tensor:
    """Standard normal values `first`, which is even, to `first + count` of a key: float64."""
    pairs = (count + 1) // 2
    words = words_of(key, first * WORDS_OF_A_VALUE, pairs * 2 * WORDS_OF_A_VALUE)
    whole = (words >> np.uint64(64 - BITS)).astype(np.int64)
    uniform = torch.from_numpy(whole).to(device).double().mul_(2.0**-BITS)
    radius, angle = uniform.reshape(pairs, 2, PAIRS).unbind(1)
    # 0 has no logarithm, and is left out; 1 is not.
    radius = (1 - radius).log_().mul_(-2).sqrt_()
    angle = angle * (2 * math.pi)
    both = ((angle.cos() * radius).sum(1), (angle.sin() * radius).sum(1))
    return torch.stack(both, 1).flatten()[:count].div_(math.sqrt(PAIRS))


def add_noise(sums: torch.Tensor, deviation: float, key: bytes, rank: int, ranks: int) -> None:
    """Add to float32 `sums`, in place, this rank's part of the noise of all.

    Parts do not overlap: once the ranks have added up their sums, each number has noise of this
    standard deviation once.
    """
    size = -(-len(sums) // (2 * ranks)) * 2
    end = min(len(sums), (rank + 1) * size)
    for first in range(rank * size, end, AT_A_TIME):
        count = min(AT_A_TIME, end - first)
        noise = normals(key, first, count, sums.device).mul_(deviation)
        sums[first : first + count] += noise.float()
