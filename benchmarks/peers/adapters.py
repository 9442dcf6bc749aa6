"""The adapters that every system merges in `make bench-merge`, and the check of the result.

The peers run in environments that hold none of this project's dependencies, so this file imports
numpy and nothing else. The values equal those of our own side: one seeded generator a silo, drawn
in the order of the tensors.
"""

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
Adapter = dict[str, Float32Array]

RANK, WIDTH, LAYERS, MODULES = 16, 4096, 32, 4
PACKED = "packed"
TOLERANCE = 1e-5
"""Largest absolute difference from the float64 mean; float32 sums of 64 silos stay far below."""


def tensor_shapes() -> dict[str, tuple[int, int]]:
    """Name and shape of the 256 tensors: A (16, 4096), then B (4096, 16), of each module."""
    shapes: dict[str, tuple[int, int]] = {}
    for layer in range(LAYERS):
        for module in range(MODULES):
            name = f"base_model.model.layers.{layer}.m{module}"
            shapes[f"{name}.lora_A.weight"] = (RANK, WIDTH)
            shapes[f"{name}.lora_B.weight"] = (WIDTH, RANK)
    return shapes


def silo_adapter(silo: int) -> Adapter:
    """The local adapter of a silo: standard normal float32 values seeded with its index."""
    rng = np.random.default_rng(silo)
    return {
        name: rng.standard_normal(shape, dtype=np.float32)
        for name, shape in tensor_shapes().items()
    }


def silo_weight(silo: int) -> int:
    """Number of training records of a silo."""
    return 1000 + silo


def packed(adapter: Adapter) -> Adapter:
    """All values in one flat array, for systems that spend their time on the number of arrays."""
    return {PACKED: np.concatenate([values.ravel() for values in adapter.values()])}


def unpacked(adapter: Adapter) -> Adapter:
    """The tensors of a packed adapter; any other adapter unchanged."""
    if PACKED not in adapter:
        return adapter
    shapes = tensor_shapes()
    ends = np.cumsum([rows * columns for rows, columns in shapes.values()])
    flat = np.split(adapter[PACKED], ends[:-1])
    return {
        name: values.reshape(shape)
        for (name, shape), values in zip(shapes.items(), flat, strict=True)
    }


def adapter_megabytes() -> float:
    """Size of one adapter's values in 10^6 bytes, without the headers of any format."""
    return sum(4 * rows * columns for rows, columns in tensor_shapes().values()) / 1e6


class ExpectedMean:
    """The float64 weighted mean of a few tensors, summed up while the adapters are made."""

    def __init__(self) -> None:
        names = list(tensor_shapes())
        self._names = [names[0], names[1], names[len(names) // 2], names[-1]]
        self._sums = {name: np.zeros(tensor_shapes()[name]) for name in self._names}
        self._total = 0

    def add(self, silo: int, adapter: Adapter) -> None:
        """Count in one silo's adapter."""
        for name in self._names:
            self._sums[name] += silo_weight(silo) * adapter[name].astype(np.float64)
        self._total += silo_weight(silo)

    def check(self, merged: Adapter, tolerance: float = TOLERANCE) -> None:
        """Stop the process with a message if `merged` is not the mean within the tolerance."""
        if set(merged) != set(tensor_shapes()):
            raise SystemExit(f"expected {len(tensor_shapes())} tensors, got {len(merged)}")
        for name in self._names:
            error = float(np.abs(merged[name] - self._sums[name] / self._total).max())
            if not error <= tolerance:
                raise SystemExit(f"{name}: off the mean by {error:g}, expected {tolerance:g}")


def expected_mean(silos: int) -> ExpectedMean:
    """The mean of the first `silos` silos, made anew."""
    expected = ExpectedMean()
    for silo in range(silos):
        expected.add(silo, silo_adapter(silo))
    return expected
