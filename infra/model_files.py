"""The base model's files on local disk, and the digest that a plan names them by.

The digest covers every file that decides what the model computes (configuration, weights,
tokenizer, chat template) and no other. A directory is refused when loading it could run code
(pickle weights, Python files) or add weights that the digest would not cover (an adapter, which
transformers loads unasked).
"""

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rfc8785

from data_contracts.artifact import artifact_of_file, digest_of_bytes
from data_contracts.errors import SiloOperatorError

MAX_CACHE_BYTES = 4 * 1024 * 1024

_MODEL_SUFFIXES = {".json", ".safetensors", ".jinja", ".model"}
_MODEL_NAMES = {"merges.txt", "vocab.txt"}
_REFUSED_SUFFIXES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".py", ".pyc", ".so"}
_REFUSED_NAMES = {"adapter_config.json", "adapter_model.safetensors"}


@dataclass(frozen=True)
class _Stamp:
    """What tells, without reading it, that a file is the one hashed before; time in ns."""

    size: int
    mtime_ns: int


def model_digest(directory: Path, cache_file: Path | None = None) -> str:
    """SHA-256 (64 hex digits) over the RFC 8785 JSON of {file name: {sha256, size}}.

    Names are relative to `directory` with forward slashes. With `cache_file`, a file whose path,
    size and modification time are unchanged is not read again; the cache is as trustworthy as the
    disk that it lies on. Raises SiloOperatorError when the directory is no model, or an unsafe one.
    """
    cache = _read_cache(cache_file)
    entries: dict[str, dict[str, str | int]] = {}
    fresh: dict[str, dict[str, str | int]] = {}
    for name, path in model_files(directory).items():
        key = str(path.resolve())
        known = _entry_of(path, cache.get(key))
        fresh[key] = known
        entries[name] = {"sha256": known["sha256"], "size": known["size"]}
    if cache_file is not None and any(cache.get(key) != fresh[key] for key in fresh):
        _write_cache(cache_file, {**cache, **fresh})
    return digest_of_bytes(rfc8785.dumps(entries))


def model_files(directory: Path) -> dict[str, Path]:
    """Every file that the digest covers, by its name relative to `directory`, sorted."""
    if not directory.is_dir():
        raise _unusable(directory, "a directory", "none", "set the path of the base model")
    found: dict[str, Path] = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        # Hidden folders are a download tool's notes; transformers never looks into them.
        if name.startswith(".") or "/." in name or not path.is_file():
            continue
        if path.suffix in _REFUSED_SUFFIXES or path.name in _REFUSED_NAMES:
            action = "remove it; convert pickle weights to safetensors, and merge an adapter first"
            raise _unusable(directory, "safetensors, JSON and text files only", name, action)
        if path.suffix in _MODEL_SUFFIXES or path.name in _MODEL_NAMES:
            found[name] = path
    missing = {"config.json"} - set(found)
    if missing or not any(name.endswith(".safetensors") for name in found):
        expected = "config.json and at least one .safetensors file"
        raise _unusable(directory, expected, "less", "prepare the base model again")
    return found


def _entry_of(path: Path, known: Any) -> dict[str, str | int]:
    before = _stamp(path)
    if (
        isinstance(known, dict)
        and set(known) == {"sha256", "size", "mtime_ns"}
        and isinstance(known["sha256"], str)
        and _Stamp(known["size"], known["mtime_ns"]) == before
    ):
        return known
    artifact = artifact_of_file(path)
    if _stamp(path) != before:
        action = "let nothing write the model's files, then try again"
        raise _unusable(path.parent, "files that stay as they are", path.name, action)
    return {"sha256": artifact.digest, "size": before.size, "mtime_ns": before.mtime_ns}


def _stamp(path: Path) -> _Stamp:
    status = path.stat()
    return _Stamp(status.st_size, status.st_mtime_ns)


def _read_cache(cache_file: Path | None) -> dict[str, Any]:
    """The cache, or an empty one when it is absent or damaged: it can always be made again."""
    if cache_file is None:
        return {}
    try:
        if cache_file.stat().st_size > MAX_CACHE_BYTES:
            return {}
        cache = json.loads(cache_file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return cache if isinstance(cache, dict) else {}


def _write_cache(cache_file: Path, cache: dict[str, Any]) -> None:
    cache_file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=cache_file.parent, prefix=f".{cache_file.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(cache, file, sort_keys=True)
        Path(name).replace(cache_file)
    finally:
        Path(name).unlink(missing_ok=True)


def _unusable(directory: Path, expected: str, found: str, action: str) -> SiloOperatorError:
    return SiloOperatorError(
        f"base model {directory}", expected=expected, found=found, action=action
    )
