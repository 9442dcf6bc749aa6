"""Numbers that a person is filed under, where the text says what they are.

A label comes first ("MRN", "account no."), then at most a few separators, then the number. Only an
IBAN and a vehicle identification number need no label, because of their check characters.
"""

import re
from collections.abc import Callable

from data_contracts.dataset.personal_data.checksums import (
    begins_with_iban,
    luhn,
    vehicle_number,
)
from data_contracts.dataset.personal_data.rule import Rule

_NUMBER = r"(?:[ ]?(?:numbers?|num|nos?|id|identifier|code)\b\.?|[ ]?#)"
_IS = r"[ ]{0,2}(?:(?:is|was|of)\b)?[ ]{0,2}[:=#]?[ ]{0,3}"
_VALUE = r"(?P<value>[A-Za-z]{0,4}-?[0-9][0-9A-Za-z/-]{3,24})(?![0-9A-Za-z])"


def _digits(fewest: int) -> Callable[[re.Match[str]], bool]:
    """Accepts values with at least `fewest` digits: the rest is words with a number in them."""
    return lambda match: sum(character.isdigit() for character in match["value"]) >= fewest


def _labelled(kind: str, cues: tuple[str, ...], label: str, fewest: int) -> Rule:
    pattern = re.compile(rf"\b(?:{label}){_IS}{_VALUE}", re.IGNORECASE)
    return Rule(kind, cues, pattern, _digits(fewest))


def _is_imei(match: re.Match[str]) -> bool:
    digits = re.sub("[^0-9]", "", match["imei"])
    return len(digits) == 16 or luhn(digits)


def _is_iban(match: re.Match[str]) -> bool:
    return begins_with_iban(re.sub("[ -]", "", match["iban"]).upper())


IDENTIFIER_RULES = (
    # In any case of letters; presidio-analyzer finds capital ones only.
    Rule(
        "iban",
        (),
        re.compile(
            r"(?<![0-9A-Za-z])(?=(?P<iban>[A-Za-z]{2}[ -]?[0-9]{2}(?:[ -]?[0-9A-Za-z]){11,28}))"
        ),
        _is_iban,
    ),
    _labelled(
        "medical_record_number",
        ("mrn", "record", "chart", "patient", "hospital"),
        rf"MRN{_NUMBER}?|medical records?{_NUMBER}|(?:chart|patient|hospital){_NUMBER}",
        4,
    ),
    _labelled(
        "health_plan_number",
        ("member", "policy", "medicare", "medicaid", "beneficiary", "subscriber", "insurance"),
        rf"(?:member|policy|beneficiary|subscriber|insurance|health plan){_NUMBER}"
        rf"|(?:medicare|medicaid)(?: beneficiary)?{_NUMBER}",
        5,
    ),
    _labelled(
        "account_number",
        ("account", "acct", "a/c"),
        rf"(?:account|acct\.?|a/c){_NUMBER}",
        5,
    ),
    _labelled(
        "licence_number",
        ("licen", "passport", "certificate", "permit"),
        rf"(?:(?:driver'?s?'?|driving|medical|nursing|professional) licen[cs]e|licen[cs]e|passport"
        rf"|certificate|permit){_NUMBER}|(?:driver'?s?'?|driving) licen[cs]e[ ]?:|passport[ ]?:",
        5,
    ),
    Rule(
        "vehicle_id",
        ("licen", "number", "registration"),
        re.compile(
            r"\b(?:licen[cs]e|number|registration) plates?(?: (?:number|no\.?))?"
            rf"{_IS}(?P<value>[A-Z]{{1,3}}[ -]?[0-9]{{1,4}}[ -]?[A-Z]{{0,3}})\b"
        ),
    ),
    Rule(
        "vehicle_id",
        (),
        re.compile(r"(?<![0-9A-Za-z])[A-HJ-NPR-Z0-9]{8}[0-9X][A-HJ-NPR-Z0-9]{8}(?![0-9A-Za-z])"),
        lambda match: not match[0].isdigit() and vehicle_number(match[0]),
    ),
    Rule(
        "vehicle_id",
        ("vin", "vehicle identification", "chassis"),
        re.compile(
            rf"\b(?:VIN|vehicle identification|chassis){_NUMBER}?{_IS}[A-HJ-NPR-Z0-9]{{17}}\b",
            re.IGNORECASE,
        ),
        lambda match: not vehicle_number(match[0][-17:].upper()),
    ),
    Rule(
        "device_id",
        ("imei",),
        re.compile(
            rf"\bIMEI(?:SV)?{_NUMBER}?{_IS}(?P<imei>[0-9](?:[ -]?[0-9]){{14,15}})(?![0-9])",
            re.IGNORECASE,
        ),
        _is_imei,
    ),
    _labelled(
        "device_id",
        ("serial", "device", "s/n", "udi"),
        rf"(?:serial|device){_NUMBER}|s/n|UDI{_NUMBER}?",
        4,
    ),
)
