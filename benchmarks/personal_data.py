"""Speed of the scan for personal data on one core, and what it misses of Presidio alone.

What the texts are. "Clean" documents are pieces of 400 characters of the State of the Union
speeches, 1790 to 2021: reviewed prose of heads of state, with many years and amounts of money but,
in the default kinds, next to no identifiers, so what reaches Presidio there is nearly all false
alarm. They say nothing about the share in code, tables or chats. Names are left out of the default
kinds; the share of pieces with a name by the rules is a figure of its own.

The comparison with Presidio alone takes every kind that Presidio decides, on clean documents,
pieces of the SpamAssassin mails (real addresses, mail headers, spam), and clean documents with made
up identifiers of every kind planted in them, sometimes mistyped. A document is missed when Presidio
alone names a kind that the scanner does not. Both are fetched as tests/real_packages.py says.
"""

import random
import statistics
import time
from collections.abc import Sequence

from rich.console import Console

from data_contracts.dataset.personal_data.kinds import DEFAULT_KINDS, PRESIDIO_ENTITIES
from data_contracts.dataset.personal_data.presidio_engine import PresidioEngine
from data_contracts.dataset.personal_data.scanner import PersonalDataScanner
from tests.data_contracts.dataset.personal_data.samples import SAMPLES
from tests.real_packages import fetch, read_mails, read_speeches

CHARACTERS = 400
RUNS = 5
COMPARED = 500
"""Documents of each of the three sorts that Presidio alone sees."""


def measure() -> dict[str, float]:
    """All figures; about two minutes. Fetches the texts when they are not there yet."""
    tarball = fetch()
    rng = random.Random(1)
    clean = _pieces(read_speeches(tarball))
    mails = [rng.choice(_pieces([mail]) or [mail]) for mail in read_mails(tarball)]
    sample = rng.sample(clean, COMPARED)
    compared = sample + rng.sample(mails, COMPARED) + [_planted(rng, text) for text in sample]
    return _speed(clean) | _against_presidio(compared)


def main() -> None:
    """Print every figure."""
    console = Console()
    for name, value in measure().items():
        console.print(f"{name}: {value:.7g}")


def _speed(clean: Sequence[str]) -> dict[str, float]:
    """Documents a second, the median of RUNS passes, with Presidio already imported."""
    scanner = PersonalDataScanner(DEFAULT_KINDS)
    scanner.scan(["ada@example.org"])
    seconds = []
    for _ in range(RUNS):
        scanner.texts = scanner.escalated = 0
        began = time.process_time()
        found = scanner.scan(clean)
        seconds.append(time.process_time() - began)
    names = PersonalDataScanner(frozenset({"person_name"})).scan(clean)
    return {
        "clean_documents": float(len(clean)),
        "personal_data_docs_per_s": len(clean) / statistics.median(seconds),
        "escalated_share": scanner.escalated / scanner.texts,
        "clean_found_share": sum(map(bool, found)) / len(clean),
        "clean_named_share": sum(map(bool, names)) / len(clean),
    }


def _against_presidio(texts: Sequence[str]) -> dict[str, float]:
    kinds = frozenset(PRESIDIO_ENTITIES)
    scanner, presidio = PersonalDataScanner(kinds), PresidioEngine()
    presidio.count_alone("warm up", kinds)
    began = time.process_time()
    alone = [presidio.count_alone(text, kinds) for text in texts]
    seconds = time.process_time() - began
    ours = scanner.scan(texts)
    missed = sum(bool(one.keys() - other.keys()) for one, other in zip(alone, ours, strict=True))
    return {
        "compared_documents": float(len(texts)),
        "compared_with_personal_data": float(sum(map(bool, alone))),
        "presidio_alone_docs_per_s": len(texts) / seconds,
        "personal_data_missed_vs_presidio": float(missed),
    }


def _pieces(texts: Sequence[str]) -> list[str]:
    return [
        text[begin : begin + CHARACTERS]
        for text in texts
        for begin in range(0, len(text) - CHARACTERS + 1, CHARACTERS)
    ]


def _planted(rng: random.Random, text: str) -> str:
    """`text` with one to three identifiers between its words, a third of them mistyped."""
    words = text.split(" ")
    for _ in range(rng.randrange(1, 4)):
        identifier = rng.choice(SAMPLES[rng.choice(sorted(SAMPLES))])
        if rng.random() < 1 / 3:
            place = rng.randrange(len(identifier))
            identifier = identifier[:place] + rng.choice("0123456789") + identifier[place + 1 :]
        words.insert(rng.randrange(len(words)), identifier)
    return " ".join(words)


if __name__ == "__main__":
    main()
