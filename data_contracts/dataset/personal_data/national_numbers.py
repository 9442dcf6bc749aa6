"""Check digits of the numbers under which states file people, by the names that rule files use.

Every function takes the number in ASCII, in upper case and without separators, in the form that its
rule's pattern has already matched. Where a number holds a date of birth, the date must be one.
Sources: the issuing authorities' publications, as the rule files name them.
"""

from collections.abc import Sequence

from data_contracts.dataset.personal_data.checksums import luhn

_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_DNI_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"
_PPS_LETTERS = "WABCDEFGHIJKLMNOPQRSTUV"
_HETU_SIGNS = "0123456789ABCDEFHJKLMNPRSTUVWXY"
_ICAO = {**{str(n): n for n in range(10)}, **{chr(55 + n): n for n in range(10, 36)}}
_CF_ODD_LETTERS = (
    *(1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18),
    *(20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23),
)
_CF_ODD = {
    **dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", _CF_ODD_LETTERS, strict=True)),
    **dict(zip("0123456789", _CF_ODD_LETTERS[:10], strict=True)),
}


def weighted(digits: str, weights: Sequence[int]) -> int:
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=False))


def is_day(month: int, day: int) -> bool:
    return 1 <= month <= 12 and 1 <= day <= _DAYS[month - 1]


def is_ymd(digits: str) -> bool:
    """YYMMDD."""
    return is_day(int(digits[2:4]), int(digits[4:6]))


def is_dmy(digits: str) -> bool:
    """DDMMYY."""
    return is_day(int(digits[2:4]), int(digits[0:2]))


def at_vnr(n: str) -> bool:
    """Austria, Versicherungsnummer: modulus 11 in the fourth place; months above 12 are in use."""
    month, day = int(n[6:8]), int(n[4:6])
    total = weighted(n, (3, 7, 9, 0, 5, 8, 4, 2, 1, 6))
    return n[0] != "0" and 1 <= month <= 15 and 1 <= day <= 31 and total % 11 == int(n[3])


def be_nn(n: str) -> bool:
    """Belgium, rijksregisternummer or BIS number: modulus 97, before and since 2000."""
    month, day = int(n[2:4]), int(n[4:6])
    is_checked = any(97 - int(century + n[:9]) % 97 == int(n[9:]) for century in ("", "2"))
    return is_checked and month <= 52 and month % 20 <= 12 and day <= 31


def bg_egn(n: str) -> bool:
    """Bulgaria, EGN: months 20 or 40 higher outside of the twentieth century."""
    total = weighted(n, (2, 4, 8, 5, 10, 9, 7, 3, 6))
    return is_day(int(n[2:4]) % 20, int(n[4:6])) and total % 11 % 10 == int(n[9])


def ch_ahv(n: str) -> bool:
    """Switzerland, AHV number: that of an EAN-13."""
    return (weighted(n, (1, 3) * 6) + int(n[12])) % 10 == 0


def cz_rc(n: str) -> bool:
    """Czech and Slovak rodné číslo: modulus 11; of nine digits before 1954, without a check."""
    month = int(n[2:4]) % 50
    is_date = is_day(month - 20 if month > 20 else month, int(n[4:6]))
    if len(n) == 9:
        return is_date and int(n[:2]) < 54
    return is_date and int(n[:9]) % 11 % 10 == int(n[9])


def de_idnr(n: str) -> bool:
    """Germany, Steuer-ID: ISO 7064 modulus 11,10; one digit of ten comes twice or three times."""
    counts = [n[:10].count(digit) for digit in "0123456789"]
    twice = sum(count > 1 for count in counts)
    return n[0] != "0" and twice == 1 and max(counts) <= 3 and mod_11_10(n)


