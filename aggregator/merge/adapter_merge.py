"""Merge whole adapters, module by module, from files that passed the gate.

Silo i started from (A_g, B_g) and submits (A_i, B_i); its delta is the product
[s_i B_i, -s B_g][A_i; A_g]. The new adapter is start + sum of w_i delta_i. The weights are
normalised as exact fractions that sum to one, so the two occurrences of the start cancel exactly
and what is stacked is sum of w_i s_i B_i A_i, without rounding the start in and out again.

Guaranteed: the order of the submissions does not matter (they are sorted by digest), the same
inputs give the same bytes, and the file is absent or complete. One module of every silo is in
memory at a time: 8 bytes x (in + out) x sum of ranks, plus factors of the same size.
"""

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from aggregator.merge.stack_truncate import MergedModule, Term, stack_truncate
from data_contracts.adapter_format import FLOAT32_BYTES, AdapterFile, expected_shapes
from data_contracts.artifact import ArtifactRef, artifact_of_file
from data_contracts.errors import FederationOperatorError
from data_contracts.records.round_plan import AdapterSpec
from infra.durable_files import sync_directory

HEADER_ALIGNMENT_BYTES = 8


@dataclass(frozen=True)
class AdapterMerge:
    """The merged file, and the shares of energy (0 to 1) that truncation discarded.

    `modules` has one pair (module, share) per module, in the order of the spec.
    """

    adapter: ArtifactRef
    discarded_energy: float
    modules: tuple[tuple[str, float], ...]


def merge_adapters(
    adapters: Sequence[tuple[AdapterFile, int]],
    starting: AdapterFile | None,
    spec: AdapterSpec,
    into: Path,
    on_progress: Callable[[int, int], None] | None = None,
) -> AdapterMerge:
    """Write the merge of `adapters`, each with its weight in tokens, to the file `into`.

    `starting` is the adapter that all silos started from: its layout must be that of `spec`, and
    its values cancel (see above). `on_progress` gets modules done and modules in all. Raises
    FederationOperatorError when weights or layouts do not fit together.
    """
    shares = _shares(adapters)
    for adapter in [adapter for adapter, _ in shares] + ([starting] if starting else []):
        _require_modules(adapter, spec)
    merged = _merged_modules(shares, spec, on_progress)
    return _write_merge(merged, spec, into)


def _shares(adapters: Sequence[tuple[AdapterFile, int]]) -> list[tuple[AdapterFile, Fraction]]:
    """Weights as fractions that sum to one, in the order of the files' digests."""
    if not adapters or min(weight for _, weight in adapters) < 1:
        raise FederationOperatorError(
            "merge",
            expected="at least one adapter, each with a weight of at least 1 token",
            found=f"weights {[weight for _, weight in adapters]}",
            action="close the round again from its evidence; admission never gives such weights",
        )
    total = sum(weight for _, weight in adapters)
    keyed = [(artifact_of_file(a.path).digest, weight, a) for a, weight in adapters]
    return [(a, Fraction(weight, total)) for _, weight, a in sorted(keyed, key=lambda k: k[:2])]


def _require_modules(adapter: AdapterFile, spec: AdapterSpec) -> None:
    if adapter.spec.targets != spec.targets:
        raise FederationOperatorError(
            f"adapter {adapter.path.name}",
            expected="the modules and shapes of the plan",
            found="others",
            action="open each adapter with the spec of the plan that it belongs to",
        )


def _merged_modules(
    shares: Sequence[tuple[AdapterFile, Fraction]],
    spec: AdapterSpec,
    on_progress: Callable[[int, int], None] | None,
) -> Iterator[MergedModule]:
    for done, target in enumerate(spec.targets, start=1):
        terms = []
        for adapter, share in shares:
            a, b = adapter.module(target)
            terms.append(Term(float(share), adapter.spec.scaling, a, b))
        yield stack_truncate(terms, spec.rank, spec.scaling)
        if on_progress:
            on_progress(done, len(spec.targets))


def _write_merge(merged: Iterable[MergedModule], spec: AdapterSpec, into: Path) -> AdapterMerge:
    """Stream the modules into a safetensors file in the order of `expected_shapes`."""
    into.parent.mkdir(parents=True, exist_ok=True)
    temporary = into.with_name(f".{into.name}.{os.getpid()}.part")
    digest, size = hashlib.sha256(), 0
    shares, total, discarded = [], 0.0, 0.0
    try:
        with temporary.open("wb") as file:
            header = safetensors_header(spec)
            chunks: list[bytes] = [header]
            for target, module in zip(spec.targets, merged, strict=True):
                chunks += [module.a.tobytes(), module.b.tobytes()]
                size += _write_chunks(file.write, digest.update, chunks)
                chunks = []
                total += module.squared_norm
                discarded += module.squared_norm * module.discarded_energy
                shares.append((target.module, module.discarded_energy))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(into)
        sync_directory(into.parent)
    finally:
        temporary.unlink(missing_ok=True)
    reference = ArtifactRef(digest=digest.hexdigest(), size=size)
    return AdapterMerge(reference, discarded / total if total > 0 else 0.0, tuple(shares))


def safetensors_header(spec: AdapterSpec) -> bytes:
    """Length and JSON header of an adapter of `spec`, tensors in the order of the spec."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, (rows, columns) in expected_shapes(spec).items():
        end = position + rows * columns * FLOAT32_BYTES
        header[name] = {"dtype": "F32", "shape": [rows, columns], "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % HEADER_ALIGNMENT_BYTES)
    return struct.pack("<Q", len(text)) + text


def _write_chunks(
    write: Callable[[bytes], object], update: Callable[[bytes], object], chunks: Sequence[bytes]
) -> int:
    for chunk in chunks:
        write(chunk)
        update(chunk)
    return sum(len(chunk) for chunk in chunks)
