"""Attacks on a merge, each a function from what the attackers know to what they send.

The attackers collude and see every honest delta of the round (the strongest reading of each paper).
Label flip and the backdoor act on the attackers' data; the federation that trains does them, see
`Attack.data`. Signs: a delta is the direction the model moves, so harm is against the mean.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Poison = Literal["none", "label_flip", "backdoor"]


@dataclass(frozen=True)
class Knowledge:
    """One round as the attackers see it: honest deltas (n - f, d) and their own (f, d).

    `own` is what they would send if they trained as told on their (perhaps poisoned) data.
    """

    honest: Array
    own: Array
    rng: np.random.Generator

    @property
    def attackers(self) -> int:
        return len(self.own)

    @property
    def mean(self) -> Array:
        return np.asarray(self.honest.mean(axis=0))

    @property
    def deviation(self) -> Array:
        """Sample standard deviation of every entry."""
        return np.asarray(self.honest.std(axis=0, ddof=1))

    def all_send(self, delta: Array) -> Array:
        """The same delta from every attacker, (f, d)."""
        return np.repeat(delta[None, :], self.attackers, axis=0)


@dataclass(frozen=True)
class Outcome:
    """In percent: test examples that are right, and triggered ones taken for the attackers' class.

    Examples that are of that class do not count for the backdoor.
    """

    accuracy: float
    backdoor: float


Sender = Callable[[Knowledge], Array]


@dataclass(frozen=True)
class Attack:
    """A name, a fresh sender for each federation (it may remember rounds), and the poison."""

    name: str
    new_sender: Callable[[], Sender]
    data: Poison = "none"


def honest(known: Knowledge) -> Array:
    """What training gave: no attack, or one that is in the data."""
    return known.own


def sign_flip(known: Knowledge) -> Array:
    """Minus the own delta (Li et al., RSA, AAAI 2019; 'bit flipping' in Karimireddy et al.)."""
    return -known.own


def alie(known: Knowledge, z: float | None = None) -> Array:
    """Mean - z x standard deviation (Baruch et al., A Little Is Enough, NeurIPS 2019).

    `z` None is the paper's largest z that should still pass as a supporter of the majority.
    """
    silos = len(known.honest) + known.attackers
    chosen = alie_z(silos, known.attackers) if z is None else z
    return known.all_send(known.mean - chosen * known.deviation)


def alie_z(silos: int, attackers: int) -> float:
    """z_max of Baruch et al.: s = floor(n/2 + 1) - f supporters; 0.25 for n=25, f=5."""
    supporters = silos // 2 + 1 - attackers
    honest_silos = silos - attackers
    return NormalDist().inv_cdf((honest_silos - supporters) / honest_silos)


def inner_product(known: Knowledge, epsilon: float = 0.1) -> Array:
    """-epsilon x mean (IPM, Xie et al., Fall of Empires, UAI 2020)."""
    return known.all_send(-epsilon * known.mean)


@dataclass
class Mimic:
    """All copy one honest silo, so that it is over-represented (Karimireddy et al., ICLR 2022).

    The victim, chosen in the first round and kept, is the silo furthest along the direction in
    which the honest deltas differ most.
    """

    victim: int | None = field(default=None)

    def __call__(self, known: Knowledge) -> Array:
        if self.victim is None:
            differences = known.honest - known.mean
            left, _, _ = np.linalg.svd(differences @ differences.T)
            self.victim = int(np.abs(left[:, 0]).argmax())
        return known.all_send(known.honest[self.victim])


def min_max(known: Knowledge) -> Array:
    """Mean - gamma x deviation, as far as no honest silo sees it beyond the honest diameter.

    Shejwalkar and Houmansadr, NDSS 2021, with the perturbation 'inverse standard deviation'. Their
    halving search for the largest gamma has a closed form: for every silo a quadratic in gamma.
    """
    gaps = known.mean - known.honest
    norms = (known.honest**2).sum(axis=1)
    diameter = (norms[:, None] + norms[None, :] - 2 * known.honest @ known.honest.T).max()
    square = float((known.deviation**2).sum())
    if square == 0:
        return known.all_send(known.mean)
    half = gaps @ known.deviation
    room = np.maximum(diameter - (gaps**2).sum(axis=1), 0.0)
    gamma = ((half + np.sqrt(half**2 + square * room)) / square).min()
    return known.all_send(known.mean - gamma * known.deviation)


def gaussian(known: Knowledge, scale: float = 10.0) -> Array:
    """Noise instead of a delta (Blanchard et al. 2017), `scale` times the honest entries' size."""
    size = scale * float(np.sqrt((known.honest**2).mean()))
    return size * known.rng.standard_normal(known.own.shape)


def scaled_replacement(known: Knowledge, factor: float = 20.0) -> Array:
    """The own delta times `factor`, to replace the model (Bagdasaryan et al., AISTATS 2020)."""
    return factor * known.own


def _always(sender: Sender) -> Callable[[], Sender]:
    return lambda: sender


NO_ATTACK = Attack("none", _always(honest))
ALIE = Attack("alie", _always(alie))
REPLACEMENT = Attack("scaled_replacement", _always(scaled_replacement), data="backdoor")
ATTACKS = (
    NO_ATTACK,
    Attack("sign_flip", _always(sign_flip)),
    Attack("label_flip", _always(honest), data="label_flip"),
    ALIE,
    Attack("ipm", _always(inner_product)),
    Attack("mimic", Mimic),
    Attack("min_max", _always(min_max)),
    Attack("gaussian", _always(gaussian)),
    REPLACEMENT,
)
ALIE_SWEEP = tuple(
    Attack(f"alie z={z}", _always(partial(alie, z=z))) for z in (0.5, 0.75, 1.0, 1.25, 1.5)
)
