"""Secrets from shares: as PyCryptodome combines them, whichever and however many are there."""

import secrets

import numpy as np
import pytest
from Crypto.Protocol.SecretSharing import Shamir

from data_contracts.masking.interpolation import combined


@pytest.mark.parametrize(("threshold", "count"), [(2, 3), (5, 7), (11, 16), (34, 50)])
def test_any_shares_combine_as_those_of_pycryptodome(threshold: int, count: int) -> None:
    rng = np.random.default_rng(count)
    for secret in (secrets.token_bytes(16), bytes(16), b"\xff" * 16, bytes(15) + b"\x01"):
        shares = Shamir.split(threshold, count, secret, ssss=False)
        chosen = [shares[at] for at in rng.permutation(count)[:threshold]]
        assert combined(chosen) == combined(chosen[::-1]) == secret
        fewer = chosen[:-1]
        assert combined(fewer) == Shamir.combine(fewer, ssss=False) != secret
        wrong = [(chosen[0][0], secrets.token_bytes(16)), *chosen[1:]]
        assert combined(wrong) == Shamir.combine(wrong, ssss=False) != secret
