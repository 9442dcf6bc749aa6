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
