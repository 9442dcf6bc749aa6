"""Which texts, and for which kinds, are worth the slow answer of presidio-analyzer.

Guarantee: whatever presidio-analyzer finds in a text of a kind that it decides (at a score of 0.4
or more, English, no language model), this module names that kind as a candidate for the text. It
may name more; Presidio then says no. In order, for each text: decimal digits of other scripts
become ASCII, a cheap test for each kind (or for all numbers together), then the check digits or the
numbering plan of what looks like the kind.

Two rules keep the guarantee. A word boundary here only looks at ASCII neighbours, because `re`,
which is fast, and `regex`, which Presidio uses, do not agree on which other characters are part of
a word. And check digits are tried at every place and length at which Presidio could begin and end,
not only at the leftmost. No pattern has a quantifier that can give back what another one takes over
more than a bounded length, so the time is linear in the text; and where numbers go on for longer
than PHONE_CHARACTERS without one that is a telephone's, the text is a candidate undecided
(`number_runs`).
"""

import re
import unicodedata
from collections.abc import Callable, Iterator

from data_contracts.dataset.personal_data.checksums import (
    bitcoin_address,
    dea_number,
    iban_prefixes,
    luhn,
    nhs_number,
)
from data_contracts.dataset.personal_data.kinds import PRESIDIO_ENTITIES
from data_contracts.dataset.personal_data.number_runs import PHONE_CHARACTERS, number_runs

PHONE_REGIONS = ("US", "GB", "DE", "FR", "IL", "IN", "CA", "BR")
"""Regions of Presidio's phone recogniser, in whose national formats numbers are understood."""
PHONE_LENIENCY = 1
_IBAN_SHORTEST = 12

_FOREIGN_DIGIT = re.compile(r"(?![0-9])\d")
_BEFORE, _AFTER = r"(?<![0-9A-Za-z_])", r"(?![0-9A-Za-z_])"
# What phonenumbers takes for punctuation (in ASCII: space ()./[]~xX+-), then a digit.
_NEXT = r"[^\x00-\x1f!-'*,0-9:-WYZ\\^-wy-}\x7f]{0,4}"
_MORE = rf"(?:{_NEXT}[0-9])"
# Seven digits, or fewer where a German number may begin: no other region has numbers that short.
_NUMBER = re.compile(
    rf"[0-9+\uff0b](?:{_MORE}{{6}}|(?<=0){_MORE}{{4}}|(?<=1){_NEXT}6{_NEXT}[489]{_MORE}"
    rf"|(?<=3){_NEXT}[3-9]{_MORE}{{4}}|(?<=2){_NEXT}2{_MORE}{{4}})"
)
_DIGIT_GROUPS = re.compile(r"[0-9]+(?:[- ][0-9]+)*")
_SEVEN_DIGITS = re.compile(r"[0-9]{7}")
_DEA = re.compile(r"(?=[^\W0-9_](?:[^\W0-9_]|9)([0-9]{7}))")
_SSN = re.compile(_BEFORE + r"[0-9]{3}([- .])[0-9]{2}\1[0-9]{4}" + _AFTER)
_ITIN = re.compile(_BEFORE + r"9[0-9]{2}[- ][5-9][0-9][- ][0-9]{4}" + _AFTER)
_EMAIL = re.compile(r"(?<=[^\s@])@[^\s@.]+\.[^\s@.]")
_IBAN_BEGINS = re.compile(r"[A-Z]{2}[0-9]{2}")
_IBAN = re.compile(r"(?<![A-Z0-9])(?=([A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]){8,31}))")
# The letters beyond ASCII are those that ignoring case adds to A-Z in Presidio's pattern.
_BITCOIN = re.compile(r"(?:[bB][cC]1|[13])[A-Za-z0-9\u0130\u017f\u212a]{25,59}")
_BITCOIN_BASE58 = re.compile(r"[13][A-Za-z0-9\u0130\u017f\u212a]{25}")
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|[01]?[0-9]?[0-9])"
_IPV4_INSIDE = re.compile(r"\.[0-9]{1,3}\.[0-9]")
_IPV4 = re.compile(_BEFORE + rf"{_OCTET}\.{_OCTET}\.{_OCTET}\.{_OCTET}" + _AFTER)
_IPV6_INSIDE = re.compile(r":(?::|[0-9A-Fa-f]{1,4}:)")
_IPV6 = re.compile(r"(?<![0-9A-Za-z_:])(?:[0-9A-Fa-f]{0,4}:){2,9}")
_MAC_INSIDE = re.compile(r"[:.\-](?:[0-9A-Fa-f]{2}[:-]|[0-9A-Fa-f]{4}\.)")
_MAC = re.compile(
    r"[0-9A-Fa-f]{2}([:-])(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}"
    r"|[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}"
)
_URL = re.compile(r"(?<=\S)\.[A-Za-z\u0130\u0131\u017f\u212a]{2}")
_MONTH = "(?:JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC)"
_DIGIT_DATE = re.compile(r"[0-9][/.\-][0-9]{1,2}[/.\-][0-9]")
_DASH_AND_DIGIT = re.compile("[0-9]-|-[0-9]")
_MONTH_DATE = re.compile(rf"[0-9]-{_MONTH}|{_MONTH}-[0-9]{{2}}", re.IGNORECASE)
_GROUPED = frozenset({"credit_card", "uk_nhs"})


