"""Check digits, against published examples and against python-stdnum."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stdnum import luhn as stdnum_luhn
from stdnum.gb import nhs as stdnum_nhs
from stdnum.iso7064 import mod_97_10

from data_contracts.dataset.personal_data.checksums import (
    bitcoin_address,
    dea_number,
    iban_prefixes,
    luhn,
    nhs_number,
    vehicle_number,
)

DIGITS = "0123456789"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@given(st.text(DIGITS, min_size=2, max_size=19))
def test_luhn_agrees_with_stdnum(digits: str) -> None:
    assert luhn(digits) == (stdnum_luhn.checksum(digits) == 0)


@given(st.text(DIGITS, min_size=10, max_size=10))
def test_nhs_number_agrees_with_stdnum(digits: str) -> None:
    assert nhs_number(digits) == (stdnum_nhs.checksum(digits) == 0)


@given(
    st.text(LETTERS, min_size=2, max_size=2),
    st.text(DIGITS, min_size=2, max_size=2),
    st.text(LETTERS + DIGITS, min_size=8, max_size=30),
)
def test_iban_prefixes_agree_with_stdnum(country: str, check: str, rest: str) -> None:
    text = country + check + rest
    expected = [
        length
        for length in range(12, len(text) + 1)
        if mod_97_10.checksum(text[4:length] + text[:4]) == 1
    ]
    assert list(iban_prefixes(text, 12)) == expected


def test_an_iban_is_found_before_what_follows_it() -> None:
    assert 22 in iban_prefixes("DE89370400440532013000AB12", 12)


@pytest.mark.parametrize(
    ("address", "valid"),
    [
        ("1BoatSLRHtKNngkdXEeobR76b53LETtpyT", True),
        ("3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy", True),
        ("1BoatSLRHtKNngkdXEeobR76b53LETtpyU", False),
        ("1BoatSLRHtKNngkdXEeobR76b53LETtp0T", False),
        ("bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq", True),
        ("bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mbq", False),
    ],
)
def test_bitcoin_addresses(address: str, valid: bool) -> None:
    assert bitcoin_address(address) is valid


def test_dea_number() -> None:
    assert dea_number("1234563")
    assert not dea_number("1234564")


def test_vehicle_number_of_49_cfr_565() -> None:
    assert vehicle_number("1HGCM82633A004352")
    assert not vehicle_number("1HGCM82634A004352")