def de_rvnr(n: str) -> bool:
    """Germany, Rentenversicherungsnummer (VKVV, section 2): the letter counts as two digits."""
    digits = f"{n[:8]}{ord(n[8]) - 64:02}{n[9:11]}"
    products = (
        int(d) * w for d, w in zip(digits, (2, 1, 2, 5, 7, 1, 2, 1, 2, 1, 2, 1), strict=True)
    )
    day = int(n[2:4])
    is_date = 1 <= int(n[4:6]) <= 12 and (1 <= day <= 31 or 51 <= day <= 81)
    return is_date and sum(p // 10 + p % 10 for p in products) % 10 == int(n[11])


def de_kvnr(n: str) -> bool:
    """Germany, Krankenversichertennummer (SGB V, section 290)."""
    digits = f"{ord(n[0]) - 64:02}{n[1:9]}"
    products = (int(d) * w for d, w in zip(digits, (1, 2) * 5, strict=True))
    return sum(p // 10 + p % 10 for p in products) % 10 == int(n[9])


def dk_cpr(n: str) -> bool:
    """Denmark, CPR number: a date; since 2007 without a check digit."""
    return is_dmy(n)


def ee_ik(n: str) -> bool:
    """Estonia and Lithuania, personal code: modulus 11 in two steps."""
    rest = weighted(n[:10], (1, 2, 3, 4, 5, 6, 7, 8, 9, 1)) % 11
    if rest == 10:
        rest = weighted(n[:10], (3, 4, 5, 6, 7, 8, 9, 1, 2, 3)) % 11 % 10
    return is_ymd(n[1:7]) and rest == int(n[10])


def es_dni(n: str) -> bool:
    """Spain, DNI and NIE: modulus 23 in letters."""
    digits = {"X": "0", "Y": "1", "Z": "2"}.get(n[0], n[0]) + n[1:-1]
    return _DNI_LETTERS[int(digits) % 23] == n[-1]


def fi_hetu(n: str) -> bool:
    """Finland, henkilötunnus: modulus 31; the sign of the century is a separator."""
    return is_dmy(n) and _HETU_SIGNS[int(n[:6] + n[-4:-1]) % 31] == n[-1]


def fr_nir(n: str) -> bool:
    """France, NIR: modulus 97; Corsica's letters count as 19 and 18."""
    return 97 - int(n[:13].replace("2A", "19").replace("2B", "18")) % 97 == int(n[13:15])


def fr_spi(n: str) -> bool:
    """France, numéro fiscal: modulus 511."""
    return int(n[:10]) % 511 == int(n[10:])


def gb_utr(n: str) -> bool:
    """United Kingdom, unique taxpayer reference: modulus 11 in the first place."""
    return "21987654321"[weighted(n[1:], (6, 7, 8, 9, 10, 5, 4, 3, 2)) % 11] == n[0]


def gr_amka(n: str) -> bool:
    """Greece, AMKA: a date and Luhn."""
    return is_dmy(n) and luhn(n)


def ie_pps(n: str) -> bool:
    """Ireland, PPS number: modulus 23 in letters; a second letter counts too."""
    second = _PPS_LETTERS.find(n[8]) if len(n) == 9 else 0
    return _PPS_LETTERS[(weighted(n[:7], (8, 7, 6, 5, 4, 3, 2)) + 9 * second) % 23] == n[7]


def is_kennitala(n: str) -> bool:
    """Iceland, kennitala: modulus 11 and a century."""
    return is_dmy(n) and n[9] in "089" and weighted(n[:9], (3, 2, 7, 6, 5, 4, 3, 2, 1)) % 11 == 0


def it_cf(n: str) -> bool:
    """Italy, codice fiscale (D.M. 23/12/1976): modulus 26 in letters."""
    odd = sum(_CF_ODD[letter] for letter in n[0:15:2])
    even = sum(_ICAO[c] if c.isdigit() else ord(c) - 65 for c in n[1:15:2])
    return chr(65 + (odd + even) % 26) == n[15]


def lv_pk(n: str) -> bool:
    """Latvia, personas kods: a date and modulus 11."""
    total = 1 + weighted(n[:10], (10, 5, 8, 4, 2, 1, 6, 3, 7, 9))
    return is_dmy(n) and total % 11 % 10 == int(n[10])


def nl_bsn(n: str) -> bool:
    """Netherlands, burgerservicenummer: the test of eleven."""
    return int(n) > 0 and weighted(n, (9, 8, 7, 6, 5, 4, 3, 2, -1)) % 11 == 0


def no_fnr(n: str) -> bool:
    """Norway, fødselsnummer and D-number: modulus 11 twice."""
    first = -weighted(n[:9], (3, 7, 6, 1, 8, 9, 4, 5, 2)) % 11
    second = -weighted(n[:10], (5, 4, 3, 2, 7, 6, 5, 4, 3, 2)) % 11
    is_date = is_day(int(n[2:4]) % 40, int(n[0:2]) % 40)
    return is_date and (first, second) == (int(n[9]), int(n[10]))


def pl_pesel(n: str) -> bool:
    """Poland, PESEL: births from 1900 to 2039 (months 20 higher from 2000 on)."""
    month = int(n[2:4])
    is_near = month <= 12 or int(n[0]) <= 3
    total = weighted(n, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1))
    return is_near and is_day(month - 20 if month > 20 else month, int(n[4:6])) and total % 10 == 0


def pt_nif(n: str) -> bool:
    """Portugal, NIF: modulus 11."""
    return (11 - weighted(n[:8], (9, 8, 7, 6, 5, 4, 3, 2)) % 11) % 11 % 10 == int(n[8])


def ro_cnp(n: str) -> bool:
    """Romania, CNP: modulus 11."""
    rest = weighted(n[:12], (2, 7, 9, 1, 4, 6, 3, 5, 8, 2, 7, 9)) % 11
    return is_ymd(n[1:7]) and int(n[12]) == (1 if rest == 10 else rest)


def ru_snils(n: str) -> bool:
    """Russia, SNILS: modulus 101."""
    return weighted(n[:9], (9, 8, 7, 6, 5, 4, 3, 2, 1)) % 101 % 100 == int(n[9:])


def ru_inn(n: str) -> bool:
    """Russia, taxpayer number of a person: modulus 11 twice."""
    first = weighted(n[:10], (7, 2, 4, 10, 3, 5, 9, 4, 6, 8)) % 11 % 10
    second = weighted(n[:11], (3, 7, 2, 4, 10, 3, 5, 9, 4, 6, 8)) % 11 % 10
    return (first, second) == (int(n[10]), int(n[11]))


def se_pnr(n: str) -> bool:
    """Sweden, personnummer or samordningsnummer: Luhn over the last ten digits."""
    short = n[-10:]
    day = int(short[4:6])
    return is_day(int(short[2:4]), day - 60 if day > 60 else day) and luhn(short)


def si_emso(n: str) -> bool:
    """Slovenia and its neighbours, EMŠO or JMBG: births from 1850 to 2049, modulus 11."""
    total = weighted(n[:12], (7, 6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2))
    is_date = is_dmy(n) and n[4] in "890"
    return is_date and -total % 11 % 10 == int(n[12])


def icao_9303(n: str) -> bool:
    """ICAO Doc 9303, part 3: the last digit checks a document number, weights 7, 3, 1."""
    total = sum(_ICAO[c] * w for c, w in zip(n[:-1], (7, 3, 1) * 5, strict=False))
    return total % 10 == int(n[-1])


def mod_11_10(n: str) -> bool:
    """ISO 7064 modulus 11,10."""
    product = 10
    for digit in n[:-1]:
        product = ((product + int(digit)) % 10 or 10) * 2 % 11
    return (product + int(n[-1])) % 10 == 1
