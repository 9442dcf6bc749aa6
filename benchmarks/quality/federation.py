"""One cell of the bake-off: a federation of silos, or one of the baselines beside it.

All use the same base, adapter layout, optimizer and sequences. A silo's `steps` batches are dealt
out once per seed and partition. The centralised run takes, at each step, the batches of all silos
of the IID partition as one: the same sequences in the same order, as many tokens in all and as many
sequential steps as every silo, which is FedSGD. `centralised_small_batches` takes them one by one
instead: as many tokens, `silos` times as many steps, the most that pooling could buy.
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from benchmarks.quality.base_model import Tokens, TopicSequences
from benchmarks.quality.contenders import Baseline, Contender
from benchmarks.quality.learner import Training, base_targets, learner
from benchmarks.quality.merging import Compressor, GlobalState, merged
from benchmarks.quality.partition import SiloData, partitioned
from benchmarks.quality.private_training import Noise, drawn_batches, noise_of
from benchmarks.quality.settings import Settings
from data_contracts.adapters.starting_adapter import (
    AdapterSource,
    InitialAdapter,
    RestOfAdapter,
    narrowed,
)
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.training_recipe import TrainedFactors


@dataclass(frozen=True)
class Cell:
    """What a worker process computes. `learning_rate` is that of the silos' optimizer."""

    entrant: Contender | Baseline
    alpha: float | None
    seed: int
    learning_rate: float

    @property
    def name(self) -> str:
        """The contender's or baseline's name."""
        return self.entrant if isinstance(self.entrant, str) else self.entrant.name


@dataclass(frozen=True)
class Losses:
    """In nats per token. `test`: mean over topics. `own`: mean over silos, each on its own mixture
    of topics. `validation` chooses the learning rate. `merge_error` is relative, mean over rounds.
    """

    test: float
    own: float
    validation: float
    merge_error: float
    seconds: float


@dataclass(frozen=True)
class Trained:
    """An adapter to be measured, with its residual where the rule has one."""

    adapter: AdapterSource
    residual: AdapterSource | None = None
    merge_error: float = 0.0


def losses_of(cell: Cell, settings: Settings, base: Path) -> Losses:
    """Train and measure one cell; same cell, same figures."""
    began = time.perf_counter()
    sequences = TopicSequences.load(base)
    if isinstance(cell.entrant, Contender):
        settings = settings.in_rounds(cell.entrant.rounds)
    silos = partitioned(sequences.train, settings.silos, cell.alpha, cell.seed)
    if isinstance(cell.entrant, Contender):
        with tempfile.TemporaryDirectory(prefix="consortia-quality-") as name:
            trained = [_federated(cell, cell.entrant, settings, base, silos, Path(name))]
            return _measured(trained, base, sequences, silos, began)
    trained = _baseline(cell, cell.entrant, settings, base, silos)
    return _measured(trained, base, sequences, silos, began)


def _federated(
    cell: Cell,
    contender: Contender,
    settings: Settings,
    base: Path,
    silos: Sequence[SiloData],
    directory: Path,
) -> Trained:
    states = list(states_of(cell, contender, settings, base, silos, directory))
    last, error = states[-1], fmean(state.error for state in states)
    return Trained(last.adapter, last.residual, error)


def states_of(
    cell: Cell,
    contender: Contender,
    settings: Settings,
    base: Path,
    silos: Sequence[SiloData],
    directory: Path,
) -> Iterator[GlobalState]:
    """Round by round: every silo trains from the global adapter, then the product merges."""
    for _, _, state in _rounds(cell, contender, settings, base, silos, directory):
        yield state


def local_adapters(
    cell: Cell,
    contender: Contender,
    settings: Settings,
    base: Path,
    silos: Sequence[SiloData],
    directory: Path,
) -> Iterator[tuple[AdapterSource, list[AdapterSource]]]:
    """Of every round what it started from, and what the silos made of it."""
    for start, locals_, _ in _rounds(cell, contender, settings, base, silos, directory):
        yield start, locals_


