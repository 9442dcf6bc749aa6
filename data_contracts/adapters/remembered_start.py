"""A starting adapter that many local adapters are held against, read once instead of once for each.

The largest magnitude of every factor is remembered for good, so that a difference that cannot leave
the bounds need not be decoded to be sure of that; the factors of the last few modules are kept.
"""

from collections import OrderedDict
from threading import Lock

from data_contracts.adapters.starting_adapter import AdapterSource, Float32Array
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget

Factors = tuple[Float32Array, Float32Array]


class RememberedStart:
    """An `AdapterSource` for several threads; its arrays are read-only.

    `kept` modules are in memory at a time: one for each thread that reads.
    """

    def __init__(self, source: AdapterSource, kept: int) -> None:
        self._source, self._most = source, kept
        self._kept: OrderedDict[str, Factors] = OrderedDict()
        self._largest: dict[str, tuple[float, float]] = {}
        self._lock = Lock()

    def __reduce__(self) -> tuple[type["RememberedStart"], tuple[AdapterSource, int]]:
        """Another process remembers for itself."""
        return RememberedStart, (self._source, self._most)

    @property
    def layout(self) -> AdapterLayout:
        """The layout of the source."""
        return self._source.layout

    def module(self, target: AdapterTarget, /) -> Factors:
        """A (rank x in) and B (out x rank) of one module of the layout."""
        with self._lock:
            found = self._kept.get(target.module)
            if found is not None:
                self._kept.move_to_end(target.module)
                return found
        a, b = self._source.module(target)
        factors = _read_only(a), _read_only(b)
        largest = (1.0 if target.whole else _magnitude(a)), _magnitude(b)
        with self._lock:
            self._largest[target.module] = largest
            self._kept[target.module] = factors
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return factors

    def largest(self, target: AdapterTarget) -> tuple[float, float]:
        """The largest magnitudes in A and in B of one module."""
        if target.module not in self._largest:
            self.module(target)
        return self._largest[target.module]


def _read_only(factor: Float32Array) -> Float32Array:
    view = factor.view()
    view.flags.writeable = False
    return view


def _magnitude(factor: Float32Array) -> float:
    return max(float(factor.max()), -float(factor.min()))
