"""Merged modules on their way to disk: a part file with fixed offsets, and a journal next to it.

Modules are finished in any order, each written at its place. A merge that was killed continues: the
journal names every finished module and the digest of its bytes, and what the part file still holds
under that digest is not computed again. The file itself is absent or complete.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from aggregator.merge.exactness import Norms
from data_contracts.adapters.starting_adapter import Float32Array
from data_contracts.adapters.tensor_layout import Entry, payload_bytes, safetensors_header
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.artifact import ArtifactRef, artifact_of_file
from infra.disk.file_lock import try_lock


class MergedFile:
    """A safetensors file under way to `into`, whose tensors lie module by module.

    `modules` has the entries of every module, in order. Modules that are written in that order are
    hashed on the way; otherwise the file is read again in the end.
    """

    def __init__(self, into: Path, modules: Sequence[Mapping[str, Entry]]) -> None:
        into.parent.mkdir(parents=True, exist_ok=True)
        self._into = into
        self._part = into.with_name(f".{into.name}.part")
        if into.exists() and not self._part.exists():
            # Copied, because the finished file may have a second name.
            shutil.copyfile(into, self._part)
            self._part.chmod(0o600)
        entries = {name: entry for module in modules for name, entry in module.items()}
        header = safetensors_header(entries)
        sizes = (payload_bytes(module) for module in modules)
        self._starts = list(accumulate(sizes, initial=len(header)))
        self._descriptor = os.open(self._part, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self._descriptor, self._starts[-1])
        os.pwrite(self._descriptor, header, 0)
        self._running, self._next = hashlib.sha256(header), 0

    def write(self, index: int, tensors: Sequence[Float32Array]) -> str:
        """Write the tensors of module `index` at their place; returns the SHA-256 of its bytes."""
        views = [np.ascontiguousarray(t, dtype="<f4").data.cast("B") for t in tensors]
        position, size = self._starts[index], sum(len(view) for view in views)
        if size != self._starts[index + 1] - position:
            raise ValueError(f"module {index}: {size} bytes do not fit the layout")
        digest = hashlib.sha256()
        for view in views:
            digest.update(view)
            if index == self._next:
                self._running.update(view)
            self._write_all(view, position)
            position += len(view)
        self._next += index == self._next
        return digest.hexdigest()

    def holds(self, index: int, digest: str) -> bool:
        """Whether the bytes of module `index` are those with this SHA-256."""
        start, end = self._starts[index], self._starts[index + 1]
        return hashlib.sha256(os.pread(self._descriptor, end - start, start)).hexdigest() == digest

    def finish(self) -> ArtifactRef:
        """Give the file its name; returns its digest and size.

        It is not synced to disk: after a power cut the journal finds what was lost.
        """
        if self._next == len(self._starts) - 1:
            digest = self._running.hexdigest()
            reference = ArtifactRef(digest=digest, size=self._starts[-1])
        else:
            reference = artifact_of_file(self._part)
        self._part.replace(self._into)
        return reference

    def close(self) -> None:
        """Give the descriptor back; an unfinished part file stays for the next attempt."""
        os.close(self._descriptor)

    def _write_all(self, view: memoryview, position: int) -> None:
        while view:
            written = os.pwrite(self._descriptor, view, position)
            view, position = view[written:], position + written


@dataclass(frozen=True)
class FinishedModule:
    """A journal entry: one module's figures and the SHA-256 of its bytes in each file."""

    index: int
    adapter_digest: str
    state_digest: str | None
    is_zero: bool
    norms: Norms


class MergeJournal:
    """Finished modules of the merge with this fingerprint; entries of any other are dropped."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        self._file = path.open("a+", encoding="utf-8")
        if not try_lock(self._file):
            self._file.close()
            raise FederationOperatorError(
                f"merge into {path.parent}",
                expected="one merge of an attempt at a time",
                found="another process that is at it",
                action="let it finish; run one coordinator for a federation",
            )
        self.finished = _entries(path, fingerprint)
        if not self.finished:
            self._file.truncate(0)
            self._write(fingerprint)

    def add(self, entry: FinishedModule) -> None:
        """Remember a module whose bytes are written."""
        self._write(asdict(entry))

    def _write(self, line: object) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


def _entries(path: Path, fingerprint: str) -> dict[int, FinishedModule]:
    """Entries by module; a torn last line is what a kill leaves and counts as not written."""
    try:
        first, *lines = path.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, ValueError):
        return {}
    if first != json.dumps(fingerprint):
        return {}
    entries: dict[int, FinishedModule] = {}
    for line in lines:
        try:
            fields = json.loads(line)
            entry = FinishedModule(**{**fields, "norms": _norms(fields["norms"])})
        except (ValueError, TypeError, KeyError):
            continue
        entries[entry.index] = entry
    return entries


def _norms(fields: dict[str, Any]) -> Norms:
    """JSON has lists where the value has tuples."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return Norms(**values)
