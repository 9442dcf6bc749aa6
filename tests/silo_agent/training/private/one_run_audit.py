"""A lower bound on epsilon from one training (Steinke, Nasr and Jagielski 2023, "Privacy auditing
with one (1) training run", arXiv:2305.08846).

Each of some canaries is put into the training records or not, by a coin. Who is to guess which sees
the trained model alone. A training that is (epsilon, delta) private leaves so many right guesses
improbable; the bound is the largest epsilon that does at 95 %.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

CONFIDENCE = 0.95
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def p_value(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """The probability of so many right guesses, at most, if the claim holds (appendix D)."""
    rate = 1 / (1 + math.exp(-epsilon))
    chances = [
        math.comb(guesses, k) * rate**k * (1 - rate) ** (guesses - k) for k in range(guesses + 1)
    ]
    beta = math.fsum(chances[right:])
    alpha, total = 0.0, 0.0
    for fewer in range(1, right + 1):
        total += chances[right - fewer]
        alpha = max(alpha, total / fewer)
    return min(1.0, beta + alpha * delta * 2 * canaries)


def lower_bound(canaries: int, guesses: int, right: int, delta: float) -> float:
    """Of epsilon, with `CONFIDENCE`; 0 where nothing can be said."""
    low, high = 0.0, 20.0
    for _ in range(40):
        middle = (low + high) / 2
        is_refuted = p_value(canaries, guesses, right, middle, delta) < 1 - CONFIDENCE
        low, high = (middle, high) if is_refuted else (low, middle)
    return low


def right_guesses(scores: Sequence[float], is_in: Sequence[bool], guesses: int) -> int:
    """The highest scores are guessed to be in, the lowest to be out, half of the guesses each."""
    order = np.argsort(scores)
    half = guesses // 2
    inside = np.array(is_in)
    return int((~inside[order[:half]]).sum() + inside[order[len(order) - half :]].sum())


def write_canaries(path: Path, count: int, seed: int = 0) -> list[str]:
    """Records with answers that follow from nothing; returns their lines."""
    rng = np.random.default_rng(seed)
    lines = []
    for number in range(count):
        answer = "".join(rng.choice(list(LETTERS), size=12))
        lines.append(json.dumps({"prompt": f"Code {number}?", "answer": answer}))
    path.write_text("\n".join(lines) + "\n")
    return lines
