"""Signatures against the true Jaccard similarity of shingle sets."""

import random

import numpy as np
import pytest

from data_contracts.dataset.near_duplicates import (
    BANDS,
    EMPTY,
    SHINGLE_WORDS,
    SIGNATURE_LENGTH,
    band_keys,
    estimated_similarity,
    signatures,
)
from data_contracts.dataset.word_hashes import hash_words

VOCABULARY = [f"word{number}" for number in range(5000)]


def salad(rng: random.Random, count: int) -> list[str]:
    return rng.choices(VOCABULARY, k=count)


def edited(rng: random.Random, words: list[str], edits: int) -> list[str]:
    """`words` with `edits` of them replaced."""
    changed = list(words)
    for place in rng.sample(range(len(words)), edits):
        changed[place] = f"new{rng.randrange(10**9)}"
    return changed


def jaccard(one: list[str], other: list[str]) -> float:
    first, second = (
        {tuple(w[i : i + SHINGLE_WORDS]) for i in range(len(w) - SHINGLE_WORDS + 1)}
        for w in (one, other)
    )
    return len(first & second) / len(first | second)


@pytest.fixture(scope="module")
def pairs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True similarities, and the signatures of both sides, of 3,000 pairs."""
    rng = random.Random(7)
    ones = [salad(rng, rng.randrange(60, 240)) for _ in range(3000)]
    others = [edited(rng, words, rng.choice([0, 1, 1, 2, 3, 5, 8])) for words in ones]
    truth = np.array([jaccard(a, b) for a, b in zip(ones, others, strict=True)])
    signed = signatures(hash_words([" ".join(words) for words in ones + others]))
    return truth, signed[:3000], signed[3000:]


def test_the_estimate_is_unbiased_and_as_tight_as_the_theory(pairs: tuple[np.ndarray, ...]) -> None:
    truth, ones, others = pairs
    error = estimated_similarity(ones, others) - truth
    assert abs(error.mean()) < 0.005
    assert error.std() < 1.1 * np.sqrt((truth * (1 - truth) / SIGNATURE_LENGTH).mean())
    assert np.abs(error).max() < 0.35


def test_near_duplicates_share_a_band_as_often_as_the_theory_says(
    pairs: tuple[np.ndarray, ...],
) -> None:
    truth, ones, others = pairs
    shared = (band_keys(ones) == band_keys(others)).any(axis=1)
    for low, high in ((0.5, 0.6), (0.6, 0.7), (0.7, 0.8), (0.8, 0.9), (0.9, 0.9999)):
        of_range = (truth >= low) & (truth < high)
        expected = (1 - (1 - truth[of_range] ** 6) ** BANDS).mean()
        assert abs(shared[of_range].mean() - expected) < 0.06
    assert shared[truth >= 0.9].mean() > 0.99
    assert shared[truth == 1].all()


def test_unrelated_texts_share_no_band() -> None:
    rng = random.Random(8)
    signed = signatures(hash_words([" ".join(salad(rng, 65)) for _ in range(20_000)]))
    keys = band_keys(signed)
    assert len(np.unique(keys)) == keys.size
    assert estimated_similarity(signed[::2], signed[1::2]).max() <= 2 / SIGNATURE_LENGTH


def test_shapes_and_types() -> None:
    signed = signatures(hash_words(["one two three four five six", ""]))
    assert (signed.shape, str(signed.dtype)) == ((2, 48), "uint32")
    assert (band_keys(signed).shape, str(band_keys(signed).dtype)) == ((2, 8), "uint64")
    none = signatures(hash_words([]))
    assert none.shape == (0, 48)
    assert band_keys(none).shape == (0, 8)


def test_a_signature_does_not_depend_on_the_texts_around_it() -> None:
    rng = random.Random(9)
    counts = [0, 1, 4, 5, 6, 0, 0, 30_000, 3, 70, 9000, 200, 0]
    texts = [" ".join(salad(rng, count)) for count in counts]
    together = signatures(hash_words(texts))
    for index, text in enumerate(texts):
        assert np.array_equal(together[index], signatures(hash_words([text]))[0])


def test_each_place_is_the_minimum_over_the_set_of_shingles() -> None:
    rng = random.Random(10)
    words = salad(rng, 50)
    windows = [" ".join(words[i : i + SHINGLE_WORDS]) for i in range(46)]
    whole = signatures(hash_words([" ".join(words)]))[0]
    assert np.array_equal(whole, signatures(hash_words(windows)).min(axis=0))


def test_short_texts_are_compared_as_whole_sequences() -> None:
    texts = ["a", "b", "a b", "b a", "a b c", "a b c d", "A, b; C! d", "a b c d e"]
    signed = signatures(hash_words(texts))
    alike = estimated_similarity(signed[:, None], signed[None]) == 1
    assert {(i, j) for i, j in zip(*np.nonzero(alike), strict=True) if i < j} == {(5, 6)}


def test_texts_without_words_are_like_each_other_only() -> None:
    signed = signatures(hash_words(["", "?!", "a"]))
    assert (signed[:2] == EMPTY).all()
    assert not (signed[2] == EMPTY).any()


def test_case_and_punctuation_do_not_matter() -> None:
    one = 'It wasn\'t the "first" time that anybody had seen the office.'
    other = "it wasn\u2019t\nthe \u201cfirst\u201d TIME that anybody had seen, the of\u00adfice"
    signed = signatures(hash_words([one, other]))
    assert estimated_similarity(signed[0], signed[1]) == 1
