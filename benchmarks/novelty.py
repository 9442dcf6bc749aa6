"""`make bench-novelty`: which copies of a silo's records are found in a synthetic set.

The records are the demo's: comments of a bank, codes of two hospitals. Of each institution 200
records are trained on and 130 held out; 140 that are neither play a set that nobody copied, which
is as hard as a synthetic set can be; and 140 of training play copies: as they are, with every
eighth, sixth and fourth word exchanged, and with every fourth exchanged and the sentences in
another order, which stands for a paraphrase. Told is the share of records that are caught one by
one, and whether the set breaks a rule. Adds, flat, the mean over institutions to
`.consortia/bench/lifecycle.json`.
"""

import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import mean

from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine
from data_contracts.dataset.novelty.set_findings import NoveltyLimits, OwnRecords, find_in_set
from flows.demo.institutions import INSTITUTIONS, write_institution
from flows.demo.packages import ALL_WHEELS

OUTPUT = Path(".consortia/bench/lifecycle.json")
CACHE = Path(".consortia/packages")
TRAIN, HELDOUT, OTHERS = 200, 130, 140
INSTEAD = ["however", "moreover", "today", "again", "rather", "also", "then", "still"]
KINDS: dict[str, Callable[[str, random.Random], str] | None] = {
    "anew": None,
    "copied": lambda text, _: text,
    "edited": lambda text, rng: exchanged(text, 8, rng),
    "edited_6": lambda text, rng: exchanged(text, 6, rng),
    "edited_4": lambda text, rng: exchanged(text, 4, rng),
    "paraphrase": lambda text, rng: reordered(exchanged(text, 4, rng), rng),
}


def main() -> None:
    """Measure every kind at every institution, tell, and add to the figures."""
    texts = institution_texts()
    found = {kind: {name: caught(kind, texts[name]) for name in texts} for kind in KINDS}
    table = Table("caught one by one (whole set)", *texts)
    for kind, by_name in found.items():
        cells = (f"{share:.0%} ({'yes' if whole else 'no'})" for share, whole in by_name.values())
        table.add_row(kind, *cells)
    console = Console()
    console.print(machine("1"))
    console.print(table)
    figures = {
        f"{kind}_caught": round(mean(share for share, _ in by_name.values()), 4)
        for kind, by_name in found.items()
    }
    known = json.loads(OUTPUT.read_text()) if OUTPUT.exists() else {}
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(known | figures, indent=1) + "\n")
    console.print(f"written {OUTPUT}")


def institution_texts() -> dict[str, list[str]]:
    """Prompt and answer of every record, in an order of their own."""
    wheels = {pin.name: pin.fetch(CACHE) for pin in ALL_WHEELS}
    texts = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in INSTITUTIONS:
            data = write_institution(name, wheels, Path(folder) / name).data_file
            records = [json.loads(line) for line in data.read_text().splitlines()]
            texts[name] = [f"{each['prompt']}\n{each['answer']}" for each in records]
            random.Random(1).shuffle(texts[name])
    return texts


def caught(kind: str, texts: list[str]) -> tuple[float, bool]:
    """The share that is caught one by one, and whether the set breaks a rule about the whole."""
    train, rest = texts[:TRAIN], texts[TRAIN:]
    heldout, others = rest[:HELDOUT], rest[HELDOUT : HELDOUT + OTHERS]
    change, rng = KINDS[kind], random.Random(2)
    made = others if change is None else [change(text, rng) for text in train[:OTHERS]]
    limits = NoveltyLimits()
    findings = find_in_set(made, OwnRecords(train, range(TRAIN), heldout), limits)
    whole = {"synthetic.nearer_to_train", "synthetic.neighbour_ratio"}
    return len(findings.caught()) / len(made), bool(whole & set(findings.broken(limits)))


def exchanged(text: str, every: int, rng: random.Random) -> str:
    """`text` with another word in the place of one of so many."""
    words = text.split()
    for place in range(rng.randrange(every), len(words), every):
        words[place] = rng.choice(INSTEAD)
    return " ".join(words)


def reordered(text: str, rng: random.Random) -> str:
    """Its sentences in another order."""
    sentences = text.split(". ")
    rng.shuffle(sentences)
    return ". ".join(sentences)


if __name__ == "__main__":
    main()
