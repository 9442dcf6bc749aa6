"""Kinds of personal data that can be looked for, by names that are stable and may leave the silo.

A kind with a Presidio entity is decided by that recogniser of presidio-analyzer; the others by this
package's own rules. What is not in this list is not looked for.
"""

from dataclasses import dataclass

from data_contracts.dataset.personal_data.rule_files import filed_kinds


@dataclass(frozen=True)
class Kind:
    """One kind: its name in contracts and reports, what it means, who decides it."""

    id: str
    meaning: str
    presidio_entity: str | None = None


_ALL = (
    Kind("email_address", "e-mail address under a public suffix", "EMAIL_ADDRESS"),
    Kind(
        "phone_number",
        "telephone or fax number in a national or international form",
        "PHONE_NUMBER",
    ),
    Kind("us_ssn", "US social security number", "US_SSN"),
    Kind("us_itin", "US individual taxpayer identification number", "US_ITIN"),
    Kind("credit_card", "payment card number with its check digit", "CREDIT_CARD"),
    Kind("iban", "international bank account number with its check digits", "IBAN_CODE"),
    Kind("ip_address", "IPv4 or IPv6 address", "IP_ADDRESS"),
    Kind("mac_address", "hardware address of a network interface", "MAC_ADDRESS"),
    Kind("url", "web address", "URL"),
    Kind("crypto_wallet", "Bitcoin address with its checksum", "CRYPTO"),
    Kind("medical_licence", "US DEA number with its check digit", "MEDICAL_LICENSE"),
    Kind("uk_nhs", "UK NHS number with its check digit", "UK_NHS"),
    Kind("date", "date in digits or with an abbreviated month", "DATE_TIME"),
    Kind("person_name", "name after a title, a greeting, a label or above a signature"),
    Kind("medical_record_number", "record, chart or patient number that is called so"),
    Kind("health_plan_number", "member or policy number of a health plan that is called so"),
    Kind("account_number", "account number that is called so"),
    Kind("licence_number", "driving licence, passport or certificate number that is called so"),
    Kind("vehicle_id", "vehicle identification number or number plate"),
    Kind("device_id", "IMEI, or serial number that is called so"),
    Kind("date_of_birth", "date that is called a date of birth"),
    Kind("age_over_89", "age from 90 to 125"),
    Kind("street_address", "house number with a street, or a post-office box"),
    Kind("zip_code", "US ZIP code after a state or that is called so"),
    *(Kind(kind, meaning) for kind, meaning in filed_kinds().items()),
)

KINDS = frozenset(kind.id for kind in _ALL)
MEANINGS = {kind.id: kind.meaning for kind in _ALL}
PRESIDIO_ENTITIES = {
    kind.id: kind.presidio_entity for kind in _ALL if kind.presidio_entity is not None
}

DEFAULT_KINDS = KINDS - {"date", "url", "person_name", "zip_code"}
"""What a contract looks for unless it says otherwise: identifiers of people.

Dates, web addresses and ZIP codes are in nearly every reference text and tell of nobody by
themselves; names there are mostly those of authors and of the people that the text is about. A
contract over letters, records or anything about patients and customers should name them.
"""
