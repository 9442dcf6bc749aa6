"""The scanner: counts per text, what reaches Presidio, and that nothing is fetched."""

import random
import subprocess
import sys
import time
from typing import Any

import pytest

from data_contracts.dataset.personal_data.kinds import DEFAULT_KINDS, KINDS
from data_contracts.dataset.personal_data.presidio_engine import PresidioEngine
from data_contracts.dataset.personal_data.scanner import PersonalDataScanner
from data_contracts.errors import DataStewardError
from tests.data_contracts.dataset.personal_data.samples import HARMLESS, SAMPLES

# Importing urllib3 binds a local socket to see whether IPv6 is there; nothing may go further.
OFFLINE_SCAN = """
import sys
LOCAL = {"socket.__new__", "socket.bind"}
calls = []
sys.addaudithook(lambda event, args: calls.append(event) if event.startswith("socket.") else None)
from data_contracts.dataset.personal_data.kinds import KINDS
from data_contracts.dataset.personal_data.scanner import PersonalDataScanner
scanner = PersonalDataScanner(KINDS)
assert scanner.scan(["nothing here"]) == [{}]
assert not {"presidio_analyzer", "spacy", "tldextract", "phonenumbers"} & sys.modules.keys()
found = scanner.scan(["write to ada@example.org or https://example.org/x"])
assert found == [{"email_address": 1, "url": 2}], found
assert "presidio_analyzer" in sys.modules
assert not {"torch", "transformers"} & sys.modules.keys()
print(",".join(call for call in calls if call not in LOCAL))
"""

SLOW_PIECES = [
    *("(212) 555-", "a@a.b ", "4111 ", "\u00b2"),
    *(
        pytest.param(piece, marks=pytest.mark.campaign)
        for piece in ("11111 ", "943 476 ", "6502530000 ", "x.co ", "1/1/11 ", "::1 ", "AB1234563 ")
    ),
    *(
        pytest.param(piece, marks=pytest.mark.campaign)
        for piece in ("00:1a:", "tel. 1 ", "e\u0301\u200b1", "1\u00b71")
    ),
]


@pytest.fixture(scope="module")
def scanner() -> PersonalDataScanner:
    return PersonalDataScanner(KINDS)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_planted_identifier_of_each_kind_is_reported(
    scanner: PersonalDataScanner, kind: str
) -> None:
    texts = [f"It says {sample} and so on." for sample in SAMPLES[kind]]
    assert all(kind in found for found in scanner.scan(texts))


def test_counts_and_escalations() -> None:
    scanner = PersonalDataScanner(frozenset({"email_address", "age_over_89"}))
    texts = ["a@example.org and b@example.org", "aged 93", "nothing", "a@nowhere.invalidtld"]
    assert scanner.scan(texts) == [{"email_address": 2}, {"age_over_89": 1}, {}, {}]
    assert (scanner.texts, scanner.escalated) == (4, 2)


def test_default_kinds_leave_harmless_text_alone() -> None:
    scanner = PersonalDataScanner(DEFAULT_KINDS)
    assert scanner.scan(HARMLESS) == [{} for _ in HARMLESS]
    assert scanner.escalated == 0


def test_almost_no_speech_reaches_presidio(state_of_the_union_texts: tuple[str, ...]) -> None:
    pieces = [
        speech[begin : begin + 400]
        for speech in state_of_the_union_texts[::5]
        for begin in range(0, len(speech) - 399, 400)
    ]
    scanner = PersonalDataScanner(DEFAULT_KINDS)
    scanner.scan(pieces)
    assert scanner.texts > 4000
    assert scanner.escalated <= 0.002 * scanner.texts


def test_every_real_mail_has_an_address(spam_assassin_mails: tuple[str, ...]) -> None:
    found = PersonalDataScanner(frozenset({"email_address"})).scan(spam_assassin_mails[:50])
    assert all(kinds["email_address"] >= 1 for kinds in found)


