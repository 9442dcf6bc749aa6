"""Which 32 bytes are an Ed25519 public key that binds its holder to what was signed.

Under a point of small order one signature verifies for many messages, and decoders accept second
encodings of a point (Chalkias et al. 2020, "Taming the many EdDSAs"). Keys are compared here as
bytes, so each has to have one spelling.
"""

from functools import lru_cache

_P = 2**255 - 19
_D = -121665 * pow(121666, _P - 2, _P) % _P
_SIGN = 1 << 255
_ORDER_8 = int.from_bytes(
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"
)
_SMALL_ORDER = frozenset({0, 1, _P - 1, _ORDER_8, _P - _ORDER_8})
"""y of the points whose eighth multiple is the neutral element; x plays no part in it."""


@lru_cache(maxsize=4096)
def key_fault(public_key_hex: str) -> str | None:
    """Why these 64 hex digits are no key to pin, or None."""
    encoded = int.from_bytes(bytes.fromhex(public_key_hex), "little")
    y = encoded & (_SIGN - 1)
    if y >= _P:
        return "a second encoding of a point"
    if y in _SMALL_ORDER:
        return "a point of small order"
    return None if _is_on_curve(y) else "no point of the curve"


def _is_on_curve(y: int) -> bool:
    """Whether -x^2 + y^2 = 1 + d x^2 y^2 has a solution x (RFC 8032, section 5.1.3).

    That is so where u / v, and with it u v, is a square (Euler's criterion).
    """
    u, v = y * y - 1, _D * y * y + 1
    return pow(u * v % _P, (_P - 1) // 2, _P) == 1