class Prefilter:
    """Names, for a text, the kinds among `kinds` of which Presidio might find something."""

    def __init__(self, kinds: frozenset[str]) -> None:
        kinds &= PRESIDIO_ENTITIES.keys()
        self._tests = [(kind, test) for kind, test in _TESTS if kind in kinds]
        self._raw_tests = [(kind, test) for kind, test in _RAW_TESTS if kind in kinds]
        self._numbers = [(kind, test) for kind, test in _NUMBER_TESTS if kind in kinds]
        self._grouped = kinds & _GROUPED
        self._phone = "phone_number" in kinds
        self._any_number = bool(self._numbers or self._grouped or self._phone)

    def candidates(self, text: str) -> frozenset[str]:
        """Kinds that Presidio has to decide for `text`; none for most texts."""
        plain = text if text.isascii() else _FOREIGN_DIGIT.sub(_ascii_digit, text)
        found = {kind for kind, test in self._tests if test(plain)}
        found |= {kind for kind, test in self._raw_tests if test(text)}
        if self._any_number and _NUMBER.search(plain):
            found |= {kind for kind, test in self._numbers if test(plain)}
            if self._grouped:
                found |= _grouped_numbers(plain) & self._grouped
            # phonenumbers reads the digits of all scripts, and takes dates only for ASCII ones.
            if self._phone and _may_have_phone_number(text):
                found.add("phone_number")
        return frozenset(found)


def _ascii_digit(match: re.Match[str]) -> str:
    return str(unicodedata.decimal(match[0]))


def _may_have_email(text: str) -> bool:
    return "@" in text and _EMAIL.search(text) is not None


def _may_have_iban(text: str) -> bool:
    if _IBAN_BEGINS.search(text) is None:
        return False
    spans = (match[1].replace(" ", "").replace("-", "") for match in _IBAN.finditer(text))
    return any(any(iban_prefixes(span, _IBAN_SHORTEST)) for span in spans)


def _may_have_bitcoin_address(text: str) -> bool:
    if _BITCOIN_BASE58.search(text) is None and "bc1" not in text:
        return False
    return any(bitcoin_address(match[0]) for match in _BITCOIN.finditer(text))


def _may_have_ip_address(text: str) -> bool:
    if _IPV4_INSIDE.search(text) is not None and _IPV4.search(text) is not None:
        return True
    if _IPV6_INSIDE.search(text) is None:
        return False
    return any("::" in match[0] or match[0].count(":") > 5 for match in _IPV6.finditer(text))


def _may_have_mac_address(text: str) -> bool:
    return _MAC_INSIDE.search(text) is not None and _MAC.search(text) is not None


def _may_have_date(text: str) -> bool:
    if _DIGIT_DATE.search(text) is not None:
        return True
    return _DASH_AND_DIGIT.search(text) is not None and _MONTH_DATE.search(text) is not None


def _may_have_phone_number(text: str) -> bool:
    from phonenumbers import PhoneNumberMatcher

    left = PHONE_CHARACTERS
    for run in number_runs(text):
        left -= len(run)
        if left < 0 or any(
            PhoneNumberMatcher(run, region, leniency=PHONE_LENIENCY).has_next()
            for region in PHONE_REGIONS
        ):
            return True
    return False


def _may_have_medical_licence(text: str) -> bool:
    if _SEVEN_DIGITS.search(text) is None:
        return False
    return any(dea_number(match[1]) for match in _DEA.finditer(text))


def _grouped_numbers(text: str) -> set[str]:
    """Card and NHS numbers: consecutive groups of digits with one space or dash between them."""
    found = set[str]()
    for run in _DIGIT_GROUPS.finditer(text):
        if run.end() - run.start() < 10:
            continue
        for parts, digits in _joined(run[0].replace("-", " ").split(" ")):
            if 13 <= len(digits) <= 17:
                if digits[0] in "13456" and luhn(digits):
                    found.add("credit_card")
            elif len(digits) == 10 and parts <= 3 and nhs_number(digits):
                found.add("uk_nhs")
    return found


def _joined(groups: list[str]) -> Iterator[tuple[int, str]]:
    """Up to four groups from each one on, joined, as long as they have at most 17 digits."""
    for begin in range(len(groups)):
        joined = ""
        for parts, group in enumerate(groups[begin : begin + 4], start=1):
            if len(joined) + len(group) > 17:
                break
            joined += group
            yield parts, joined


def _searches(pattern: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda text: pattern.search(text) is not None


# In these two only ASCII digits count: one of another script ends what may be an address.
_RAW_TESTS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("iban", _may_have_iban),
    ("crypto_wallet", _may_have_bitcoin_address),
)
_TESTS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("email_address", _may_have_email),
    ("ip_address", _may_have_ip_address),
    ("mac_address", _may_have_mac_address),
    ("url", _searches(_URL)),
    ("date", _may_have_date),
)
_NUMBER_TESTS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("us_ssn", _searches(_SSN)),
    ("us_itin", _searches(_ITIN)),
    ("medical_licence", _may_have_medical_licence),
)
