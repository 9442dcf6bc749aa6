"""Who holds what: Dirichlet shares of topics per silo, after Hsu et al. 2019, section 3.1.

Each silo draws a distribution over topics q ~ Dirichlet(alpha p), p the pool's own topic shares
(uniform here), and takes as many sequences as every other silo, topic by topic from q; a topic that
is used up drops out and q is renormalised. So every partition deals out the same pool, all silos
count equally, and a centralised run has the same data under every alpha.
"""

from dataclasses import dataclass

import numpy as np

from benchmarks.quality.base_model import Tokens


@dataclass(frozen=True)
class SiloData:
    """Token ids (sequences, length) and the share of every topic among them (topics,)."""

    sequences: Tokens
    topic_shares: np.ndarray


def partitioned(pool: Tokens, silos: int, alpha: float | None, seed: int) -> list[SiloData]:
    """Deal `pool` (topics, sequences, length) out to `silos`; alpha None deals every topic evenly.

    Every silo gets the same number of sequences; a remainder that does not divide is left out.
    """
    rng = np.random.default_rng([seed, 1])
    topics, count, _ = pool.shape
    order = [rng.permutation(count) for _ in range(topics)]
    each = topics * count // silos
    taken = np.zeros(topics, dtype=int)
    result = []
    for _ in range(silos):
        if alpha is None:
            wanted = _evenly(each, topics, taken, count)
        else:
            wanted = _drawn(each, rng.dirichlet(np.full(topics, alpha)), count - taken, rng)
        rows = [pool[t, order[t][taken[t] : taken[t] + n]] for t, n in enumerate(wanted)]
        taken += wanted
        result.append(SiloData(rng.permutation(np.concatenate(rows)), wanted / wanted.sum()))
    return result


def _evenly(each: int, topics: int, taken: np.ndarray, count: int) -> np.ndarray:
    """The same of every topic; what does not divide goes to the topics with most left."""
    wanted = np.full(topics, each // topics)
    most_left = np.argsort(taken - count, kind="stable")
    wanted[most_left[: each % topics]] += 1
    return wanted


def _drawn(each: int, q: np.ndarray, left: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Counts per topic of `each` draws from q without replacement."""
    wanted = np.zeros(len(q), dtype=int)
    while wanted.sum() < each:
        open_topics = left > wanted
        weights = np.where(open_topics, q + 1e-12, 0)
        drawn = rng.multinomial(each - wanted.sum(), weights / weights.sum())
        wanted = np.minimum(wanted + drawn, left)
    return wanted
