"""Which text is an age X25519 recipient that only its holder can open something for.

Bech32 (BIP 173) over the 32 bytes of a Curve25519 point (RFC 7748). A point of small order gives
everybody the same secret, and a second encoding would be a second name of one key, so each
recipient has one spelling.
"""

from functools import lru_cache

_P = 2**255 - 19
_ORDER_8 = (
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)
_SMALL_ORDER = frozenset({0, 1, _P - 1, *_ORDER_8})
_LETTERS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATORS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_PREFIX = "age"
_CHECKSUM = 6
RECIPIENT_PATTERN = r"^age1[02-9ac-hj-np-z]{58}$"


@lru_cache(maxsize=4096)
def recipient_fault(recipient: str) -> str | None:
    """Why this text, which matches RECIPIENT_PATTERN, is no recipient to name, or None."""
    values = [_LETTERS.index(letter) for letter in recipient.removeprefix(f"{_PREFIX}1")]
    expanded = [ord(c) >> 5 for c in _PREFIX] + [0] + [ord(c) & 31 for c in _PREFIX]
    if _remainder([*expanded, *values]) != 1:
        return "a typing mistake: its check digits do not fit"
    bits = 0
    for value in values[:-_CHECKSUM]:
        bits = bits << 5 | value
    # 52 letters hold 260 bits, of which the last four fill up.
    encoded, filling = bits >> 4, bits & 15
    u = int.from_bytes(encoded.to_bytes(32, "big"), "little")
    if filling or u >= _P:
        return "a second encoding of a point"
    return "a point of small order" if u in _SMALL_ORDER else None


def _remainder(values: list[int]) -> int:
    """Of the polynomial over 32 elements; 1 where the last six are the check digits."""
    found = 1
    for value in values:
        top, found = found >> 25, (found & 0x1FFFFFF) << 5 ^ value
        for place, generator in enumerate(_GENERATORS):
            found ^= generator if top >> place & 1 else 0
    return found
