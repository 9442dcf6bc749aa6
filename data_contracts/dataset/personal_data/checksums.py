"""Check digits that separate an identifier from a number of the same length.

Each function here accepts everything that presidio-analyzer's validation accepts, and may accept
more; a caller that needs the exact answer asks Presidio afterwards. All take ASCII characters.
"""

from collections.abc import Iterable
from hashlib import sha256

_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE58_VALUES = {letter: value for value, letter in enumerate(_BASE58)}
_BECH32 = frozenset("qpzry9x8gf2tvdw0s3jn54khce6mua7l")
_BECH32_CHECKSUM = 6
_IBAN_LENGTHS = {
    **dict.fromkeys(("NO",), 15),
    **dict.fromkeys(("BE",), 16),
    **dict.fromkeys(("DK", "FI", "FO", "GL", "NL"), 18),
    **dict.fromkeys(("MK", "SI"), 19),
    **dict.fromkeys(("AT", "BA", "EE", "KZ", "LT", "LU", "XK"), 20),
    **dict.fromkeys(("CH", "HR", "LI", "LV"), 21),
    **dict.fromkeys(("BG", "BH", "CR", "DE", "GB", "GE", "IE", "ME", "RS", "VA"), 22),
    **dict.fromkeys(("AE", "GI", "IL", "IQ", "TL"), 23),
    **dict.fromkeys(("AD", "CZ", "ES", "MD", "PK", "RO", "SA", "SE", "SK", "TN", "VG"), 24),
    **dict.fromkeys(("LY", "PT", "ST"), 25),
    **dict.fromkeys(("IS", "TR"), 26),
    **dict.fromkeys(("FR", "GR", "IT", "MC", "MR", "SM"), 27),
    **dict.fromkeys(("AL", "AZ", "BY", "CY", "DO", "GT", "HU", "LB", "PL", "SV"), 28),
    **dict.fromkeys(("BR", "EG", "PS", "QA", "UA"), 29),
    **dict.fromkeys(("JO", "KW", "MU"), 30),
    **dict.fromkeys(("MT", "SC"), 31),
    **dict.fromkeys(("LC",), 32),
}
"""Characters of an IBAN by country: SWIFT's IBAN registry, release 99."""
_VIN_VALUES = dict(zip("ABCDEFGHJKLMNPRSTUVWXYZ", "12345678123457923456789", strict=True))
_VIN_WEIGHTS = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)


def luhn(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B: payment cards and IMEI."""
    plain = sum(int(digit) for digit in digits[-1::-2])
    return (plain + sum(_DOUBLED[int(digit)] for digit in digits[-2::-2])) % 10 == 0


def nhs_number(digits: str) -> bool:
    """NHS data dictionary, NHS NUMBER: ten digits, weights 10 to 1, modulus 11."""
    return sum(int(digit) * (10 - place) for place, digit in enumerate(digits)) % 11 == 0


def dea_number(digits: str) -> bool:
    """The seven digits of a DEA number: first, third, fifth and twice the others end in the last.

    The prefix of a DEA number does not take part.
    """
    single, double = digits[0:6:2], digits[1:6:2]
    total = sum(map(int, single)) + 2 * sum(map(int, double))
    return total % 10 == int(digits[6])


def iban_prefixes(characters: str, shortest: int) -> Iterable[int]:
    """Lengths, from `shortest`, at which `characters` (A-Z, 0-9) is right modulo 97 (ISO 13616)."""
    head = int("".join(str(int(letter, 36)) for letter in characters[:4]))
    rest = 0
    for length, letter in enumerate(characters[4:], start=5):
        value = int(letter, 36)
        rest = (rest * (100 if value > 9 else 10) + value) % 97
        if length >= shortest and (rest * 10**6 + head) % 97 == 1:
            yield length


def begins_with_iban(characters: str) -> bool:
    """Whether an IBAN of its country's length, in A-Z and 0-9, is what `characters` begin with."""
    length = _IBAN_LENGTHS.get(characters[:2], 0)
    if not length or len(characters) < length:
        return False
    number = "".join(str(int(c, 36)) for c in characters[4:length] + characters[:4])
    return int(number) % 97 == 1


def bitcoin_address(address: str) -> bool:
    """Base58Check in full; of Bech32 (BIP 173) the form only, the checksum is Presidio's to do."""
    if address[0] not in "13":
        data = address[address.rfind("1") + 1 :].lower()
        return len(data) >= _BECH32_CHECKSUM and _BECH32.issuperset(data)
    number = 0
    for letter in address:
        value = _BASE58_VALUES.get(letter)
        if value is None:
            return False
        number = number * 58 + value
    zeros = len(address) - len(address.lstrip("1"))
    raw = bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")
    return sha256(sha256(raw[:-4]).digest()).digest()[:4] == raw[-4:]


def vehicle_number(vin: str) -> bool:
    """49 CFR 565.15(c): the ninth character checks the sixteen others."""
    values = (int(_VIN_VALUES.get(letter, letter)) for letter in vin)
    total = sum(value * weight for value, weight in zip(values, _VIN_WEIGHTS, strict=True))
    return vin[8] == "0123456789X"[total % 11]
