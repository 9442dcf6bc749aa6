"""The base model's files on local disk, and the digest that a plan names them by.

The digest covers every file that decides what the model computes (configuration, weights,
tokenizer, chat template) and no other. A directory is refused when loading it could run code
(pickle weights, Python files) or add weights that the digest would not cover (an adapter, which
transformers loads unasked).
"""

from pathlib import Path

import rfc8785

from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.artifact import digest_of_bytes
from infra.disk.file_digests import FileDigests
from infra.disk.model_parts import CONFIG_FILE, PIPELINE_FILE

_TOP = {CONFIG_FILE, PIPELINE_FILE}
_MODEL_SUFFIXES = {".json", ".safetensors", ".jinja", ".model"}
_MODEL_NAMES = {"merges.txt", "vocab.txt"}
_REFUSED_SUFFIXES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".py", ".pyc", ".so"}
_OTHER_FORMATS = {".gguf", ".ggml", ".h5", ".msgpack", ".onnx", ".npz", ".tflite", ".nemo"}
_CONVERT = "copy all files of the model, or convert its weights to safetensors"
_REFUSED_NAMES = {"adapter_config.json", "adapter_model.safetensors"}


def model_digest(directory: Path, cache_file: Path | None = None) -> str:
    """SHA-256 (64 hex digits) over the RFC 8785 JSON of {file name: {sha256, size}}.

    Names are relative to `directory` with forward slashes. With `cache_file`, a file whose path,
    size and modification time are unchanged is not read again; the cache is as trustworthy as the
    disk that it lies on. Raises SiloOperatorError when the directory is no model, or an unsafe one.
    """
    digests = FileDigests(cache_file)
    entries: dict[str, dict[str, str | int]] = {}
    for name, path in model_files(directory).items():
        artifact = digests.artifact(path)
        entries[name] = {"sha256": artifact.digest, "size": artifact.size}
    digests.save()
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
    if not _TOP.intersection(found) or not any(name.endswith(".safetensors") for name in found):
        expected = f"{CONFIG_FILE}, or {PIPELINE_FILE}, and at least one .safetensors file"
        raise _unusable(directory, expected, _instead(directory, found), _CONVERT)
    return found


def _instead(directory: Path, found: dict[str, Path]) -> str:
    """What lies there, where it is no model that can be loaded."""
    others = sorted(p.name for p in directory.iterdir() if p.suffix in _OTHER_FORMATS)
    if others:
        return f"{others[0]}, weights in another format"
    return f"no {CONFIG_FILE}" if not _TOP.intersection(found) else "no weights"


def _unusable(directory: Path, expected: str, found: str, action: str) -> SiloOperatorError:
    return SiloOperatorError(
        f"base model {directory}", expected=expected, found=found, action=action
    )
