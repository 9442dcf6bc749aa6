"""Seeds in shares, of which `threshold` rebuild one and fewer say nothing (Shamir 1979).

Over GF(2^128), split by PyCryptodome: a seed of 16 bytes is one element, a share too. The scheme
itself notices nothing: a wrong share gives another seed. So whoever shares a seed out shows a
commitment of each share. A share that is handed in is checked alone and at once, and a wrong one is
the fault of who handed it in. What good shares give is held against what its owner showed of the
seed itself: then a difference is the owner's fault.
"""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from Crypto.Protocol.SecretSharing import Shamir

from data_contracts.errors import FederationOperatorError
from data_contracts.masking.derivation import commitment, public_bytes, unfit
from data_contracts.masking.interpolation import combined
from data_contracts.masking.mask_group import MaskGroup
from data_contracts.masking.silo_secrets import (
    SEED_BYTES,
    SiloSecrets,
    mask_key,
    self_seed_commitment,
)

SeedName = Literal["mask_seed", "self_seed"]
DIGEST_HEX = 64


@dataclass(frozen=True)
class Share:
    """The share (16 bytes) that `holder` has of one of the two seeds of `owner`."""

    owner: str
    holder: str
    seed: SeedName
    value: bytes = field(repr=False)

    def commitment(self, binding: bytes) -> str:
        """What its owner shows of it."""
        names = (self.owner.encode(), self.holder.encode(), self.seed.encode())
        return commitment("share", binding, *names, self.value)


@dataclass(frozen=True)
class SharePair:
    """What one holder has of one owner; nobody else may ever see both."""

    mask_seed: Share
    self_seed: Share


@dataclass(frozen=True)
class ShareCommitments:
    """What an owner shows when it shares its seeds out, in hex: of its self seed, and of the shares
    of both seeds in the order of the group's silos."""

    owner: str
    self_seed: str
    mask_seed_shares: tuple[str, ...]
    self_seed_shares: tuple[str, ...]

    def of(self, share: Share, group: MaskGroup) -> str:
        """The commitment that `share` has to have; raises as `require_commitments`."""
        shown = self.mask_seed_shares if share.seed == "mask_seed" else self.self_seed_shares
        if len(shown) != len(group.silos):
            raise _bad_commitments(self.owner, group)
        return shown[group.place_of(share.holder) - 1]


def share_out(
    secrets: SiloSecrets, group: MaskGroup, owner: str
) -> tuple[dict[str, SharePair], ShareCommitments]:
    """A pair of shares for every silo of the group, `owner` included, and what is shown of them.

    Every call draws others. What is shown and what is sealed must come from one.
    """
    group.place_of(owner)
    mask_shares = _split(secrets.mask_seed, group)
    self_shares = _split(secrets.self_seed, group)
    pairs = {
        holder: SharePair(
            Share(owner, holder, "mask_seed", mask_shares[holder]),
            Share(owner, holder, "self_seed", self_shares[holder]),
        )
        for holder in group.silos
    }
    shown = ShareCommitments(
        owner=owner,
        self_seed=self_seed_commitment(secrets.self_seed, group.binding, owner),
        mask_seed_shares=tuple(p.mask_seed.commitment(group.binding) for p in pairs.values()),
        self_seed_shares=tuple(p.self_seed.commitment(group.binding) for p in pairs.values()),
    )
    return pairs, shown


def require_commitments(shown: ShareCommitments, group: MaskGroup) -> None:
    """Raises UntrustedInputError unless `shown` has a digest for each share."""
    group.place_of(shown.owner)
    lists = (shown.mask_seed_shares, shown.self_seed_shares)
    digests = (shown.self_seed, *shown.mask_seed_shares, *shown.self_seed_shares)
    are_digests = all(len(d) == DIGEST_HEX and set(d) <= set("0123456789abcdef") for d in digests)
    if not are_digests or any(len(shares) != len(group.silos) for shares in lists):
        raise _bad_commitments(shown.owner, group)


def check_share(share: Share, group: MaskGroup, shown: ShareCommitments) -> None:
    """Raises UntrustedInputError, against the holder, for another share than its owner gave it."""
    # An owner may have committed to something that is no share at all.
    is_share = len(share.value) == SEED_BYTES
    found = share.commitment(group.binding)
    if not is_share or not hmac.compare_digest(found, shown.of(share, group)):
        raise unfit(
            f"share of {share.owner}'s {share.seed.replace('_', ' ')} from {share.holder}",
            f"the one that {share.owner} gave it in this attempt",
            "another",
            "wrong_share",
        )


def rebuilt_mask_seed(shares: Iterable[Share], group: MaskGroup, shown: ShareCommitments) -> bytes:
    """The mask seed of `shown.owner`, 16 bytes, whose key is the one that it advertised.

    Raises FederationOperatorError below the threshold, and UntrustedInputError as `check_share` or,
    against the owner, when its shares give another key.
    """
    seed = _combined("mask_seed", shares, group, shown)
    key = mask_key(seed, group.binding, shown.owner)
    if public_bytes(key) != group.keys_of(shown.owner).mask_key:
        raise _not_its_own(shown.owner, "mask seed", "the key that it advertised")
    return seed


def rebuilt_self_seed(shares: Iterable[Share], group: MaskGroup, shown: ShareCommitments) -> bytes:
    """The self seed of `shown.owner`, 16 bytes, which is the one that it committed to.

    Raises as `rebuilt_mask_seed`.
    """
    seed = _combined("self_seed", shares, group, shown)
    if self_seed_commitment(seed, group.binding, shown.owner) != shown.self_seed:
        raise _not_its_own(shown.owner, "self seed", "the seed that it committed to")
    return seed


def _split(seed: bytes, group: MaskGroup) -> dict[str, bytes]:
    shares = dict(Shamir.split(group.threshold, len(group.silos), seed, ssss=False))
    return {silo: shares[group.place_of(silo)] for silo in group.silos}


def _combined(
    name: SeedName, shares: Iterable[Share], group: MaskGroup, shown: ShareCommitments
) -> bytes:
    """Rebuild from the first `threshold` holders in the order of the group."""
    by_place: dict[int, bytes] = {}
    for share in shares:
        check_share(share, group, shown)
        if share.seed == name:
            by_place[group.place_of(share.holder)] = share.value
    if len(by_place) < group.threshold:
        raise FederationOperatorError(
            f"shares of {shown.owner}'s {name.replace('_', ' ')}",
            expected=f"those of {group.threshold} silos, the threshold of the plan",
            found=f"{len(by_place)}",
            action="end this attempt and plan the next; fewer silos cannot unmask a sum",
        )
    return combined(sorted(by_place.items())[: group.threshold])


def _bad_commitments(owner: str, group: MaskGroup) -> Exception:
    digests = f"two lists of {len(group.silos)} digests, and one digest"
    return unfit(f"commitments of {owner}", digests, "others", "bad_commitments")


def _not_its_own(owner: str, what: str, expected: str) -> Exception:
    return unfit(
        f"{what} of {owner}, rebuilt from shares as {owner} gave them",
        expected,
        "another",
        "wrong_secret",
    )
