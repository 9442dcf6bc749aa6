"""Made-up identifiers of every kind: from documentation, reserved ranges and published examples."""

from typing import Any

import pytest

from data_contracts.dataset.personal_data.rule_files import filed_kinds, filed_rules

SAMPLES: dict[str, tuple[str, ...]] = {
    "email_address": ("ada@example.org", "x.y+z@mail.example.co.uk", "b@xn--bcher-kva.example.com"),
    "phone_number": ("(650) 253-0000", "+44 20 7946 0958", "+1-650-253-0000 ext. 12", "1640"),
    "us_ssn": ("536-90-4399", "536 90 4399", "536.90.4399"),
    "us_itin": ("912-71-1234", "912 71 1234"),
    "credit_card": ("4111 1111 1111 1111", "378282246310005", "5500-0000-0000-0004"),
    "iban": ("DE89370400440532013000", "GB29 NWBK 6016 1331 9268 19", "NL91-ABNA-0417-1643-00"),
    "ip_address": ("192.0.2.20", "::ffff:192.0.2.1", "2001:db8::1", "2001:db8:0:0:1:2:3:4"),
    "mac_address": ("00:1A:2B:3C:4D:5E", "00-1a-2b-3c-4d-5e", "0012.3456.789a"),
    "url": ("https://www.example.org/a?b=c", "example.com"),
    "crypto_wallet": (
        "1BoatSLRHtKNngkdXEeobR76b53LETtpyT",
        "3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy",
        "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq",
    ),
    "medical_licence": ("AB1234563", "BB1388568", "A91234563"),
    "uk_nhs": ("943 476 5919", "9434765919", "401-023-2137"),
    "date": ("12/31/1999", "2002-08-22", "2002-8-2", "31.12.99", "22-AUG-2002", "Sep-99", "5-DEC"),
    "person_name": (
        "Mrs. Jane Doe",
        "Dear Jane,",
        "Prof. J. R. Doe",
        "the patient John Doe",
        "Last name: Doe",
        "\nName: Jane Doe",
        '\nFrom: "Jane Q. Doe" <',
        "Yours sincerely,\n\nJane Doe",
        "signed by John Doe",
    ),
    "medical_record_number": ("MRN: 123456", "medical record no. A-48213", "Patient ID 4821-33"),
    "health_plan_number": ("Member ID: XYZ123456789", "policy number 8876543"),
    "account_number": ("account no. 12345678", "Acct # 0099-88123"),
    "licence_number": ("driver's license number D1234567", "Passport no. X1234567"),
    "vehicle_id": ("1HGCM82633A004352", "VIN: WVWZZZ1JZXW000001", "licence plate: ABC 1234"),
    "device_id": ("IMEI 490154203237518", "serial number SN-4821X77"),
    "date_of_birth": ("DOB: 04/07/1931", "date of birth: July 4, 1931"),
    "age_over_89": (
        "aged 93",
        "a 92-year-old man",
        "She is 102 years old",
        "age: 101",
        "97 y/o",
        "ninety-two years old",
    ),
    "street_address": (
        "1600 Pennsylvania Avenue",
        "221 W. 34th St.",
        "P.O. Box 1234",
        "Lindenstra\u00dfe 12",
        "10 Downing Street",
    ),
    "zip_code": ("Boston, MA 02131", "ZIP code: 94110-1914", "Columbus, Ohio 43215"),
}
for _filed in filed_rules():
    if _filed.rule.kind in filed_kinds():
        SAMPLES[_filed.rule.kind] = (*SAMPLES.get(_filed.rule.kind, ()), *_filed.found)

HARMLESS = (
    "Mr. President, Mr. Speaker, Members of Congress",
    "Dr. or Mr. alone says nothing",
    "Dear Sir or Madam, dear friends",
    "Dear Colleagues, the Patient Protection Act and Patient Care Services",
    "File name: report, name: value",
    "In 1929 Wall Street fell, and on October 24, 1929 Wall Street closed",
    "a deadline of age 90 days, aged 95 months, a 200-year-old house, 89 years old",
    "He is 45 years old and was aged 12",
    "The account was closed. The serial was printed in 1923. Member no. 7 of the committee",
    "$1,234,567.89 in 1898 and 43,592 men in 1899, section 12.5 of chapter 7",
    "at 12:30:45, versions 1.2.3 and 10.11, std::vector, ratio 3:2",
    "the hash 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
)


def sizes(seconds: float) -> list[Any]:
    """Length of a text made to be slow, and the CPU seconds it may take, `seconds` a megabyte.

    A fifth of one in every run of the tests, a whole one in the long campaigns.
    """
    megabyte = pytest.param(1_000_000, seconds, marks=pytest.mark.campaign)
    return [pytest.param(200_000, seconds / 5), megabyte]
