"""Check digits of national numbers of Asia, and of those of the United States; see
`national_numbers` for what all of them take."""

from data_contracts.dataset.personal_data.checksums import luhn
from data_contracts.dataset.personal_data.national_numbers import is_ymd, weighted

_TAIWAN = dict(zip("ABCDEFGHJKLMNPQRSTUVXYWZIO", range(10, 36), strict=True))
_VERHOEFF = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
    (1, 5, 7, 6, 2, 8, 3, 0, 9, 4),
    (5, 8, 0, 3, 7, 9, 6, 1, 4, 2),
    (8, 9, 1, 6, 0, 4, 3, 5, 2, 7),
    (9, 4, 5, 3, 1, 2, 6, 8, 7, 0),
    (4, 2, 8, 6, 5, 7, 3, 9, 0, 1),
    (2, 7, 9, 3, 8, 0, 6, 4, 1, 5),
    (7, 0, 4, 6, 9, 1, 3, 2, 5, 8),
)


def cn_ric(n: str) -> bool:
    """China, resident identity (GB 11643): ISO 7064 modulus 11-2."""
    total = weighted(n[:17], (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2))
    return is_ymd(n[8:14]) and "10X98765432"[total % 11] == n[17]


def hk_id(n: str) -> bool:
    """Hong Kong identity card: modulus 11; one letter counts as after a space, 36."""
    letters = n[:-7].rjust(2)
    values = [36 if letter == " " else ord(letter) - 55 for letter in letters]
    values += [int(digit) for digit in n[-7:-1]]
    check = 10 if n[-1] == "A" else int(n[-1])
    return (sum(v * w for v, w in zip(values, range(9, 1, -1), strict=True)) + check) % 11 == 0


def in_aadhaar(n: str) -> bool:
    """India, Aadhaar: Verhoeff."""
    check = 0
    for place, digit in enumerate(reversed(n)):
        check = _dihedral(check, _VERHOEFF[place % 8][int(digit)])
    return n[0] not in "01" and check == 0


def _dihedral(a: int, b: int) -> int:
    """The product of two elements of the dihedral group of ten."""
    if a < 5:
        return (a + b) % 5 + (5 if b >= 5 else 0)
    return (a - b) % 5 + (0 if b >= 5 else 5)


def jp_my_number(n: str) -> bool:
    """Japan, individual number: modulus 11."""
    rest = weighted(n[10::-1], (2, 3, 4, 5, 6, 7, 2, 3, 4, 5, 6)) % 11
    return int(n[11]) == (0 if rest <= 1 else 11 - rest)


def kr_rrn_date(n: str) -> bool:
    """Republic of Korea, resident registration: the date; since October 2020 without a check."""
    return is_ymd(n)


def kr_rrn(n: str) -> bool:
    """The same with the check digit of earlier numbers."""
    total = weighted(n[:12], (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5))
    return is_ymd(n) and (11 - total % 11) % 10 == int(n[12])


def my_nric(n: str) -> bool:
    """Malaysia, identity card: a date and a place of birth, no check digit."""
    return is_ymd(n) and n[6:8] not in ("00", "17", "18", "19", "20", "69", "70", "73", "80", "81")


def sg_nric(n: str) -> bool:
    """Singapore, NRIC or FIN: modulus 11 in letters."""
    total = weighted(n[1:8], (2, 7, 6, 5, 4, 3, 2)) + (4 if n[0] in "TG" else 0)
    return ("JZIHGFEDCBA" if n[0] in "ST" else "XWUTRQPNMLK")[total % 11] == n[8]


def th_pin(n: str) -> bool:
    """Thailand, personal number: modulus 11."""
    total = weighted(n[:12], range(13, 1, -1))
    return (11 - total % 11) % 10 == int(n[12])


def tr_tckn(n: str) -> bool:
    """Türkiye, T.C. Kimlik No: two check digits."""
    odd, even = sum(map(int, n[0:9:2])), sum(map(int, n[1:8:2]))
    return (7 * odd - even) % 10 == int(n[9]) and sum(map(int, n[:10])) % 10 == int(n[10])


def tw_id(n: str) -> bool:
    """Taiwan, national identification or resident certificate: the letter counts as two digits."""
    digits = f"{_TAIWAN[n[0]]}{n[1:]}"
    return weighted(digits, (1, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1)) % 10 == 0


def il_id(n: str) -> bool:
    """Israel, identity number: Luhn over nine digits, zeros in front left out or not."""
    return luhn(n.zfill(9))


def us_ssn(n: str) -> bool:
    """United States, social security number: areas, groups and serials that are given out."""
    return n[0] != "9" and n[:3] not in ("000", "666") and n[3:5] != "00" and n[5:] != "0000"


def ten_digits(n: str) -> bool:
    """Numbers of Japan's fixed lines, however they are grouped."""
    return len(n) == 10
