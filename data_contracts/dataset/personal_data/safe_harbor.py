"""What this package can and cannot say about each identifier of HIPAA's Safe Harbor method.

The rows are 45 CFR 164.514(b)(2)(i), (A) to (R), in its order. This is a table of what is looked
for, not a finding about a data set: Safe Harbor asks that every one of the identifiers is removed
and that the holder knows of no way to identify anyone by the rest (ibid., (ii)), and no search by
form and context shows that. So most rows need a person who vouches for them.
"""

from dataclasses import dataclass
from typing import Literal

from data_contracts.dataset.personal_data.rule_files import filed_kinds

Coverage = Literal["detector", "partial", "not covered", "attested by a person"]


@dataclass(frozen=True)
class SafeHarborRow:
    """One identifier: its letter, the kinds that look for it, and how far they reach.

    "detector": it has a form by which it is found. "partial": only some of its forms, or only where
    the text says what it is. The other two: nothing looks for it.
    """

    letter: str
    identifier: str
    coverage: Coverage
    kinds: tuple[str, ...]
    explanation: str


_ROWS = (
    SafeHarborRow(
        "A",
        "Names",
        "partial",
        ("person_name",),
        "Names are found after a title, a greeting or a label and above a signature, not alone.",
    ),
    SafeHarborRow(
        "B",
        "Geographic subdivisions smaller than a state",
        "partial",
        ("street_address", "zip_code"),
        "Street addresses and ZIP codes are found in their usual forms; names of towns and counties"
        " are not.",
    ),
    SafeHarborRow(
        "C",
        "Elements of dates except the year, and ages over 89",
        "partial",
        ("date", "date_of_birth", "age_over_89"),
        "Dates in digits, dates of birth and ages that are called so are found; dates in words are"
        " not.",
    ),
    SafeHarborRow(
        "D",
        "Telephone numbers",
        "detector",
        ("phone_number",),
        "Numbers valid in eight countries, in the usual forms of Korea, Japan and China, with an"
        " international prefix, or called so, are found.",
    ),
    SafeHarborRow(
        "E",
        "Fax numbers",
        "detector",
        ("phone_number",),
        "A fax number has the form of a telephone number and is counted as one.",
    ),
    SafeHarborRow(
        "F",
        "Electronic mail addresses",
        "detector",
        ("email_address",),
        "Addresses under a public suffix are found; an address spelled out in words is not.",
    ),
    SafeHarborRow(
        "G",
        "Social security numbers",
        "partial",
        ("us_ssn",),
        "Numbers with separators, or called so, are found; nine digits alone are not told from"
        " others.",
    ),
    SafeHarborRow(
        "H",
        "Medical record numbers",
        "partial",
        ("medical_record_number", "uk_nhs"),
        "Numbers that the text calls so, and NHS numbers, are found; they have no common form.",
    ),
    SafeHarborRow(
        "I",
        "Health plan beneficiary numbers",
        "partial",
        ("health_plan_number",),
        "Numbers that the text calls so are found; they have no common form.",
    ),
    SafeHarborRow(
        "J",
        "Account numbers",
        "partial",
        ("account_number", "credit_card", "iban", "crypto_wallet"),
        "Card numbers, IBAN and Bitcoin addresses are found by check digits, others by a label.",
    ),
    SafeHarborRow(
        "K",
        "Certificate and licence numbers",
        "partial",
        ("medical_licence", "licence_number"),
        "DEA numbers are found by their check digit, others only where the text calls them so.",
    ),
    SafeHarborRow(
        "L",
        "Vehicle identifiers and serial numbers, including licence plate numbers",
        "partial",
        ("vehicle_id",),
        "Vehicle identification numbers are found by their check character, plates by a label.",
    ),
    SafeHarborRow(
        "M",
        "Device identifiers and serial numbers",
        "partial",
        ("device_id", "mac_address"),
        "Hardware addresses are found by form, IMEI and serial numbers by a label.",
    ),
    SafeHarborRow(
        "N",
        "Web universal resource locators",
        "detector",
        ("url",),
        "Addresses under common top-level domains are found.",
    ),
    SafeHarborRow(
        "O",
        "Internet protocol addresses",
        "detector",
        ("ip_address",),
        "IPv4 and IPv6 addresses in their usual notations are found.",
    ),
    SafeHarborRow(
        "P",
        "Biometric identifiers, including finger and voice prints",
        "attested by a person",
        (),
        "They have no form in text; a person has to say that there are none.",
    ),
    SafeHarborRow(
        "Q",
        "Full-face photographs and any comparable images",
        "not covered",
        (),
        "Pictures are not searched for faces.",
    ),
    SafeHarborRow(
        "R",
        "Any other unique identifying number, characteristic or code",
        "partial",
        ("us_itin", *filed_kinds()),
        "Taxpayer numbers, and numbers under which the named states file people, are found;"
        " anything else needs a person who knows the data.",
    ),
)


def coverage_table() -> tuple[SafeHarborRow, ...]:
    """The 18 rows, (A) to (R)."""
    return _ROWS


def rows_needing_attestation(kinds: frozenset[str]) -> tuple[SafeHarborRow, ...]:
    """Rows that a person has to vouch for when `kinds` are what is looked for.

    That is every row, except those with a detector whose kinds are all among `kinds`.
    """
    return tuple(
        row for row in _ROWS if row.coverage != "detector" or not kinds.issuperset(row.kinds)
    )
