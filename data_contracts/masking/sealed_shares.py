"""The pair of shares for one peer, in a box that nobody else opens, and that fits nowhere else.

ChaCha20-Poly1305 (RFC 8439) under a key from X25519 of the two sealing keys. Key and associated
data name attempt, sender and receiver in this order, so a box of another attempt, for another peer
or sent back does not open. The nonce is random, because shares that are drawn anew are sealed anew.
"""

import secrets as system_random

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from data_contracts.masking.derivation import derived_key, described, exchanged, unfit
from data_contracts.masking.mask_group import MaskGroup
from data_contracts.masking.shares import Share, ShareCommitments, SharePair
from data_contracts.masking.silo_secrets import SEED_BYTES, SiloSecrets

NONCE_BYTES, TAG_BYTES = 12, 16
BOX_BYTES = NONCE_BYTES + 2 * SEED_BYTES + TAG_BYTES


def sealed(pair: SharePair, secrets: SiloSecrets, group: MaskGroup) -> bytes:
    """The box (60 bytes) for the holder of `pair`; `secrets` are its owner's."""
    owner, holder = pair.mask_seed.owner, pair.mask_seed.holder
    nonce = system_random.token_bytes(NONCE_BYTES)
    cipher = ChaCha20Poly1305(_key(secrets, group, holder, owner, holder))
    inside = pair.mask_seed.value + pair.self_seed.value
    return nonce + cipher.encrypt(nonce, inside, _bound_to(group, owner, holder))


def opened(
    box: bytes, secrets: SiloSecrets, group: MaskGroup, holder: str, shown: ShareCommitments
) -> SharePair:
    """The pair in a box that the owner of `shown` sealed for `holder`, whose `secrets` these are.

    Raises UntrustedInputError, against the owner, for a box that does not open here, and for shares
    that are not those which it committed to.
    """
    owner = shown.owner
    cipher = ChaCha20Poly1305(_key(secrets, group, owner, owner, holder))
    nonce, sealed_shares = box[:NONCE_BYTES], box[NONCE_BYTES:]
    try:
        if len(box) != BOX_BYTES:
            raise InvalidTag
        inside = cipher.decrypt(nonce, sealed_shares, _bound_to(group, owner, holder))
    except InvalidTag:
        raise unfit(
            f"box of shares from {owner} to {holder}",
            f"{BOX_BYTES} bytes sealed by {owner} for {holder} in this attempt",
            f"{len(box)} bytes that do not open",
            "bad_box",
        ) from None
    pair = SharePair(
        Share(owner, holder, "mask_seed", inside[:SEED_BYTES]),
        Share(owner, holder, "self_seed", inside[SEED_BYTES:]),
    )
    _require_committed(pair, group, shown)
    return pair


def _require_committed(pair: SharePair, group: MaskGroup, shown: ShareCommitments) -> None:
    """Before a holder says that it has shares, so that nobody can blame it for them later."""
    for share in (pair.mask_seed, pair.self_seed):
        if share.commitment(group.binding) != shown.of(share, group):
            raise unfit(
                f"share in the box from {share.owner} to {share.holder}",
                f"the one that {share.owner} committed to",
                "another",
                "wrong_share_in_box",
            )


def _key(secrets: SiloSecrets, group: MaskGroup, peer: str, sender: str, receiver: str) -> bytes:
    shared = exchanged(secrets.private_sealing_key, group.keys_of(peer).sealing_key, peer)
    keys = (group.keys_of(sender).sealing_key, group.keys_of(receiver).sealing_key)
    fields = (sender.encode(), receiver.encode(), *keys)
    return derived_key(shared, "sealing", group.binding, *fields)


def _bound_to(group: MaskGroup, sender: str, receiver: str) -> bytes:
    return described("sealing", group.binding, sender.encode(), receiver.encode())
