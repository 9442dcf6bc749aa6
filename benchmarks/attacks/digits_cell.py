"""The digits federation of Karimireddy et al. (ICLR 2022): n = 25, f = 5, labels sorted by silo.

As there: 20 honest silos with one slice each of the digits sorted by label, 5 attackers with digits
of every label, batch 32, worker momentum 0.9 (v = 0.9 v + g), rate 0.01, 600 steps. Not as there:
9,000 digits instead of 60,000, a network of 7,562 weights instead of 1.2 million, no dropout. One
step is one round; a delta is minus the momentum.
"""

import numpy as np
import torch

from aggregator.robust.centred_clipping import Centre
from benchmarks.attacks.digits import Digits, load_digits
from benchmarks.attacks.library import Array, Attack, Knowledge, Outcome, Poison, Sender
from benchmarks.attacks.rules import Rule
from benchmarks.attacks.worker_network import (
    PATCH,
    as_patches,
    initial_weights,
    logits,
    worker_gradients,
)

SILOS, ATTACKERS = 25, 5
BATCH, MOMENTUM, RATE, STEPS = 32, 0.9, 0.01, 600
BACKDOOR_LABEL, CORNER = 0, 4
"""A white square of 4 x 4 pixels in the corner shall mean 0."""

WHITE = 2.8


class DigitsCell:
    """The data of every silo, read once and used for every attack and rule."""

    def __init__(self) -> None:
        train, self._test = load_digits()
        ordered = train.part(torch.argsort(train.labels, stable=True))
        size = len(ordered.labels) // (SILOS - ATTACKERS)
        self._parts = [
            ordered.part(torch.arange(i * size, (i + 1) * size)) for i in range(SILOS - ATTACKERS)
        ]
        self._parts += [
            train.part(torch.arange(i, len(train.labels), SILOS - ATTACKERS)[:size])
            for i in range(ATTACKERS)
        ]

    def run(self, attack: Attack, rule: Rule, steps: int = STEPS, seed: int = 0) -> Outcome:
        """Train for `steps` rounds under `attack`, merged by `rule`; about 11 seconds of a core.

        Weights that are no longer finite count as 10 percent right.
        """
        patches, labels = _poisoned(self._parts, attack.data)
        every = torch.arange(SILOS)[:, None]
        draws = torch.Generator().manual_seed(seed)
        server = _Server(initial_weights(seed), rule, attack.new_sender(), seed)
        momentum = torch.zeros(SILOS, len(server.weights))
        for _ in range(steps):
            rows = torch.randint(patches.shape[1], (SILOS, BATCH), generator=draws)
            gradients = worker_gradients(server.weights, patches[every, rows], labels[every, rows])
            momentum = MOMENTUM * momentum + gradients
            server.merge(-momentum)
            if not torch.isfinite(server.weights).all():
                return Outcome(10.0, 0.0)
        return self._outcome(server.weights)

    def _outcome(self, weights: torch.Tensor) -> Outcome:
        right = _predicted(weights, self._test.images) == self._test.labels
        others = self._test.part(self._test.labels != BACKDOOR_LABEL)
        taken = _predicted(weights, _patched(others.images)) == BACKDOOR_LABEL
        return Outcome(100 * right.float().mean().item(), 100 * taken.float().mean().item())


class _Server:
    def __init__(self, weights: torch.Tensor, rule: Rule, sender: Sender, seed: int) -> None:
        self.weights = weights
        self._rule, self._sender = rule, sender
        self._rng = np.random.default_rng(seed)
        self._before: Array = np.zeros(len(weights))

    def merge(self, trained: torch.Tensor) -> None:
        """Replace the attackers' deltas by what they send, merge, step."""
        deltas = trained.numpy().astype(np.float64)
        known = Knowledge(deltas[:-ATTACKERS], deltas[-ATTACKERS:], self._rng)
        sent = np.concatenate([known.honest, self._sender(known)])
        centre = Centre(sent @ self._before, float(self._before @ self._before))
        coefficients, kept = self._rule(sent @ sent.T, centre, ATTACKERS)
        self._before = coefficients @ sent + kept * self._before
        self.weights = self.weights + RATE * torch.from_numpy(self._before).float()


def _poisoned(parts: list[Digits], poison: Poison) -> tuple[torch.Tensor, torch.Tensor]:
    """Patches (silos, count, 49, 16) and labels (silos, count), the attackers' poisoned."""
    images = torch.stack([part.images for part in parts])
    labels = torch.stack([part.labels for part in parts])
    if poison == "label_flip":
        labels[-ATTACKERS:] = 9 - labels[-ATTACKERS:]
    if poison == "backdoor":
        half = images.shape[1] // 2
        images[-ATTACKERS:, :half] = _patched(images[-ATTACKERS:, :half])
        labels[-ATTACKERS:, :half] = BACKDOOR_LABEL
    patches = as_patches(images.flatten(0, 1)).reshape(*images.shape[:2], -1, PATCH * PATCH)
    return patches, labels


def _patched(images: torch.Tensor) -> torch.Tensor:
    patched = images.clone()
    patched[..., -CORNER:, -CORNER:] = WHITE
    return patched


def _predicted(weights: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return logits(weights[None], as_patches(images)[None])[0].argmax(dim=1)
