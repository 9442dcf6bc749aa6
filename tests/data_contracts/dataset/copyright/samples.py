"""Texts with known spans of each other, and a registry of them on disk."""

import random
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from data_contracts.dataset.copyright.registry import Registry, load_registry
from data_contracts.dataset.copyright.registry_builder import (
    RegistryFiles,
    RegistryTerms,
    build_registry,
)
from infra.signing_keys import SigningKey

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
KEY = b"k" * 32
SIGNER = SigningKey(Ed25519PrivateKey.from_private_bytes(b"\x01" * 32))
OTHER_SIGNER = SigningKey(Ed25519PrivateKey.from_private_bytes(b"\x02" * 32))
TERMS = RegistryTerms(
    federation="oncology",
    name="publisher.2026",
    rights_holder="A Publisher",
    issued_at=NOW,
    expires_at=NOW + timedelta(days=90),
)
VOCABULARY = [f"{stem}{end}" for stem in "abcdefghij" for end in range(400)]
JOINTS = (" ", "\n", ", ", " \u2014 ", ".  ", " \u201c", "\u201d ", "; ", "\u00a0", "\r\n\t")


def salad(rng: random.Random, count: int) -> list[str]:
    """`count` words that were never written by anybody."""
    return rng.choices(VOCABULARY, k=count)


def disguised(rng: random.Random, words: list[str]) -> str:
    """The same words in other case, with other punctuation and line breaks between them."""
    cased = (word.upper() if rng.random() < 0.3 else word for word in words)
    return "".join(word + rng.choice(JOINTS) for word in cased)


def typographic(text: str) -> str:
    """Curly quotes instead of straight ones."""
    return re.sub(r'"(.*?)"', "\u201c\\1\u201d", text).replace("'", "\u2019")


def build(directory: Path, texts: Iterable[str], terms: RegistryTerms = TERMS) -> RegistryFiles:
    """A registry of `texts` under KEY, by SIGNER."""
    return build_registry(texts, terms, KEY, SIGNER, directory)


def load(
    files: RegistryFiles,
    key: bytes = KEY,
    signer: SigningKey = SIGNER,
    now: datetime = NOW + timedelta(days=1),
) -> Registry:
    """Load what `build` wrote."""
    keys = [signer.public_key_hex]
    return load_registry(files.manifest_path, files.filter_path, key, keys, now)
