"""Words, their bounds and their hashes against a plain reference."""

import hashlib
import random
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.dataset.word_hashes import WordHashes, hash_words, mixed

IGNORABLE = {0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x3164, 0xFEFF, 0xFFA0, 0x17B4, 0x17B5}
IGNORABLE |= {*range(0x180B, 0x1810), *range(0x200B, 0x2010), *range(0x202A, 0x202F)}
IGNORABLE |= {*range(0x2060, 0x2070), *range(0xFE00, 0xFE10), *range(0xFFF0, 0xFFF9)}
IGNORABLE |= {*range(0xE0000, 0xE1000)}
AWKWARD = "aB3 _'-\n\x00\u2019\u201cé\u0301\u00adßİΣﬁ①²½٣中\u0903\u200d\ud800\u0345ǅ\u1e9e🙂\u3164"
MASK = (1 << 64) - 1


def reference_words(text: str) -> list[str]:
    """Words of one text, character by character."""
    kept = "".join(c for c in text if ord(c) not in IGNORABLE)
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", kept).casefold())
    words = [""]
    for character in folded:
        if character.isalnum() or unicodedata.category(character).startswith("M"):
            words[-1] += character
        elif words[-1]:
            words.append("")
    return [word for word in words if word]


def reference_mix(value: int) -> int:
    value ^= value >> 30
    value = value * 0xBF58476D1CE4E5B9 & MASK
    value ^= value >> 27
    value = value * 0x94D049BB133111EB & MASK
    return value ^ value >> 31


def reference_hash(word: str) -> int:
    data = word.encode()
    if len(data) > 64:
        return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
    result = reference_mix(int.from_bytes(data[:8], "little"))
    for begin in range(8, len(data), 8):
        lane = int.from_bytes(data[begin : begin + 8], "little")
        result = reference_mix((result * 0x9E3779B97F4A7C15 + lane) & MASK)
    return result


def of_text(words: WordHashes, index: int) -> list[int]:
    return [int(v) for v in words.values[words.offsets[index] : words.offsets[index + 1]]]


def assert_as_reference(texts: list[str]) -> None:
    words = hash_words(texts)
    assert words.values.dtype == np.uint64
    assert words.offsets.dtype == np.int64
    assert len(words.offsets) == len(texts) + 1
    assert words.offsets[0] == 0
    assert words.offsets[-1] == len(words.values)
    for index, text in enumerate(texts):
        assert of_text(words, index) == [reference_hash(word) for word in reference_words(text)]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.text(st.sampled_from(AWKWARD), max_size=90), max_size=6))
def test_awkward_characters_are_read_as_by_the_reference(texts: list[str]) -> None:
    assert_as_reference(texts)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(max_size=60), max_size=6))
def test_any_text_is_read_as_by_the_reference(texts: list[str]) -> None:
    assert_as_reference(texts)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(st.characters(max_codepoint=127), max_size=200), max_size=6))
def test_ascii_is_read_as_by_the_reference(texts: list[str]) -> None:
    assert_as_reference(texts)


@pytest.mark.parametrize("length", [1, 7, 8, 9, 15, 16, 17, 56, 63, 64, 65, 72, 200])
def test_words_of_every_length_and_place(length: int) -> None:
    word = "".join(random.Random(length).choices("abcxyz019", k=length))
    assert_as_reference([word, f" {word}", f"x {word} y", f"{word}{word} {word}"])


def test_no_word_spans_two_texts() -> None:
    words = hash_words(["copy", "right", "", "?!", "copyright"])
    assert words.counts.tolist() == [1, 1, 0, 0, 1]
    assert len(set(words.values.tolist())) == 3


def test_no_texts_and_empty_texts() -> None:
    assert hash_words([]).offsets.tolist() == [0]
    assert hash_words(["", ""]).offsets.tolist() == [0, 0, 0]
    assert len(hash_words([""]).values) == 0


def test_spellings_that_mean_the_same_words() -> None:
    plain = "don't stop - \"she said\" the file's office cafe\u0301"
    typeset = (
        "DON\u2019T\nStop \u2014 \u201cShe said\u201d the \ufb01le\u2019s of\u00adfice CAF\u00c9"
    )
    words = hash_words([plain, typeset])
    assert of_text(words, 0) == of_text(words, 1)


def test_a_text_of_ten_megabytes() -> None:
    part = "The quick brown fox, jumped over 13 lazy dogs. "
    words = hash_words(["", part * 220_000])
    assert words.offsets.tolist() == [0, 0, 220_000 * 9]
    assert np.array_equal(words.values.reshape(-1, 9)[0], words.values.reshape(-1, 9)[-1])


def test_a_word_of_ten_megabytes() -> None:
    words = hash_words(["x" * 10_000_000, "y"])
    assert words.offsets.tolist() == [0, 1, 2]


def test_no_collision_among_many_short_words() -> None:
    words = hash_words([" ".join(f"w{number}" for number in range(300_000))])
    assert len(np.unique(words.values)) == 300_000


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(0, 40), max_size=8),
    st.integers(1, 14),
    st.integers(1, 14),
)
def test_windows_lie_in_one_text(counts: list[int], size: int, stride: int) -> None:
    words = hash_words([" ".join(["w"] * count) for count in counts])
    expected = [
        int(words.offsets[text]) + start
        for text, count in enumerate(counts)
        for start in range(0, count - size + 1, stride)
    ]
    assert words.windows(size, stride).tolist() == expected


def test_the_finaliser_is_that_of_splitmix64() -> None:
    values = np.array([0, 1, 2**63, MASK], dtype=np.uint64)
    assert [int(v) for v in mixed(values)] == [reference_mix(int(v)) for v in values]
    assert values.tolist() == [0, 1, 2**63, MASK]
