"""Names of people, by what stands before them: a title, a greeting, a label, a closing.

A name is capitalised words and initials. Offices ("Mr. President"), forms of address without a name
("Dear Sir") and compounds ("Patient Protection") are not names.
"""

import re
from collections.abc import Callable

from data_contracts.dataset.personal_data.rule import Rule

_Accepts = Callable[[re.Match[str]], bool]

_UPPER = r"A-Z\u00c0-\u00d6\u00d8-\u00de"
_WORD = rf"[{_UPPER}][{_UPPER}a-z\u00df-\u00f6\u00f8-\u00ff'\u2019-]{{1,30}}"
_INITIAL = r"[A-Z]\."
_NAME = rf"(?:{_INITIAL}[ ]?){{0,3}}(?P<first>{_WORD})"
_FULL_NAME = (
    rf"(?:{_INITIAL}[ ]?){{1,3}}(?P<sole>{_WORD})\b"
    rf"|(?P<first>{_WORD}) (?:{_INITIAL}[ ]?){{0,2}}(?P<last>{_WORD})\b"
)
_TITLE = r"(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|MR|MRS|Professor)"


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


_OFFICES = _words(
    "president speaker chairman chairwoman chair vice secretary justice chief minister "
    "ambassador senator congressman congresswoman representative mayor governor general "
    "attorney prime moderator commissioner director principal clerk sergeant right wrong "
    "big clean universe america world sir madam and or mr mrs ms dr who no yes the"
)
_ADDRESSED = _words(
    "sir sirs madam all friend friends colleague colleagues customer customers team editor "
    "editors member members reader readers valued santa god lord mother father dad mom "
    "homeowner user users subscriber subscribers everyone everybody list sister brother mr "
    "mrs ms dr prof professor doctor fellow student students parent parents applicant "
    "candidate internet ebay paypal hiring dear children heart one ones ladies gentlemen "
    "countrymen"
)
_COMPOUNDS = _words(
    "protection care rights safety information portal affairs advocate services service "
    "health medical data record records name id identifier number education relations "
    "experience access bill act the history history's satisfaction outcomes population "
    "management summary notes note reported presents presented admission discharge volume "
    "level centered study studies registry engagement support transport monitoring advocacy "
    "organization organisation"
)


def _not_office(match: re.Match[str]) -> bool:
    return match["first"].casefold() not in _OFFICES


def _not_form(match: re.Match[str]) -> bool:
    return match["first"].casefold().rstrip("'") not in _ADDRESSED


def _not_compound(match: re.Match[str]) -> bool:
    words = {(match[part] or "").casefold() for part in ("sole", "first", "last")}
    return not words & (_COMPOUNDS | _OFFICES)


def _rule(cues: tuple[str, ...], pattern: str, accepts: _Accepts = _not_compound) -> Rule:
    return Rule("person_name", cues, re.compile(pattern), accepts, needs_digit=False)


NAME_RULES = (
    _rule(
        ("mr", "ms", "miss", "mx", "dr", "prof"),
        rf"\b{_TITLE}(?:\.[ \n]{{0,2}}|[ ]){_NAME}",
        _not_office,
    ),
    _rule(("dear",), rf"\bD(?:ear|EAR) (?:{_TITLE}\.? )?{_NAME}", _not_form),
    _rule(("patient",), rf"(?i:\bpatient)(?:'s)?(?i: name)?(?: is)?:? (?:{_FULL_NAME})"),
    _rule(
        ("name",),
        r"(?i:(?:\b(?:full|first|last|given|family|patient|customer|client|employee|contact) "
        rf"|\bsur)name)[\"']?[ ]?[:=][ ]{{0,3}}[\"']?{_NAME}",
        _not_office,
    ),
    _rule(
        ("name",),
        rf"(?:^|[\n;,|({{\"'])[ ]{{0,3}}(?i:name)[\"']?[ ]?[:=][ ]{{0,3}}[\"']?(?:{_FULL_NAME})",
    ),
    _rule(
        ("sign", "sincerely", "regards", "yours"),
        r"(?i:\b(?:signed(?: by)?|undersigned|sincerely(?: yours)?|regards"
        rf"|yours (?:truly|faithfully|sincerely)))[,:]?\s{{1,4}}(?:{_TITLE}\.? )?(?:{_FULL_NAME})",
    ),
    _rule(
        ("from:", "to:", "cc:"),
        rf"(?m:^)(?:From|To|Cc|CC|Reply-To): \"?(?:{_FULL_NAME})\"? <",
    ),
)
