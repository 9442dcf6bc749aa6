"""Deltas for the tests of robust rules: LoRA factors, dense deltas and their kernels.

The dense versions of the rules are written from the papers on (n, d) arrays, without the kernel.
"""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Factors = list[list[tuple[Array, Array]]]
"""factors[silo][module] is (B, A)."""

SHAPES = ((12, 9), (7, 15), (10, 10))
RANK = 3


def random_factors(seed: int, silos: int, spread: float = 0.5) -> Factors:
    """Silos that agree on a common part and differ by `spread`."""
    rng = np.random.default_rng(seed)
    common = [(rng.normal(size=(m, RANK)), rng.normal(size=(RANK, k))) for m, k in SHAPES]
    return [
        [
            (b + spread * rng.normal(size=b.shape), a + spread * rng.normal(size=a.shape))
            for b, a in common
        ]
        for _ in range(silos)
    ]


def in_other_gauges(factors: Factors, seed: int) -> Factors:
    """The same deltas as (B G^-1, G A), with singular values of G from 0.1 to 10."""
    rng = np.random.default_rng(seed)
    turned: Factors = []
    for modules in factors:
        gauges = [_gauge(rng) for _ in modules]
        turned.append(
            [(b @ np.linalg.inv(g), g @ a) for (b, a), g in zip(modules, gauges, strict=True)]
        )
    return turned


def dense(factors: Factors) -> Array:
    """Every delta as one row, (n, d)."""
    rows = [np.concatenate([(b @ a).ravel() for b, a in modules]) for modules in factors]
    return np.stack(rows)


def factor_kernel(factors: Factors) -> Array:
    """K_ij = sum over modules of <B_i^T B_j, A_i A_j^T>, without any product B A."""
    silos = range(len(factors))
    return np.array([[_product(factors[i], factors[j]) for j in silos] for i in silos])


def random_deltas(seed: int, silos: int, size: int = 30, spread: float = 0.5) -> Array:
    """Dense deltas around a common one of norm about sqrt(size)."""
    rng = np.random.default_rng(seed)
    return np.asarray(rng.normal(size=size) + spread * rng.normal(size=(silos, size)))


def dense_geometric_median(deltas: Array) -> Array:
    """Weiszfeld on points, until it stands still."""
    floor = 1e-6 * float(np.median(np.linalg.norm(deltas, axis=1)))
    point = deltas.mean(axis=0)
    for _ in range(20_000):
        inverse = 1 / np.maximum(np.linalg.norm(deltas - point, axis=1), floor)
        before, point = point, inverse @ deltas / inverse.sum()
        if np.linalg.norm(point - before) < 1e-13:
            break
    return np.asarray(point)


def dense_centred_clipping(deltas: Array, centre: Array) -> Array:
    """Three steps; the radius is the median distance to where each step begins."""
    for _ in range(3):
        differences = deltas - centre
        distances = np.linalg.norm(differences, axis=1)
        factors = np.minimum(1, np.median(distances) / np.maximum(distances, 1e-300))
        centre = centre + (factors[:, None] * differences).mean(axis=0)
    return centre


def dense_mixing(deltas: Array, tolerated: int) -> Array:
    """Each delta replaced by the mean of the n - f nearest, itself among them."""
    kept = len(deltas) - tolerated
    rows = []
    for delta in deltas:
        nearest = np.argsort(np.linalg.norm(deltas - delta, axis=1))[:kept]
        rows.append(deltas[nearest].mean(axis=0))
    return np.stack(rows)


def dense_multi_krum(deltas: Array, tolerated: int, kept: int) -> Array:
    """The mean of the `kept` deltas with the smallest sums of squared distances."""
    scores = []
    for delta in deltas:
        squares = np.sort(((deltas - delta) ** 2).sum(axis=1))
        scores.append(squares[1 : len(deltas) - tolerated - 1].sum())
    return np.asarray(deltas[np.argsort(scores)[:kept]].mean(axis=0))


def dense_clipped(deltas: Array) -> Array:
    """Norms cut to the median norm."""
    sizes = np.linalg.norm(deltas, axis=1)
    return np.asarray(deltas * np.minimum(1, np.median(sizes) / sizes)[:, None])


def _product(left: list[tuple[Array, Array]], right: list[tuple[Array, Array]]) -> float:
    pairs = zip(left, right, strict=True)
    return float(sum(((b.T @ d) * (a @ c.T)).sum() for (b, a), (d, c) in pairs))


def _gauge(rng: np.random.Generator) -> Array:
    left, _ = np.linalg.qr(rng.normal(size=(RANK, RANK)))
    right, _ = np.linalg.qr(rng.normal(size=(RANK, RANK)))
    return np.asarray(left * np.exp(rng.uniform(-2.3, 2.3, RANK)) @ right)
