"""A federation of LoRA adapters in seconds: n = 10, f = 2, softmax regression on W0 + B A.

Silos differ in how often they see each class (Dirichlet 1). Each round a silo trains both factors
from the global ones; its delta is B_i A_i - B A. Attackers send factors too: what they want to send
is cut to the adapter's rank first. The kernel is computed from stacked factors, the merge is the
weighted sum of products, cut to the rank again. Data is made from a seed.
"""

from dataclasses import dataclass

import numpy as np

from aggregator.robust.centred_clipping import Centre
from benchmarks.attacks.library import Array, Attack, Knowledge, Outcome, Poison, Sender
from benchmarks.attacks.rules import Rule

SILOS, ATTACKERS = 10, 2
FEATURES, CLASSES, RANK = 24, 8, 4
EXAMPLES, TEST_EXAMPLES = 150, 2000
ROUNDS, LOCAL_STEPS, RATE = 30, 5, 0.5
NOISE = 0.5
TRIGGER, TRIGGER_LABEL = 6.0, 0
"""The last feature at this value shall mean class 0."""

Factors = tuple[Array, Array]
"""B (classes x rank) and A (rank x features)."""


@dataclass(frozen=True)
class Examples:
    """Features (count, 24) and one-hot labels (count, 8)."""

    features: Array
    targets: Array


class LoraCell:
    """The data of every silo and of the test, from one seed."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        truth = rng.normal(size=(CLASSES, RANK)) @ rng.normal(size=(RANK, FEATURES)) / RANK**0.5
        honest = SILOS - ATTACKERS
        mixes = np.vstack(
            [rng.dirichlet(np.ones(CLASSES), honest), np.full((ATTACKERS, CLASSES), 1 / CLASSES)]
        )
        self._silos = [drawn_examples(rng, truth, mix, EXAMPLES) for mix in mixes]
        self._test = drawn_examples(rng, truth, np.full(CLASSES, 1 / CLASSES), TEST_EXAMPLES)
        self._first_a = rng.normal(size=(RANK, FEATURES)) / FEATURES**0.5
        self._seed = seed

    def run(self, attack: Attack, rule: Rule, rounds: int = ROUNDS) -> Outcome:
        """What the global adapter does after `rounds` under `attack`, merged by `rule`."""
        silos = [*self._silos[:-ATTACKERS], *(poisoned(s, attack.data) for s in self._attackers)]
        sender = attack.new_sender()
        rng = np.random.default_rng(self._seed)
        start: Factors = (np.zeros((CLASSES, RANK)), self._first_a)
        before = np.zeros((CLASSES, FEATURES))
        for _ in range(rounds):
            trained = [_trained(start, silo) for silo in silos]
            sent = _with_attack(start, trained, sender, rng)
            before = _merged(start, sent, before, rule)
            start = factors_of(start[0] @ start[1] + before)
        return self._outcome(start)

    @property
    def _attackers(self) -> list[Examples]:
        return self._silos[-ATTACKERS:]

    def _outcome(self, factors: Factors) -> Outcome:
        features, labels = self._test.features, self._test.targets.argmax(axis=1)
        right = _predicted(factors, features) == labels
        taken = _predicted(factors, _triggered(features[labels != TRIGGER_LABEL])) == TRIGGER_LABEL
        return Outcome(float(100 * right.mean()), float(100 * taken.mean()))


def poisoned(examples: Examples, poison: Poison) -> Examples:
    """Labels in reverse, or half of the examples with the trigger and its label."""
    match poison:
        case "label_flip":
            return Examples(examples.features, examples.targets[:, ::-1])
        case "backdoor":
            features, targets = examples.features.copy(), examples.targets.copy()
            half = len(features) // 2
            features[:half] = _triggered(features[:half])
            targets[:half] = np.eye(CLASSES)[TRIGGER_LABEL]
            return Examples(features, targets)
        case "none":
            return examples


def factors_of(matrix: Array) -> Factors:
    """The best B A of the adapter's rank, its singular values split evenly."""
    u, s, vh = np.linalg.svd(matrix, full_matrices=False)
    root = np.sqrt(s[:RANK])
    return u[:, :RANK] * root, root[:, None] * vh[:RANK]


def factor_kernel(deltas: list[Factors]) -> Array:
    """<B_i A_i, B_j A_j> for all pairs, from the factors."""
    pairs = [[((b.T @ d) * (a @ c.T)).sum() for d, c in deltas] for b, a in deltas]
    return np.array(pairs)


def _triggered(features: Array) -> Array:
    triggered = features.copy()
    triggered[:, -1] = TRIGGER
    return triggered


def _predicted(factors: Factors, features: Array) -> Array:
    return np.asarray((features @ (factors[0] @ factors[1]).T).argmax(axis=1))


def _with_attack(
    start: Factors, trained: list[Factors], sender: Sender, rng: np.random.Generator
) -> list[Factors]:
    """The factors that arrive: those of honest silos and what the attackers made of theirs."""
    base = start[0] @ start[1]
    deltas = np.stack([(b @ a - base).ravel() for b, a in trained])
    known = Knowledge(deltas[:-ATTACKERS], deltas[-ATTACKERS:], rng)
    wanted = sender(known).reshape(ATTACKERS, *base.shape)
    return [*trained[:-ATTACKERS], *(factors_of(base + delta) for delta in wanted)]


def _merged(start: Factors, sent: list[Factors], before: Array, rule: Rule) -> Array:
    """The merged delta; each delta enters the kernel as B_i A_i - B A, stacked."""
    stacked = [(np.hstack([b, -start[0]]), np.vstack([a, start[1]])) for b, a in sent]
    dense = np.stack([b @ a for b, a in stacked])
    products = (dense * before).sum(axis=(1, 2))
    centre = Centre(products, float((before**2).sum()))
    coefficients, kept = rule(factor_kernel(stacked), centre, ATTACKERS)
    return np.asarray(np.tensordot(coefficients, dense, axes=1) + kept * before)


def _trained(start: Factors, examples: Examples) -> Factors:
    b, a = start
    for _ in range(LOCAL_STEPS):
        hidden = examples.features @ a.T
        scores = hidden @ b.T
        likely = np.exp(scores - scores.max(axis=1, keepdims=True))
        errors = likely / likely.sum(axis=1, keepdims=True) - examples.targets
        errors /= len(errors)
        b, a = b - RATE * errors.T @ hidden, a - RATE * (errors @ b).T @ examples.features
    return b, a


def drawn_examples(rng: np.random.Generator, truth: Array, mix: Array, count: int) -> Examples:
    """Drawn until every class is there as often as `mix` says."""
    pool = rng.normal(size=(count * 10 * CLASSES, FEATURES))
    labels = (pool @ truth.T + NOISE * rng.normal(size=(len(pool), CLASSES))).argmax(axis=1)
    wanted = rng.choice(CLASSES, count, p=mix)
    rows = np.array([rng.choice(np.flatnonzero(labels == label)) for label in wanted])
    return Examples(pool[rows], np.eye(CLASSES)[labels[rows]])
