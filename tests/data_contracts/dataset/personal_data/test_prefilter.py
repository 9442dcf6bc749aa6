"""The prefilter against Presidio alone: whatever Presidio finds, the prefilter lets through."""

import random
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from phonenumbers import PhoneNumberMatcher
from presidio_analyzer.predefined_recognizers import PhoneRecognizer

from data_contracts.dataset.personal_data.kinds import DEFAULT_KINDS, PRESIDIO_ENTITIES
from data_contracts.dataset.personal_data.prefilter import (
    PHONE_LENIENCY,
    PHONE_REGIONS,
    Prefilter,
)
from data_contracts.dataset.personal_data.presidio_engine import PresidioEngine
from tests.data_contracts.dataset.personal_data.samples import HARMLESS, SAMPLES, sizes

DECIDED = frozenset(PRESIDIO_ENTITIES)
PREFILTER = Prefilter(DECIDED)
DECIDED_SAMPLES = [(kind, sample) for kind in sorted(DECIDED) for sample in SAMPLES[kind]]
# Letters that ignoring case brings in, digits of other scripts, marks and spaces of all widths.
ODD = "\u0130\u0131\u017f\u212a\u0664\uff11\u0968\U0001d7d7\u0301\u00e9\u200b\u00a0\u3000\uff0d"
LOOSE = st.text("0123456789abcfxBCX -./:@_+()[]~,#%\n\t" + ODD, max_size=25)
PIECES = st.one_of(
    st.sampled_from([sample for _, sample in DECIDED_SAMPLES]),
    LOOSE,
    st.sampled_from(["::", "bc1", "..", "--", " ", "a", "4", "\u00e9"]),
)
HARD_PIECES = (
    "1 ",
    "1",
    "7-",
    "11111 ",
    "a@a.",
    "@",
    "a@",
    "AA11 ",
    "AA11AAAA",
    "bc1",
    "1A",
    ":",
    "a:",
    "1:1",
    "aa-",
    "aa:",
    "1.1.",
    "abcd.",
    "a1111111",
    "x. ",
    "JAN-",
    "\u00e9",
    "\u0664",
    "+",
    "(1)",
)


def missed(engine: PresidioEngine, text: str) -> set[str]:
    return set(engine.count_alone(text, DECIDED)) - PREFILTER.candidates(text)


@pytest.mark.parametrize(("kind", "sample"), DECIDED_SAMPLES)
def test_each_form_is_found_by_presidio_and_let_through(
    presidio_alone: PresidioEngine, kind: str, sample: str
) -> None:
    text = f"It says {sample} and so on."
    assert kind in presidio_alone.count_alone(text, DECIDED)
    assert kind in PREFILTER.candidates(text)


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_text_never_reaches_presidio(text: str) -> None:
    assert Prefilter(DEFAULT_KINDS).candidates(text) == frozenset()


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(PIECES, max_size=5), st.sampled_from(["", " ", "-", "a", "4", "\u0301"]), st.data())
def test_nothing_is_missed_in_made_up_text(
    presidio_alone: PresidioEngine, pieces: list[str], joint: str, data: st.DataObject
) -> None:
    text = joint.join(pieces)
    if text:
        place = data.draw(st.integers(0, len(text) - 1))
        text = text[:place] + data.draw(LOOSE)[:2] + text[place + data.draw(st.integers(0, 2)) :]
    assert missed(presidio_alone, text) == set()


@pytest.mark.long
def test_nothing_is_missed_in_real_mails(
    presidio_alone: PresidioEngine, spam_assassin_mails: tuple[str, ...]
) -> None:
    mails = random.Random(7).sample(spam_assassin_mails, 100)
    found = [missed(presidio_alone, mail[:3000]) for mail in mails]
    assert [kinds for kinds in found if kinds] == []


def test_nothing_is_missed_in_real_speeches(
    presidio_alone: PresidioEngine, state_of_the_union_texts: tuple[str, ...]
) -> None:
    speeches = random.Random(7).sample(state_of_the_union_texts, 100)
    found = [missed(presidio_alone, speech[2000:3500]) for speech in speeches]
    assert [kinds for kinds in found if kinds] == []


@pytest.mark.parametrize(
    "text",
    [
        "\u00e9A91234563 follows a letter that is not English",
        "15\u06640bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq",
        "\u0664DE89370400440532013000",
        "943 476 5919(132/\u09681/19\U0001d7d799",
        "2002-08-2",
        "4\u0661\u0661\u0661 1111 1111 1111",
    ],
)
def test_digits_and_letters_of_other_scripts_hide_nothing(
    presidio_alone: PresidioEngine, text: str
) -> None:
    assert presidio_alone.count_alone(text, DECIDED) != {}
    assert missed(presidio_alone, text) == set()


def test_phone_regions_and_leniency_are_those_of_presidio() -> None:
    recogniser = PhoneRecognizer()
    assert (tuple(recogniser.supported_regions), recogniser.leniency) == (
        PHONE_REGIONS,
        PHONE_LENIENCY,
    )


def test_numbers_shorter_than_seven_digits_begin_where_the_prefilter_looks() -> None:
    """The gate knows which short numbers are valid; a new release of phonenumbers may add some."""
    prefilter = Prefilter(frozenset({"phone_number"}))
    rng = random.Random(11)
    numbers = [f"{number:04}" for number in range(10_000)]
    numbers += [f"{rng.randrange(10**length):0{length}}" for length in (5, 6) for _ in range(4000)]
    numbers += [f"+{rng.randrange(10**length):0{length}}" for length in (5, 6) for _ in range(500)]
    valid = [
        number
        for number in numbers
        if any(
            PhoneNumberMatcher(number, region, PHONE_LENIENCY).has_next() for region in ("DE", "IN")
        )
    ]
    assert len(valid) > 30
    assert [number for number in valid if not prefilter.candidates(f"dial {number} now")] == []


@pytest.mark.parametrize(("characters", "seconds"), sizes(seconds=6))
@pytest.mark.parametrize("piece", HARD_PIECES)
def test_text_made_to_be_slow_is_gone_through_in_seconds(
    piece: str, characters: int, seconds: float
) -> None:
    """Without phone numbers: how long phonenumbers takes is not ours to bound."""
    prefilter = Prefilter(DECIDED - {"phone_number"})
    text = (piece * (characters // len(piece) + 1))[:characters]
    began = time.process_time()
    prefilter.candidates(text)
    assert time.process_time() - began < seconds
