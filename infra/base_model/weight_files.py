"""The weights of a base model by their files' headers: no tensor is read, and no torch loaded.

A safetensors file is 8 bytes of length, a JSON header by tensor, and the tensors' bytes one after
the other (https://github.com/huggingface/safetensors, "Format"). What is looked at is what
`from_pretrained` would load: model.safetensors, or else the files that its index names.
"""

import json
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from data_contracts.errors import SiloOperatorError
from infra.disk.model_parts import is_pipeline, parts_of

TRANSFORMERS, DIFFUSERS = "model", "diffusion_pytorch_model"
"""What the files of weights are called by the library that wrote them."""

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
MAX_HEADER_BYTES = 100_000_000
"""As the safetensors library has it."""

MAX_INDEX_BYTES = 64 * 1024 * 1024
_BITS = {
    name: bits
    for bits, names in {
        8: ("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"),
        16: ("I16", "U16", "F16", "BF16"),
        32: ("I32", "U32", "F32"),
        64: ("I64", "U64", "F64", "C64"),
    }.items()
    for name in names
}


@dataclass(frozen=True)
class TensorHeader:
    """What a header says of one tensor; the type as safetensors names it, such as "BF16"."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Numbers in it."""
        return prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes on the disk; of a type that is not known here, as if a number had 32 bits."""
        return self.elements * _BITS.get(self.dtype, 32) // 8


Weights = dict[str, TensorHeader]
"""By the name of the tensor."""


def read_weights(model_dir: Path) -> Weights:
    """Every tensor that loading the model would read that is trained, by name; as `read_folder`."""
    library = DIFFUSERS if is_pipeline(model_dir) else TRANSFORMERS
    return read_folder(parts_of(model_dir).trained, library)


def read_folder(directory: Path, library: str = TRANSFORMERS) -> Weights:
    """The tensors of one model in a folder, as the `library` names its files.

    Raises SiloOperatorError naming the file that is missing, a pointer, cut off or damaged.
    """
    whole = directory / f"{library}.safetensors"
    index = directory / f"{library}.safetensors.index.json"
    if whole.exists():
        return read_header(whole)
    if not index.exists():
        raise _unusable(directory, f"{whole.name}, or {index.name} and its files", "neither")
    places = _weight_map(index)
    weights: Weights = {}
    for name in sorted(set(places.values())):
        shard = directory / name
        if not shard.is_file():
            raise _unusable(index, "every file that it names", f"no {name}")
        weights |= read_header(shard)
    if absent := sorted(set(places) - set(weights)):
        found = f"no {absent[0]} in {places[absent[0]]}, and {len(absent) - 1} more missing"
        raise _unusable(index, "every tensor in the file that it names for it", found)
    return {name: weights[name] for name in places}


def read_header(path: Path) -> Weights:
    """The tensors of one safetensors file, whose bytes all have to be there."""
    if is_pointer(path):
        raise pointer(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            raise _damaged(path, f"{size} bytes")
        (length,) = struct.unpack("<Q", start)
        if length > min(size - 8, MAX_HEADER_BYTES):
            raise _damaged(path, f"a header of {length:,} bytes in a file of {size:,}")
        header = _json_object(path, file.read(length))
    header.pop("__metadata__", None)
    try:
        spans = sorted(_span(tensor) for tensor in header.values())
        tensors = {name: _tensor(tensor) for name, tensor in header.items()}
    except (ValueError, LookupError, TypeError, AttributeError):
        raise _damaged(path, "a header that is none") from None
    end = 0
    for begins, ends in spans:
        if begins != end:
            raise _damaged(path, "tensors with gaps between them")
        end = ends
    if end != size - 8 - length:
        raise _damaged(path, f"{size - 8 - length:,} bytes of tensors, and {end:,} in the header")
    return tensors


def is_pointer(path: Path) -> bool:
    """Whether git-lfs has left a note in the place of this file."""
    with path.open("rb") as file:
        return file.read(len(LFS_POINTER)) == LFS_POINTER


def pointer(path: Path) -> SiloOperatorError:
    """The fault of a file that git-lfs has not fetched."""
    return SiloOperatorError(
        f"file of a base model, {path}",
        expected="the file itself",
        found="a git-lfs pointer, which only says where it could be had",
        action="run `git lfs pull` where the model was cloned, and copy it again",
    )


def _weight_map(index: Path) -> dict[str, str]:
    if is_pointer(index):
        raise pointer(index)
    if index.stat().st_size > MAX_INDEX_BYTES:
        raise _damaged(index, f"more than {MAX_INDEX_BYTES:,} bytes")
    places = _json_object(index, index.read_bytes()).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise _damaged(index, "no weight_map")
    for name in places.values():
        if not isinstance(name, str) or "/" in name or not name.endswith(".safetensors"):
            raise _damaged(index, "a file that is no .safetensors beside it")
    return places


def _span(tensor: Any) -> tuple[int, int]:
    begins, ends = tensor["data_offsets"]
    bits = _BITS.get(tensor["dtype"])
    needed = prod(tensor["shape"])
    if type(begins) is not int or type(ends) is not int or not 0 <= begins <= ends:
        raise ValueError
    if bits is not None and (ends - begins) * 8 != needed * bits:
        raise ValueError
    return begins, ends


def _tensor(tensor: Any) -> TensorHeader:
    shape = tuple(tensor["shape"])
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError
    return TensorHeader(str(tensor["dtype"]), shape)


def _json_object(path: Path, data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _damaged(path, "a header that is no JSON object")
    return found


def _damaged(path: Path, found: str) -> SiloOperatorError:
    return SiloOperatorError(
        f"file of a base model, {path}",
        expected="a whole safetensors file",
        found=f"{found}: it is cut off or damaged",
        action="copy it again and compare its size and digest with where it came from",
    )


def _unusable(path: Path, expected: str, found: str) -> SiloOperatorError:
    return SiloOperatorError(
        f"base model, {path}",
        expected=expected,
        found=found,
        action="copy the model again, all of its files",
    )
