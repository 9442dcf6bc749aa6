"""Making a registry, where the rights holder's texts are.

Tiles of every text are hashed under the key, then the filter is written, then the signed manifest,
last: a filter without a manifest is not a registry. A registry is never overwritten. Nothing about
a text is written but keyed bits and counts.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from data_contracts.dataset.copyright.block_bloom import (
    BLOCK_BITS,
    BlockBloom,
    blocks_for,
    build_filter,
    to_bytes,
)
from data_contracts.dataset.copyright.registry import MAX_ERROR_RATE, claimed_error_rate, unusable
from data_contracts.dataset.copyright.tiles import (
    HASH_SCHEME_VERSION,
    REGISTRY_STRIDE,
    WORDS_PER_TILE,
    TileKey,
    derive_tile_key,
    registry_tiles,
)
from data_contracts.dataset.word_hashes import NORMALISER_VERSION, hash_words
from data_contracts.protocol.artifact import artifact_of_bytes
from data_contracts.protocol.dsse import Signer
from data_contracts.protocol.envelope import Verified, seal
from data_contracts.protocol.records.copyright_registry import CopyrightRegistry
from data_contracts.protocol.wire_types import (
    DecimalString,
    FederationId,
    Instant,
    Part,
    RuleId,
    Text,
)

DEFAULT_ERROR_RATE = Decimal("0.000001")
MIN_ERROR_RATE = Decimal("0.000000001")

_BATCH_CHARACTERS = 1_000_000


class RegistryTerms(Part):
    """What the rights holder decides about a registry; `error_rate` is the highest, per lookup."""

    federation: FederationId
    name: RuleId
    rights_holder: Text
    issued_at: Instant
    expires_at: Instant
    error_rate: DecimalString = DEFAULT_ERROR_RATE

    @model_validator(mode="after")
    def _are_usable(self) -> "RegistryTerms":
        if self.expires_at <= self.issued_at:
            raise ValueError("expires_at must be later than issued_at")
        if not MIN_ERROR_RATE <= self.error_rate <= MAX_ERROR_RATE:
            raise ValueError(f"error_rate must be {MIN_ERROR_RATE} to {MAX_ERROR_RATE}")
        return self


@dataclass(frozen=True)
class RegistryFiles:
    """Where a registry was written, and its sealed manifest."""

    manifest: Verified[CopyrightRegistry]
    manifest_path: Path
    filter_path: Path


@dataclass(frozen=True)
class _Tiles:
    hashes: NDArray[np.uint64]
    texts: int
    texts_without_tile: int


def build_registry(
    texts: Iterable[str], terms: RegistryTerms, key: bytes, signer: Signer, directory: Path
) -> RegistryFiles:
    """Write `<name>.bloom` and `<name>.manifest.json` into `directory`, which is made if absent.

    `key` is at least 16 random bytes that rights holder and silos share. Texts are taken one by
    one; 8 bytes a tile stay in memory. Raises DataStewardError when there is no tile, when the
    registry exists already or when the disk refuses.
    """
    manifest_path = directory / f"{terms.name}.manifest.json"
    filter_path = directory / f"{terms.name}.bloom"
    if manifest_path.exists():
        raise unusable(f"registry {manifest_path}", "no manifest yet", "one", "choose another name")
    tile_key = derive_tile_key(key)
    tiles = _tiles_of(texts, tile_key)
    if not len(tiles.hashes):
        problem, expected = f"texts of registry {terms.name}", f"a text of {WORDS_PER_TILE} words"
        raise unusable(problem, expected, f"{tiles.texts} shorter texts", "give whole works")
    bloom = _filter_of(tiles.hashes, terms.error_rate)
    data = to_bytes(bloom)
    manifest = seal(_manifest(terms, tile_key, tiles, bloom, data), signer)
    _write(filter_path, data)
    _write(manifest_path, manifest.envelope)
    return RegistryFiles(manifest, manifest_path, filter_path)


def _tiles_of(texts: Iterable[str], key: TileKey) -> _Tiles:
    """Distinct tiles of all texts, ascending, so that they say nothing about their order."""
    parts, count, too_short = [np.empty(0, dtype=np.uint64)], 0, 0
    for batch in _batches(texts):
        words = hash_words(batch)
        parts.append(registry_tiles(words, key))
        count += len(batch)
        too_short += int((words.counts < WORDS_PER_TILE).sum())
    return _Tiles(np.unique(np.concatenate(parts)), count, too_short)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _filter_of(hashes: NDArray[np.uint64], error_rate: Decimal) -> BlockBloom:
    """The first filter, in steps of a hundredth, whose own error rate is what was asked for."""
    blocks = blocks_for(len(hashes), float(error_rate))
    while claimed_error_rate(bloom := build_filter(hashes, blocks)) > error_rate:
        blocks += blocks // 100 + 1
    return bloom


def _manifest(
    terms: RegistryTerms, key: TileKey, tiles: _Tiles, bloom: BlockBloom, data: bytes
) -> CopyrightRegistry:
    return CopyrightRegistry(
        federation=terms.federation,
        issued_at=terms.issued_at,
        name=terms.name,
        rights_holder=terms.rights_holder,
        words_per_tile=WORDS_PER_TILE,
        stride=REGISTRY_STRIDE,
        normaliser=NORMALISER_VERSION,
        hash_scheme=HASH_SCHEME_VERSION,
        texts=tiles.texts,
        texts_without_tile=tiles.texts_without_tile,
        tiles=len(tiles.hashes),
        filter_bits=bloom.blocks * BLOCK_BITS,
        error_rate=claimed_error_rate(bloom),
        key_id=key.id,
        filter=artifact_of_bytes(data),
        expires_at=terms.expires_at,
    )


def _write(path: Path, data: bytes) -> None:
    """Absent or complete: a temporary name, fsync, then the final one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        found = error.strerror or str(error)
        expected = f"a writable disk with {len(data)} free bytes"
        raise unusable(f"writing {path}", expected, found, "free space, then run again") from None
