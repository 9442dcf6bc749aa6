"""Which tokens an aggregator finds in a submission: a ranking of the vocabulary, best guess first.

It knows base model, tokenizer, layout, start and recipe, and has the difference of one silo's
adapter to the start. Three views of it, all linear algebra without a search:

inputs   Rows of what A changed in the first block's q, k and v lie, where a step follows a
         gradient, in the span of the layer's inputs, which are the normalised embeddings of the
         tokens. This is the first stage of DAGER (Petrov et al. 2024, arXiv:2405.15586), which asks
         of each token how far it is from that span; here the nearest come first. With LoRA the span
         has at most 3 r directions, and AdamW takes signs of it, so it is no exact test any more.
answers  Columns of what B changed in the last blocks' outputs lie near the rows of the output layer
         of what was to be predicted: label inference (Zhao et al. 2020, arXiv:2001.02610; Dang et
         al. 2021, arXiv:2111.00556) on a LoRA factor.
both     The sum of the two, each in standard deviations.

Each also with what an attacker expects of such texts, the logarithm of how often a token comes in
other ones of the same field.

DAGER's second stage, which puts tokens in order, needs the exact test and is not tried.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.leaks.training import Tensors

Array = NDArray[np.float64]
LAST_BLOCKS = 4
_FIRST = ".layers.0.self_attn."
_FLAT = 1e-6
"""Singular values below this share of the largest are none."""


@dataclass(frozen=True)
class Vocabulary:
    """Of a Llama with tied embeddings: each token as the first block's input, and as a direction of
    the output; (tokens, hidden), centred, rows of norm 1. `inputs` is not centred."""

    inputs: Array
    centred: Array
    outputs: Array
    last: int

    @classmethod
    def of(cls, model: Any) -> "Vocabulary":
        """From the frozen weights, which everybody has."""
        base = model.get_base_model().model
        table = base.embed_tokens.weight.detach().double().numpy()
        first = base.layers[0].input_layernorm.weight.detach().double().numpy()
        final = base.norm.weight.detach().double().numpy()
        inputs = _unit(table) * first
        return cls(
            _unit(inputs),
            _unit(inputs - inputs.mean(axis=0)),
            _unit((table - table.mean(axis=0)) * final),
            len(base.layers) - 1,
        )


Scores = Array
View = Callable[[Tensors, Vocabulary], Scores]


def span_of_inputs(difference: Tensors, vocabulary: Vocabulary) -> Scores:
    """How much of each token's embedding lies in the span: 1 minus DAGER's distance, squared."""
    rows = _rows(difference)
    if not rows.any():
        return np.zeros(len(vocabulary.inputs))
    _, sizes, directions = np.linalg.svd(rows, full_matrices=False)
    kept = directions[sizes > _FLAT * sizes[0]]
    return np.asarray(((vocabulary.inputs @ kept.T) ** 2).sum(axis=1))


def weighed_inputs(difference: Tensors, vocabulary: Vocabulary) -> Scores:
    """As the span, each direction as much as it changed, of embeddings without what all have."""
    return np.asarray(((vocabulary.centred @ _rows(difference).T) ** 2).sum(axis=1))


def answers(difference: Tensors, vocabulary: Vocabulary) -> Scores:
    """How far outputs moved along each token's direction."""
    total = np.zeros(len(vocabulary.outputs))
    for block in range(vocabulary.last - LAST_BLOCKS + 1, vocabulary.last + 1):
        for module in ("self_attn.o_proj", "mlp.down_proj"):
            columns = _of(difference, f".layers.{block}.{module}.", "lora_B")
            total += ((vocabulary.outputs @ columns) ** 2).sum(axis=1) / max(
                float((columns**2).sum()), 1e-300
            )
    return total


def both(difference: Tensors, vocabulary: Vocabulary) -> Scores:
    """Inputs and answers together."""
    return _standard(weighed_inputs(difference, vocabulary)) + _standard(
        answers(difference, vocabulary)
    )


VIEWS: dict[str, View] = {
    "span": span_of_inputs,
    "inputs": weighed_inputs,
    "answers": answers,
    "both": both,
}


def share_found(scores: Scores, hidden: set[int], known: set[int]) -> float:
    """How many of the `hidden` tokens are among as many best guesses, which leave out what is
    `known` of every record: recall, and precision as well."""
    order = [token for token in np.argsort(-scores, kind="stable") if token not in known]
    return len(hidden & {int(token) for token in order[: len(hidden)]}) / max(1, len(hidden))


def best_share(
    difference: Tensors,
    vocabulary: Vocabulary,
    hidden: set[int],
    known: set[int],
    prior: Scores | None = None,
) -> tuple[float, str]:
    """Of the view that finds most, as an attacker learns on text of its own which one that is; each
    also with a `prior` over tokens added to it, in standard deviations."""
    scores = {name: view(difference, vocabulary) for name, view in VIEWS.items()}
    if prior is not None:
        guessed = _standard(prior)
        scores |= {f"{n} and prior": _standard(s) + guessed for n, s in scores.items()}
    return max((share_found(s, hidden, known), name) for name, s in scores.items())


def _rows(difference: Tensors) -> Array:
    modules = ("q_proj.", "k_proj.", "v_proj.")
    return np.concatenate([_of(difference, _FIRST + name, "lora_A") for name in modules])


def _of(difference: Tensors, module: str, factor: str) -> Array:
    (name,) = [n for n in difference if module in n and factor in n]
    return difference[name].astype(np.float64)


def _unit(rows: Array) -> Array:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def _standard(scores: Scores) -> Scores:
    return np.asarray((scores - scores.mean()) / max(float(scores.std()), 1e-300))