def test_a_recogniser_that_fails_on_a_text_counts_as_a_find() -> None:
    scanner = PersonalDataScanner(frozenset({"medical_licence"}))
    # Digits of Unicode 15, which Presidio's patterns take and Python 3.11's int() does not.
    newer = "".join(chr(0x11F50 + digit) for digit in (1, 2, 3, 4, 5, 6, 3))
    assert scanner.scan([f"AB1234563 and AB{newer}"]) == [{"medical_licence": 1}]


@pytest.mark.parametrize("kind", ["email_address", "url"])
def test_words_have_the_addresses_that_the_whole_text_has(
    presidio_alone: PresidioEngine, spam_assassin_mails: tuple[str, ...], kind: str
) -> None:
    kinds = frozenset({kind})
    texts = [mail[:2500] for mail in spam_assassin_mails[::120]]
    counted = [presidio_alone.count(text, kinds) for text in texts]
    assert counted == [presidio_alone.count_alone(text, kinds) for text in texts]


@pytest.mark.parametrize("kind", ["email_address", "url"])
def test_a_word_too_long_to_look_at_is_a_find_and_takes_no_time(kind: str) -> None:
    word = "a." * 500_000 + "@" + "b." * 500_000 + "org"
    began = time.process_time()
    assert PersonalDataScanner(frozenset({kind})).scan([f"see {word} there"]) == [{kind: 1}]
    assert time.process_time() - began < 10


@pytest.mark.long
def test_presidio_is_imported_late_and_nothing_is_fetched() -> None:
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE_SCAN], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr[-500:]


@pytest.mark.parametrize(
    ("kinds", "found"), [({"email_address", "shoe_size"}, "shoe_size"), (set[str](), "none")]
)
def test_unknown_kinds_are_refused(kinds: set[str], found: Any) -> None:
    with pytest.raises(
        DataStewardError, match=f"found {found}. To fix it: correct fl.personalData"
    ):
        PersonalDataScanner(frozenset(kinds))


def seconds_for(scanner: PersonalDataScanner, text: str) -> float:
    began = time.process_time()
    scanner.scan([text])
    return time.process_time() - began


@pytest.mark.parametrize("piece", SLOW_PIECES)
def test_four_times_the_text_takes_about_four_times_as_long(
    scanner: PersonalDataScanner, piece: str
) -> None:
    """A ratio within one run: quadratic time would be sixteen times as long."""
    scanner.scan(["ada@example.org, (650) 253-0000"])  # loads Presidio
    short = seconds_for(scanner, piece * (20_000 // len(piece)))
    long = seconds_for(scanner, piece * (80_000 // len(piece)))
    assert long < 8 * max(short, 0.02)


@pytest.mark.long
def test_numbers_without_end_are_bounded_and_undecided() -> None:
    scanner = PersonalDataScanner(frozenset({"phone_number"}))
    rng = random.Random(3)
    numbers = " ".join("1" * rng.randint(1, 6) for _ in range(20_000))
    assert scanner.scan([numbers[:4000]]) == [{}], "a sample without any telephone number"
    short = seconds_for(scanner, numbers[:8_000])
    began = time.process_time()
    assert scanner.scan([numbers]) == [{"phone_number": 1}]
    assert time.process_time() - began < 6 * short


def test_a_number_deep_in_a_long_text_is_found(scanner: PersonalDataScanner) -> None:
    filler = "The ratio was 12.5 in 1998 and 13 in 1999, of 4,211 cases. "
    for kind, sample in (
        ("phone_number", "(650) 253-0000"),
        ("email_address", "ada@example.org"),
        ("credit_card", "4111 1111 1111 1111"),
        ("ip_address", "192.0.2.20"),
        ("kr_id", "900101-1234567"),
    ):
        for place in (4090, 9000):
            text = (filler * 400)[:place] + f" {sample} " + filler * 300
            assert kind in scanner.scan([text])[0], (kind, place)
