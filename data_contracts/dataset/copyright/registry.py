"""A registry as the silo has it: nothing is looked up in a filter that was not checked.

Guaranteed before a registry is handed out, in this order: the manifest is signed by a pinned key,
its parameters are those of this version, it has not expired, its key is the one at hand, the filter
has the signed size and digest (the very bytes that are used), and the filter's own bits bear out
the error rate that the manifest claims, so that nobody can sign a filter that finds everything.
"""

import os
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_CEILING, Decimal
from pathlib import Path

from data_contracts.dataset.copyright.block_bloom import (
    BLOCK_BITS,
    BlockBloom,
    from_bytes,
    own_error_rate,
)
from data_contracts.dataset.copyright.tiles import (
    HASH_SCHEME_VERSION,
    REGISTRY_STRIDE,
    WORDS_PER_TILE,
    TileKey,
    derive_tile_key,
)
from data_contracts.dataset.word_hashes import NORMALISER_VERSION
from data_contracts.errors import DataStewardError, UntrustedInputError
from data_contracts.protocol.artifact import artifact_of_bytes
from data_contracts.protocol.envelope import max_document_bytes, verify
from data_contracts.protocol.records.copyright_registry import CopyrightRegistry

MAX_ERROR_RATE = Decimal("0.0001")
"""Beyond it two chance hits 13 words apart are no longer negligible over a large data set."""

_RATE_STEP = Decimal(1).scaleb(-12)


@dataclass(frozen=True)
class Registry:
    """A registry that passed `load_registry`; `digest` is that of its manifest's envelope."""

    manifest: CopyrightRegistry
    digest: str
    bloom: BlockBloom
    key: TileKey


def load_registry(
    manifest_path: Path,
    filter_path: Path,
    key: bytes,
    signer_public_keys: Collection[str],
    now: datetime,
) -> Registry:
    """Read and check a registry, in the order that the module states.

    `signer_public_keys` are the pinned keys (hex), one of which signed. Raises UntrustedInputError
    for bytes that are not what they claim to be, DataStewardError where the steward can put it
    right: a missing file, another version, an expired registry, another key.
    """
    envelope = _read(manifest_path, max_document_bytes(CopyrightRegistry))
    verified = verify(envelope, CopyrightRegistry, signer_public_keys)
    manifest = verified.record
    _check_parameters(manifest)
    _check_expiry(manifest, now)
    tile_key = derive_tile_key(key)
    if tile_key.id != manifest.key_id:
        action = "ask the rights holder for the key of this registry"
        problem = f"key of registry {manifest.name}"
        raise unusable(problem, f"key id {manifest.key_id[:16]}", tile_key.id[:16], action)
    return Registry(manifest, verified.digest, _checked_filter(manifest, filter_path), tile_key)


def claimed_error_rate(bloom: BlockBloom) -> Decimal:
    """The filter's own error rate, rounded up: what a manifest says and a loader finds again."""
    return Decimal(repr(own_error_rate(bloom))).quantize(_RATE_STEP, rounding=ROUND_CEILING)


def _check_parameters(manifest: CopyrightRegistry) -> None:
    for what, expected, found in (
        ("words per tile", WORDS_PER_TILE, manifest.words_per_tile),
        ("stride", REGISTRY_STRIDE, manifest.stride),
        ("normaliser", NORMALISER_VERSION, manifest.normaliser),
        ("hash scheme", HASH_SCHEME_VERSION, manifest.hash_scheme),
    ):
        if found != expected:
            raise unusable(
                f"{what} of registry {manifest.name}",
                str(expected),
                str(found),
                "ask the rights holder for a registry of this version, or update this software",
            )


def _check_expiry(manifest: CopyrightRegistry, now: datetime) -> None:
    if now >= manifest.expires_at:
        raise unusable(
            f"registry {manifest.name}",
            f"one that is valid at {now.isoformat()}",
            f"one that expired at {manifest.expires_at.isoformat()}",
            "ask the rights holder for the current registry",
        )


def _checked_filter(manifest: CopyrightRegistry, path: Path) -> BlockBloom:
    data = _read(path, manifest.filter.size)
    found = artifact_of_bytes(data)
    if found.size != manifest.filter.size:
        expected = f"{manifest.filter.size} bytes"
        longer = "more" if found.size > manifest.filter.size else f"{found.size} bytes"
        raise _untrusted(path, expected, longer, "registry.filter_size")
    if found.digest != manifest.filter.digest:
        expected = f"SHA-256 {manifest.filter.digest}"
        raise _untrusted(path, expected, f"SHA-256 {found.digest}", "registry.filter_digest")
    if found.size * 8 != manifest.filter_bits or manifest.filter_bits % BLOCK_BITS:
        expected = f"{manifest.filter_bits} bits in blocks of {BLOCK_BITS}"
        raise _untrusted(path, expected, f"{found.size * 8} bits", "registry.filter_bits")
    bloom = from_bytes(data)
    rate = claimed_error_rate(bloom)
    # One step of slack: another processor may sum the same floats in another order.
    allowed = min(manifest.error_rate + _RATE_STEP, MAX_ERROR_RATE)
    if rate > allowed:
        expected = f"an error rate of at most {allowed:f}"
        raise _untrusted(path, expected, f"{rate:f}", "registry.error_rate")
    return bloom


def _read(path: Path, limit: int) -> bytes:
    """At most `limit` bytes and one more, which tells that there are too many."""
    try:
        with path.open("rb") as file:
            return file.read(min(limit, os.fstat(file.fileno()).st_size) + 1)
    except OSError as error:
        found = error.strerror or str(error)
        action = "copy manifest and filter of the registry here"
        raise unusable(f"registry file {path}", "a readable file", found, action) from None


def unusable(problem: str, expected: str, found: str, action: str) -> DataStewardError:
    """The error for what the steward, or the rights holder, can put right."""
    return DataStewardError(problem, expected=expected, found=found, action=action)


def _untrusted(path: Path, expected: str, found: str, rule: str) -> UntrustedInputError:
    return UntrustedInputError(
        f"filter {path}",
        expected=expected,
        found=found,
        action="do not use it; fetch the filter again from the rights holder who signed for it",
        rule=rule,
    )
