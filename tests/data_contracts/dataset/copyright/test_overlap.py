"""Copied spans are found wherever they lie; chains, coverage and their edges are exact."""

import itertools
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.dataset.copyright.overlap import (
    MIN_CHAIN,
    NO_REGISTRY,
    chain_lengths,
    find_overlap,
)
from data_contracts.dataset.copyright.registry import Registry
from data_contracts.dataset.copyright.registry_builder import build_registry
from data_contracts.dataset.word_hashes import hash_words
from tests.data_contracts.dataset.copyright.samples import (
    KEY,
    SIGNER,
    TERMS,
    build,
    disguised,
    load,
    salad,
    typographic,
)

PROSE = (
    "\"It wasn't me,\" said the miller's daughter, \"and I don't know whose 'help' you've had; "
    "but nobody's mill grinds at night, and mine hasn't turned since the river's edge froze.\" "
    "He'd heard that before: 'not me', 'not I', 'no one'. \"Then it's the wind's doing,\" he said, "
    "\"and we'll let the wind's own court judge what's owed for a winter's worth of flour.\""
)


@pytest.fixture(scope="module")
def works() -> list[list[str]]:
    rng = random.Random(21)
    return [salad(rng, 400) for _ in range(300)]


@pytest.fixture(scope="module")
def registry(works: list[list[str]], tmp_path_factory: pytest.TempPathFactory) -> Registry:
    texts = [*(" ".join(words) for words in works), PROSE]
    return load(build(tmp_path_factory.mktemp("registry"), texts))


def test_fifty_copied_words_are_always_found(works: list[list[str]], registry: Registry) -> None:
    rng = random.Random(22)
    texts = []
    for _ in range(5000):
        work = rng.choice(works)
        begin = rng.randrange(len(work) - 49)
        around = salad(rng, 30), salad(rng, 30)
        texts.append(disguised(rng, around[0] + work[begin : begin + 50] + around[1]))
    found = find_overlap(hash_words(texts), [registry])
    assert found.hits.all()
    assert found.chains.min() >= MIN_CHAIN
    assert found.coverage_per_mille.min() >= 1000 * 26 // 110


def test_clean_texts_are_never_hit(registry: Registry) -> None:
    rng = random.Random(23)
    texts = [disguised(rng, salad(rng, 65)) for _ in range(20_000)]
    found = find_overlap(hash_words(texts), [registry])
    assert not found.hits.any()
    assert not found.coverage_per_mille.any()


@pytest.mark.parametrize("alignment", range(13))
def test_two_tiles_are_certain_from_38_words_and_not_from_37(
    works: list[list[str]], registry: Registry, alignment: int
) -> None:
    span = works[5][26 + alignment : 26 + alignment + 38]
    texts = [" ".join(["before", *span, "after"]), " ".join(["before", *span[:37], "after"])]
    found = find_overlap(hash_words(texts), [registry])
    assert found.hits.tolist() == [True, alignment != 1]


@pytest.mark.parametrize("alignment", range(13))
@pytest.mark.parametrize("chain", [1, 2, 3, 7])
def test_a_chain_is_as_long_as_the_tiles_that_fit(
    works: list[list[str]], registry: Registry, chain: int, alignment: int
) -> None:
    span = works[7][alignment : alignment + 13 * chain + 12]
    skipped = -alignment % 13
    found = find_overlap(hash_words([" ".join(["x", "y", *span])]), [registry])
    assert found.chains[0] == (len(span) - skipped) // 13
    assert found.chains[0] >= chain


def test_curly_quotes_and_line_breaks_do_not_hide_a_copy(registry: Registry) -> None:
    curly = typographic(PROSE).replace(", ", ",\n").upper()
    cut = curly[40:]
    found = find_overlap(hash_words([curly, cut]), [registry])
    assert found.chains[0] == len(hash_words([PROSE]).values) // 13
    assert found.hits.all()


def test_a_span_over_two_texts_counts_in_neither(
    works: list[list[str]], registry: Registry
) -> None:
    span = works[0][:26]
    found = find_overlap(hash_words([" ".join(span[:13]), " ".join(span[13:])]), [registry])
    assert found.chains.tolist() == [1, 1]
    assert found.coverage_per_mille.tolist() == [0, 0]
    assert found.registry.tolist() == [0, 0]


def test_one_tile_covers_nothing_and_a_whole_copy_covers_all(
    works: list[list[str]], registry: Registry
) -> None:
    whole = " ".join(works[1][:390])
    one, clean = " ".join(works[1][:13]), "these words are not in any registry"
    found = find_overlap(hash_words(["", whole, one, clean]), [registry])
    assert found.chains.tolist() == [0, 30, 1, 0]
    assert found.coverage_per_mille.tolist() == [0, 1000, 0, 0]
    assert found.registry.tolist() == [NO_REGISTRY, 0, 0, NO_REGISTRY]


def test_coverage_is_rounded_up(works: list[list[str]], registry: Registry) -> None:
    rng = random.Random(24)
    text = " ".join(works[2][:26] + salad(rng, 99_974))
    assert find_overlap(hash_words([text]), [registry]).coverage_per_mille.tolist() == [1]


def test_several_registries_under_one_key_and_another(tmp_path: Path) -> None:
    rng = random.Random(25)
    works = [salad(rng, 130) for _ in range(3)]
    registries = []
    for number, key in enumerate((KEY, b"z" * 32, KEY)):
        directory = tmp_path / str(number)
        files = build_registry([" ".join(works[number])], TERMS, key, SIGNER, directory)
        registries.append(load(files, key=key))
    texts = [" ".join(work[:39]) for work in works]
    texts += [" ".join(works[2][:26] + works[1][:52]), " ".join(works[1][:26] + works[0][:26])]
    found = find_overlap(hash_words(texts), registries)
    assert found.chains.tolist() == [3, 3, 3, 4, 2]
    assert found.registry.tolist() == [0, 1, 2, 1, 0]
    assert found.coverage_per_mille.tolist() == [1000] * 5


def test_no_registries_and_no_texts(registry: Registry) -> None:
    assert find_overlap(hash_words(["some words"]), []).chains.tolist() == [0]
    assert len(find_overlap(hash_words([]), [registry]).chains) == 0


def reference_chain(hit: int, hits: set[int], text: range) -> int:
    first = last = hit
    while first - 13 in hits and first - 13 in text:
        first -= 13
    while last + 13 in hits and last + 13 in text:
        last += 13
    return (last - first) // 13 + 1


@settings(max_examples=300, deadline=None)
@given(st.sets(st.integers(0, 199)), st.lists(st.integers(0, 200), max_size=4))
def test_chain_lengths_are_those_of_the_reference(hits: set[int], bounds: list[int]) -> None:
    offsets = np.array([0, *sorted(bounds), 200])
    texts = [range(a, b) for a, b in itertools.pairwise(offsets.tolist())]
    expected = [
        reference_chain(hit, hits, next(text for text in texts if hit in text))
        for hit in sorted(hits)
    ]
    found = chain_lengths(np.array(sorted(hits), dtype=np.int64), offsets)
    assert found.tolist() == expected


def test_words_under_chains_of_two_registries_are_covered_once(tmp_path: Path) -> None:
    words = salad(random.Random(26), 60)
    registries = []
    for number, begin in enumerate((0, 5)):
        directory = tmp_path / str(number)
        registries.append(load(build(directory, [" ".join(words[begin : begin + 26])])))
    found = find_overlap(hash_words([" ".join(words[:50])]), registries)
    assert found.coverage_per_mille.tolist() == [1000 * 31 // 50]
    assert found.registry.tolist() == [0]
