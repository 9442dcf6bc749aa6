"""The numbers of the bake-off: data, model, federation, grids. Change one and the base is re-made
if it depends on it, because the cache is keyed by a digest of `BaseRecipe` and of the packages.
"""

from dataclasses import dataclass, field, replace

TOPICS = (2, 5, 7, 9, 13, 15, 19, 20, 21)
"""Chapters of ICD-10-CM, counted from 1, that hold enough text for equal shares: neoplasms, mental
disorders, eye, circulation, muscles and bones, pregnancy, injury, external causes, contacts."""


@dataclass(frozen=True)
class BaseRecipe:
    """Tokenizer, shape and pretraining of the base; sequences are of `sequence_length` tokens."""

    vocabulary: int = 1024
    hidden: int = 128
    layers: int = 3
    heads: int = 4
    sequence_length: int = 64
    sequences_per_step: int = 16
    steps: int = 3000
    learning_rate: float = 3e-3
    warmup_steps: int = 100
    seed: int = 0


@dataclass(frozen=True)
class TopicShares:
    """Sequences of every topic: for training, for the choice of learning rates, for figures."""

    train: int = 480
    validation: int = 16
    test: int = 48


@dataclass(frozen=True)
class Settings:
    """One run of the bake-off. A silo trains `rounds * local_steps` steps in all.

    Where training is differentially private, a step draws `private_sequences` on average.
    `fewer_rounds` are other ways to cut those steps into rounds. Nothing is chosen on `seeds`.
    """

    silos: int = 6
    rounds: int = 8
    local_steps: int = 10
    sequences_per_step: int = 8
    private_sequences: int = 32
    warmup_steps: int = 1
    weight_decay: float = 0.0
    max_gradient_norm: float = 1.0
    rank: int = 4
    scaling: int = 2
    mixed_ranks: tuple[int, ...] = (2, 4, 8)
    residual_rank: int = 16
    fewer_rounds: tuple[int, ...] = (2, 4)
    seeds: tuple[int, ...] = (0, 1, 2)
    tuning_seed: int = 10
    alphas: tuple[float | None, ...] = (None, 0.5, 0.1)
    tuning_alpha: float | None = 0.5
    learning_rates: tuple[float, ...] = (5e-3, 1e-2, 2e-2, 4e-2)
    base: BaseRecipe = field(default_factory=BaseRecipe)
    shares: TopicShares = field(default_factory=TopicShares)

    @property
    def steps(self) -> int:
        """Sequential optimizer steps of one silo, and of the centralised run."""
        return self.rounds * self.local_steps

    def in_rounds(self, rounds: int | None) -> "Settings":
        """The same steps in so many rounds; None leaves them as they are."""
        if rounds is None:
            return self
        return replace(self, rounds=rounds, local_steps=self.steps // rounds)


def partition_name(alpha: float | None) -> str:
    """`iid` or `dirichlet_0.5`."""
    return "iid" if alpha is None else f"dirichlet_{alpha:g}"
