"""A small CNN whose gradient is taken for every worker at once.

Each parameter is repeated per worker and every layer is one batched matrix product, so that one
backward pass gives all gradients, (workers, parameters). The first convolution is 4 x 4 with stride
4: its patches do not overlap, and images are kept as patches from the start.
"""

import torch
import torch.nn.functional as functional

from benchmarks.attacks.digits import CLASSES, SIDE

PATCH = 4
GRID = SIDE // PATCH
INNER = (GRID - 3) // 2 + 1
CHANNELS = 16
SHAPES = (
    *((CHANNELS, PATCH * PATCH), (CHANNELS,)),
    *((CHANNELS, 9 * CHANNELS), (CHANNELS,)),
    *((32, INNER * INNER * CHANNELS), (32,)),
    *((CLASSES, 32), (CLASSES,)),
)
"""Convolutions of 4 x 4 (stride 4) and 3 x 3 (stride 2) to 16 channels, then 32 and 10 units."""

SIZES = [torch.Size(shape).numel() for shape in SHAPES]


def as_patches(images: torch.Tensor) -> torch.Tensor:
    """Images (count, 1, 28, 28) as (count, 49, 16)."""
    return functional.unfold(images, PATCH, stride=PATCH).mT.contiguous()


def initial_weights(seed: int) -> torch.Tensor:
    """One flat vector; uniform in +-1/sqrt(fan-in), the usual start."""
    generator = torch.Generator().manual_seed(seed)
    parts, bound = [], 0.0
    for shape in SHAPES:
        bound = shape[1] ** -0.5 if len(shape) == 2 else bound
        parts.append((2 * torch.rand(shape, generator=generator) - 1).flatten() * bound)
    return torch.cat(parts)


def logits(weights: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
    """Weights (workers, parameters), patches (workers, batch, 49, 16) give (workers, batch, 10)."""
    workers, batch = patches.shape[:2]
    pieces = torch.split(weights, SIZES, dim=1)
    layers = [piece.reshape(workers, *shape) for piece, shape in zip(pieces, SHAPES, strict=True)]
    hidden = _layer(patches.reshape(workers, -1, PATCH * PATCH), layers[0], layers[1])
    hidden = _neighbourhoods(torch.relu(hidden).reshape(workers, batch, GRID, GRID, CHANNELS))
    hidden = _layer(hidden.reshape(workers, -1, 9 * CHANNELS), layers[2], layers[3])
    hidden = torch.relu(hidden).reshape(workers, batch, -1)
    hidden = torch.relu(_layer(hidden, layers[4], layers[5]))
    return _layer(hidden, layers[6], layers[7])


def worker_gradients(
    weights: torch.Tensor, patches: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """The gradient of each worker's mean loss at the same weights, (workers, parameters)."""
    repeated = weights.expand(len(patches), -1).clone().requires_grad_()
    predicted = logits(repeated, patches).flatten(0, 1)
    loss = functional.cross_entropy(predicted, labels.flatten(), reduction="sum")
    (gradient,) = torch.autograd.grad(loss / patches.shape[1], repeated)
    return gradient


def _layer(rows: torch.Tensor, matrix: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return torch.baddbmm(bias[:, None], rows, matrix.mT)


def _neighbourhoods(grid: torch.Tensor) -> torch.Tensor:
    """(workers, batch, 7, 7, c) as the 3 x 3 windows with stride 2, (workers, batch, 3, 3, 9 c)."""
    reach = 2 * INNER - 1
    windows = [grid[:, :, i : i + reach : 2, j : j + reach : 2] for i in range(3) for j in range(3)]
    return torch.cat(windows, dim=-1)
