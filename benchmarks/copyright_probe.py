"""Speed, error rate, recall and false alarms of the copyright look-up, on one core.

What the texts are: "salad" is words drawn from a made-up vocabulary with Zipf's frequencies, from a
seed; nobody wrote it, and it shares no phrase with anything but by chance. "Installed" is English
that people wrote: documentation and docstrings of the packages installed here, cut into texts of
the same length. The registry is salad, or the texts that the caller gives. With a registry of salad
an alarm on a clean text can only come from the filter or from chance phrases of salad; how often
two works by different people share 26 words is a question about works, and is not answered here.

Planted spans are 50 words of a registered text in other case, with line breaks and curly quotes.
"""

import ast
import re
import statistics
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console

from data_contracts.dataset.copyright.block_bloom import blocks_for, build_filter
from data_contracts.dataset.copyright.overlap import find_overlap
from data_contracts.dataset.copyright.registry import Registry, load_registry
from data_contracts.dataset.copyright.registry_builder import RegistryTerms, build_registry
from data_contracts.dataset.copyright.tiles import probe_tiles
from data_contracts.dataset.near_duplicates import band_keys, signatures
from data_contracts.dataset.word_hashes import hash_words
from infra.signing_keys import SigningKey

TEXT_CHARACTERS = 400
BATCH = 2000
RUNS = 15
REGISTERED_TEXTS, REGISTERED_WORDS = 4000, 1000
LARGE_FILTER_TILES = 8_000_000
RANDOM_PROBES = 20_000_000
SALAD_CLEAN, INSTALLED_CLEAN = 100_000, 50_000
CLEAN_WORDS = 120
"""Words drawn for a clean text of salad, of which the first TEXT_CHARACTERS are kept."""
PLANTED, SPAN_WORDS = 10_000, 50
VOCABULARY, ZIPF_EXPONENT = 40_000, 1.05
_KEY = bytes(range(32))
_JOINTS = np.array([" ", " ", " ", " ", "\n", ", ", ". ", " \u201c", "\u201d ", "\u2019 "])


def measure(registry_texts: Sequence[str] | None = None) -> dict[str, float]:
    """All figures; `registry_texts` replace the salad of the registry. About two minutes."""
    rng = np.random.default_rng(1)
    vocabulary = make_vocabulary(rng)
    registered = registry_texts or list(
        salad_texts(rng, vocabulary, REGISTERED_TEXTS, REGISTERED_WORDS)
    )
    with tempfile.TemporaryDirectory() as directory:
        began = time.perf_counter()
        registry = _registry(registered, Path(directory))
        seconds = time.perf_counter() - began
    clean = list(_cut(salad_texts(rng, vocabulary, BATCH, CLEAN_WORDS)))
    figures = {
        "registry_tiles": float(registry.manifest.tiles),
        "registry_bits_per_tile": registry.manifest.filter_bits / registry.manifest.tiles,
        "registry_build_mb_per_s": sum(map(len, registered)) / 1e6 / seconds,
    }
    figures |= _speed(clean, registry) | _filter_errors(rng, registry, clean)
    figures |= _recall(rng, registered, vocabulary, registry)
    salad = _cut(salad_texts(rng, vocabulary, SALAD_CLEAN, CLEAN_WORDS))
    figures |= _false_alarms("salad", salad, registry)
    return figures | _false_alarms("installed", islice(_installed(), INSTALLED_CLEAN), registry)


def main() -> None:
    """Print every figure."""
    console = Console()
    for name, value in measure().items():
        console.print(f"{name}: {value:.7g}")


def _speed(texts: list[str], registry: Registry) -> dict[str, float]:
    """MB/s of UTF-8 and microseconds a text, the median of RUNS batches."""
    megabytes = sum(map(len, texts)) / 1e6
    curly = [f"{text[:200]}\u2019s \u201c{text[200:]}\u201d" for text in texts]
    accented = [text.replace("e", "\u00e9") for text in texts]
    words = hash_words(texts)

    def look_up(batch: list[str]) -> object:
        hashes = probe_tiles(hash_words(batch), registry.key)[1]
        return registry.bloom.contains(hashes)

    return {
        "probe_mb_per_s": megabytes / _median(lambda: look_up(texts)),
        "probe_curly_quotes_mb_per_s": _size(curly) / _median(lambda: look_up(curly)),
        "probe_accented_mb_per_s": _size(accented) / _median(lambda: look_up(accented)),
        "word_hashes_mb_per_s": megabytes / _median(lambda: hash_words(texts)),
        "find_overlap_mb_per_s": megabytes
        / _median(lambda: find_overlap(hash_words(texts), [registry])),
        "near_duplicate_us_per_text": 1e6 / len(texts) * _median(lambda: signatures(words)),
        "near_duplicate_with_words_and_bands_us_per_text": 1e6
        / len(texts)
        * _median(lambda: band_keys(signatures(hash_words(texts)))),
    }