def _rounds(
    cell: Cell,
    contender: Contender,
    settings: Settings,
    base: Path,
    silos: Sequence[SiloData],
    directory: Path,
) -> Iterator[tuple[AdapterSource, list[AdapterSource], GlobalState]]:
    ranks = contender.ranks or (settings.rank,)
    layout = _layout(settings, base, max(ranks), cell.seed)
    own_specs = [
        _layout(settings, base, ranks[i % len(ranks)], cell.seed) for i in range(len(silos))
    ]
    state = GlobalState.initial(layout)
    compressors = _compressors(contender, len(silos), directory)
    for round_number in range(1, settings.rounds + 1):
        locals_: list[tuple[AdapterSource, int]] = []
        trained = state.trained(contender.merge, round_number)
        for number, (silo, own) in enumerate(zip(silos, own_specs, strict=True)):
            place = (cell.seed, round_number, number)
            batches, noise = _to_train_on(silo, settings, contender, place)
            start = narrowed(state.adapter, own)
            training = Training(batches, cell.learning_rate, trained, contender.proximal_mu, noise)
            beside = _beside(state, contender, own)
            beside_layout = None if beside is None else _anonymous(beside.layout)
            kind: TrainedFactors = "core" if trained == "core" else "both"
            own_learner = learner(base, _anonymous(own), beside_layout, kind)
            local: AdapterSource = own_learner.train(start, training, settings, beside)
            if compressors:
                local = compressors[number].sent(local, start, trained, round_number)
            # Of a private training how much was drawn stays in the silo: all count the same.
            locals_.append((local, 1 if noise else sum(batch.size for batch in batches)))
        began = state.adapter
        state = merged(locals_, state, contender.merge, round_number, directory)
        yield began, [source for source, _ in locals_], state


def _beside(state: GlobalState, contender: Contender, own: AdapterLayout) -> AdapterSource | None:
    """What acts, frozen, beside what a silo trains: the residual, or what its rank leaves out."""
    rank = contender.merge.residual_rank
    if rank is not None:
        layout = own.model_copy(update={"rank": rank, "alpha": rank})
        return state.residual or InitialAdapter(layout)
    whole = state.adapter.layout
    if own.rank == whole.rank or contender.part_alone:
        return None
    return RestOfAdapter(state.adapter, own)


def _baseline(
    cell: Cell, baseline: Baseline, settings: Settings, base: Path, silos: Sequence[SiloData]
) -> list[Trained]:
    start = InitialAdapter(_layout(settings, base, settings.rank, cell.seed))
    batches = [_batches(silo, settings, settings.steps, 0) for silo in silos]
    match baseline:
        case "base":
            return [Trained(start)]
        case "silo_only":
            runs = batches
        case "centralised":
            runs = [np.concatenate(batches, axis=1)]
        case "centralised_small_batches":
            runs = [np.stack(batches, axis=1).reshape(-1, *batches[0].shape[1:])]
    own = learner(base, _anonymous(start.layout))
    trainings = [Training(tuple(run), cell.learning_rate) for run in runs]
    return [Trained(own.train(start, training, settings)) for training in trainings]


def _measured(
    trained: Sequence[Trained],
    base: Path,
    sequences: TopicSequences,
    silos: Sequence[SiloData],
    began: float,
) -> Losses:
    """One global adapter for all silos, or one adapter for each."""
    test, validation = [], []
    for one in trained:
        beside = None if one.residual is None else _anonymous(one.residual.layout)
        own = learner(base, _anonymous(one.adapter.layout), beside)
        test.append(own.topic_losses(one.adapter, sequences.test, one.residual))
        validation.append(own.topic_losses(one.adapter, sequences.validation, one.residual))
    held = test if len(test) == len(silos) else [test[0]] * len(silos)
    return Losses(
        test=float(np.mean(test)),
        own=fmean(float(loss @ s.topic_shares) for loss, s in zip(held, silos, strict=True)),
        validation=float(np.mean(validation)),
        merge_error=fmean(one.merge_error for one in trained),
        seconds=time.perf_counter() - began,
    )


def _compressors(contender: Contender, silos: int, directory: Path) -> list[Compressor]:
    scheme = contender.compression
    if scheme == "none":
        return []
    return [Compressor(scheme, directory / f"silo-{number}") for number in range(silos)]


def _to_train_on(
    silo: SiloData, settings: Settings, contender: Contender, place: tuple[int, int, int]
) -> tuple[Sequence[Tokens], Noise | None]:
    """A round's batches, and the noise of its steps; `place`: seed, round and silo."""
    if contender.epsilon is None:
        return tuple(_round_batches(silo, settings, place[1])), None
    noise = noise_of(contender.epsilon, silo.sequences, settings, place)
    return drawn_batches(silo.sequences, settings, place), noise


def _round_batches(silo: SiloData, settings: Settings, round_number: int) -> Tokens:
    return _batches(silo, settings, settings.local_steps, (round_number - 1) * settings.local_steps)


def _batches(silo: SiloData, settings: Settings, steps: int, first_step: int) -> Tokens:
    """Batches (steps, sequences, length) in the silo's order, from the start again at its end."""
    each = settings.sequences_per_step
    rows = np.arange(first_step * each, (first_step + steps) * each) % len(silo.sequences)
    return silo.sequences[rows].reshape(steps, each, -1)


def _layout(settings: Settings, base: Path, rank: int, seed: int) -> AdapterLayout:
    alpha = rank * settings.scaling
    return AdapterLayout(rank=rank, alpha=alpha, seed=seed, targets=base_targets(base))


def _anonymous(layout: AdapterLayout) -> AdapterLayout:
    """Without the seed, so that one learner serves all seeds."""
    return layout.model_copy(update={"seed": 0})
