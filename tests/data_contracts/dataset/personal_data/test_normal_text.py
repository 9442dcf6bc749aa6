"""One normal form for all detectors, with the way back, and what it lets them find."""

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.dataset.personal_data.kinds import KINDS
from data_contracts.dataset.personal_data.normal_text import normal_text
from data_contracts.dataset.personal_data.scanner import PersonalDataScanner
from tests.data_contracts.dataset.personal_data.samples import SAMPLES

SPACES = [chr(code) for code in range(0x20000) if unicodedata.category(chr(code)) == "Zs"]
HYPHENS = [*"\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2043\ufe63\uff0d\u00ad\u058a\u30fc\u2500"]
INVISIBLE = [
    *"\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f\u202a\u202c\u2066\u2069\u034f\ufe0f\x07"
]
ZEROS = [
    code
    for code in range(0x80, 0x20000)
    if unicodedata.category(chr(code)) == "Nd" and unicodedata.decimal(chr(code)) == 0
]
LETTERS = st.characters(exclude_categories=["Cs"])
ODD = st.sampled_from(
    "e\u0301\u0327\u1100\u1161\u11a8\uff76\uff9e\u314e\u200b\u00ad\ufb011\u00b2\u2474@"
)


@pytest.fixture(scope="module")
def scanner() -> PersonalDataScanner:
    return PersonalDataScanner(KINDS)


def in_digits_from(zero: int, text: str) -> str:
    return re.sub("[0-9]", lambda digit: chr(zero + int(digit[0])), text)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_plain_ascii_is_its_own_normal_form(text: str) -> None:
    normal = normal_text(text)
    assert normal.text is text
    assert not text or normal.original_span(0, len(text)) == (0, len(text))


@settings(max_examples=300, deadline=None)
@given(st.text(LETTERS | ODD, max_size=30))
def test_every_character_has_a_place_in_the_original(text: str) -> None:
    """Its places come in order, leave nothing between them, and give the same character again."""
    normal = normal_text(text)
    spans = [normal.original_span(place, place + 1) for place in range(len(normal.text))]
    assert spans == sorted(spans)
    for (begin, end), letter in zip(spans, normal.text, strict=True):
        assert 0 <= begin < end <= len(text)
        if letter.isalpha() and not normal_text(text[begin:end]).text.startswith("\u0020"):
            assert letter in normal_text(text[begin:end]).text


@pytest.mark.parametrize(
    ("original", "text"),
    [
        ("536\u00a090\u20114399", "536 90-4399"),
        ("a\u2028b\x0bc\u0085d", "a\nb\nc\nd"),
        ("Jose\u0301 and e\u0327\u0301", "Jos\u00e9 and \u0229\u0301"),
        ("1\ufe0f\u20e32\ufe0f\u20e3", "12"),
        ("\u200fDE89\u200b 3704", "DE89 3704"),
        ("\uff0b\uff14\uff14\u3000\uff12\uff10", "+44 20"),
        ("\u0665\u0663\u0666-\u096f\u0966", "536-90"),
        ("ada\uff20example\u3002org", "ada@example.org"),
        ("driver\u2019s \u201clicence\u201d", 'driver\'s "licence"'),
        ("he said \u2014 93 years \u2014 and", "he said \u2014 93 years \u2014 and"),
        ("650 \u2014 253 \u2014 0000, 650\u00b7253\u20220000", "650 - 253 - 0000, 650.253.0000"),
        ("536-90-4399\u00b9 \u2460650 \u2075\u00b3\u2076", "536-90-4399\u00b9 \u2460650 536"),
        ("\u1112\u1161\u11ab\u1100\u1173\u11af", "\ud55c\uae00"),
        ("O\u00b4Brien \u2165\u212b", "O'Brien VI\u00c5"),
        ("\ufdfa", "\ufdfa"),
    ],
)
def test_what_becomes_of_it(original: str, text: str) -> None:
    assert normal_text(original).text == text


def test_a_find_leads_back_to_what_people_see() -> None:
    original = "t\u00e9l\u200b: \uff15\uff13\uff16\u2011\uff19\uff10\u2011\uff14\uff13\uff19\uff19."
    normal = normal_text(original)
    begin = normal.text.index("536-90-4399")
    first, last = normal.original_span(begin, begin + 11)
    assert original[first:last] == original[6:17]


@pytest.mark.parametrize("space", SPACES, ids=lambda space: f"U+{ord(space):04X}")
def test_no_space_hides_a_number(scanner: PersonalDataScanner, space: str) -> None:
    for kind, sample in (("us_ssn", "536 90 4399"), ("iban", "GB29 NWBK 6016 1331 9268 19")):
        assert kind in scanner.scan([f"It says {sample.replace(' ', space)} here"])[0]


@pytest.mark.parametrize("hyphen", HYPHENS, ids=lambda hyphen: f"U+{ord(hyphen):04X}")
def test_no_hyphen_hides_a_number(scanner: PersonalDataScanner, hyphen: str) -> None:
    for kind, sample in (("us_ssn", "536-90-4399"), ("kr_id", "900101-1234567")):
        assert kind in scanner.scan([f"It says {sample.replace('-', hyphen)} here"])[0]


@pytest.mark.parametrize("odd", INVISIBLE, ids=lambda odd: f"U+{ord(odd):04X}")
def test_nothing_invisible_hides_an_identifier(scanner: PersonalDataScanner, odd: str) -> None:
    for kind, sample in (
        ("us_ssn", f"536-{odd}90-4399"),
        ("email_address", f"ada@exam{odd}ple.org"),
        ("person_name", f"Mrs. {odd}Jane Doe"),
        ("de_id", f"3657{odd if odd != chr(173) else ''}4261809"),
    ):
        assert kind in scanner.scan([f"It says {sample} here"])[0]


@pytest.mark.parametrize("zero", ZEROS, ids=lambda zero: f"U+{zero:04X}")
def test_digits_of_every_script_are_digits(scanner: PersonalDataScanner, zero: int) -> None:
    assert "us_ssn" in scanner.scan([in_digits_from(zero, "It says 536-90-4399 here")])[0]


@pytest.mark.parametrize("kind", sorted(SAMPLES))
def test_a_sample_of_every_kind_in_fullwidth(scanner: PersonalDataScanner, kind: str) -> None:
    for sample in SAMPLES[kind]:
        wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in sample)
        assert kind in scanner.scan([f"It says {wide} and so on."])[0], sample


@pytest.mark.parametrize(
    "text",
    [
        "de89370400440532013000",
        "De89 3704 0044 0532 0130 00 was paid",
        "gb29-nwbk-6016-1331-9268-19",
        "(DE 89 3704 0044 0532 0130 00)",
    ],
)
def test_an_iban_in_any_case(scanner: PersonalDataScanner, text: str) -> None:
    assert scanner.scan([text])[0].get("iban", 0) >= 1


@pytest.mark.parametrize("text", ["de88370400440532013000", "de8937040044053201300", "xx12 abc"])
def test_what_is_no_iban(scanner: PersonalDataScanner, text: str) -> None:
    assert "iban" not in scanner.scan([text])[0]


@pytest.mark.parametrize(
    "text", ["aged 88\u201393 years old", "88-93 years old", "12-14 Main Street"]
)
def test_ranges_hide_nothing(scanner: PersonalDataScanner, text: str) -> None:
    assert {"age_over_89", "street_address"} & scanner.scan([text])[0].keys()