def _filter_errors(
    rng: np.random.Generator, registry: Registry, texts: list[str]
) -> dict[str, float]:
    """Share of random hashes that each filter finds, and look-ups in one larger than the cache."""
    tiles = rng.integers(0, 2**64, LARGE_FILTER_TILES, dtype=np.uint64)
    large = build_filter(tiles, blocks_for(len(tiles), 1e-6))
    probes = rng.integers(0, 2**64, RANDOM_PROBES, dtype=np.uint64)

    def look_up() -> object:
        return large.contains(probe_tiles(hash_words(texts), registry.key)[1])

    return {
        "error_rate_claimed": float(registry.manifest.error_rate),
        "error_rate": float(registry.bloom.contains(probes).mean()),
        "large_filter_mb": large.words.nbytes / 1e6,
        "large_filter_bits_per_tile": large.words.nbytes * 8 / len(tiles),
        "large_filter_error_rate": float(large.contains(probes).mean()),
        "large_filter_probe_mb_per_s": _size(texts) / _median(look_up),
    }


def _recall(
    rng: np.random.Generator, registered: Sequence[str], vocabulary: np.ndarray, registry: Registry
) -> dict[str, float]:
    """Planted spans that were not found; texts whose normalised words are too few are skipped."""
    long_enough = [text.split() for text in registered if len(text.split()) > SPAN_WORDS]
    around = salad_texts(rng, vocabulary, 2 * PLANTED, 20)
    missed = 0
    for _ in range(PLANTED // BATCH):
        batch = []
        for _ in range(BATCH):
            words = long_enough[rng.integers(len(long_enough))]
            begin = int(rng.integers(len(words) - SPAN_WORDS))
            span = _disguised(rng, words[begin : begin + SPAN_WORDS])
            batch.append(f"{next(around)} {span} {next(around)}")
        missed += int((~find_overlap(hash_words(batch), [registry]).hits).sum())
    return {"planted_spans": float(PLANTED), "planted_spans_missed": float(missed)}


def _false_alarms(name: str, texts: Iterable[str], registry: Registry) -> dict[str, float]:
    """Clean texts, alarms among them, and single tiles found (which raise no alarm)."""
    count = alarms = single = 0
    stream = iter(texts)
    while batch := list(islice(stream, BATCH)):
        found = find_overlap(hash_words(batch), [registry])
        count += len(batch)
        alarms += int(found.hits.sum())
        single += int((found.chains == 1).sum())
    return {
        f"clean_{name}_texts": float(count),
        f"clean_{name}_false_alarms": float(alarms),
        f"clean_{name}_single_tiles": float(single),
    }


def _registry(texts: Iterable[str], directory: Path) -> Registry:
    now = datetime.now(UTC)
    terms = RegistryTerms(
        federation="benchmark",
        name="benchmark",
        rights_holder="Nobody",
        issued_at=now,
        expires_at=now + timedelta(days=1),
    )
    signer = SigningKey(Ed25519PrivateKey.generate())
    files = build_registry(texts, terms, _KEY, signer, directory)
    keys = [signer.public_key_hex]
    return load_registry(files.manifest_path, files.filter_path, _KEY, keys, now)


def make_vocabulary(rng: np.random.Generator) -> np.ndarray:
    """Made-up words of 2 to 14 letters; frequent ones are short, as in English."""
    letters = np.array(list("etaoinshrdlcumwfgypbvk"))
    ranks = np.log2(np.arange(2, VOCABULARY + 2))
    lengths = np.clip(1 + 0.4 * ranks + rng.poisson(1.5, VOCABULARY), 2, 14).astype(int)
    return np.array(["".join(rng.choice(letters, length)) for length in lengths])


def salad_texts(
    rng: np.random.Generator, vocabulary: np.ndarray, texts: int, words: int
) -> Iterator[str]:
    weights = np.cumsum(np.arange(2, len(vocabulary) + 2, dtype=float) ** -ZIPF_EXPONENT)
    for _ in range(texts):
        drawn = np.searchsorted(weights, rng.random(words) * weights[-1])
        yield " ".join(vocabulary[drawn])


def _installed() -> Iterator[str]:
    """Documentation and docstrings of the installed packages, each text once."""
    seen = set()
    paths = sysconfig.get_paths()
    for directory in (paths["stdlib"], paths["purelib"]):
        for path in sorted(Path(directory).rglob("*")):
            if path.suffix in {".md", ".rst", ".txt", ".py"} and path.is_file():
                text = path.read_text("utf-8", "replace")
                for part in _cut(_docstrings(text) if path.suffix == ".py" else [text]):
                    if part not in seen:
                        seen.add(part)
                        yield part


def _docstrings(source: str) -> Iterator[str]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def _cut(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for begin in range(0, len(text) - TEXT_CHARACTERS + 1, TEXT_CHARACTERS):
            yield text[begin : begin + TEXT_CHARACTERS]


def _disguised(rng: np.random.Generator, words: list[str]) -> str:
    upper = rng.random(len(words)) < 0.3
    cased = [word.upper() if flag else word for word, flag in zip(words, upper, strict=True)]
    joints = rng.choice(_JOINTS, len(words))
    text = "".join(f"{word}{joint}" for word, joint in zip(cased, joints, strict=True))
    return re.sub(r"'", "\u2019", text)


def _median(work: Callable[[], object]) -> float:
    work()
    seconds = []
    for _ in range(RUNS):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _size(texts: list[str]) -> float:
    """Megabytes of UTF-8."""
    return sum(len(text.encode()) for text in texts) / 1e6


if __name__ == "__main__":
    main()
