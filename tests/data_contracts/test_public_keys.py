"""A key that is pinned has one spelling and binds its holder."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from data_contracts.protocol.public_keys import key_fault
from data_contracts.protocol.records.membership import Member

P = 2**255 - 19


def encoded(y: int, sign: int = 0) -> str:
    return (y | sign << 255).to_bytes(32, "little").hex()


ORDER_8 = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)


@pytest.mark.parametrize("sign", [0, 1])
@pytest.mark.parametrize("y", [0, 1, P - 1, ORDER_8, P - ORDER_8])
def test_every_point_of_small_order_is_refused(y: int, sign: int) -> None:
    assert key_fault(encoded(y, sign)) == "a point of small order"


@pytest.mark.parametrize("sign", [0, 1])
@pytest.mark.parametrize("above", range(19))
def test_every_second_encoding_is_refused(above: int, sign: int) -> None:
    assert key_fault(encoded(P + above, sign)) == "a second encoding of a point"


def test_what_is_no_point_is_refused() -> None:
    assert key_fault(encoded(2)) == "no point of the curve"


@pytest.mark.parametrize("seed", range(20))
def test_keys_of_people_are_fine(seed: int) -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32).public_key()
    assert key_fault(key.public_bytes_raw().hex()) is None


def test_records_do_not_take_such_a_key() -> None:
    with pytest.raises(ValidationError, match="a point of small order"):
        Member(silo="bank-a", public_key=encoded(1))
