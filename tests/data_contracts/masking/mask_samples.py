"""A group of silos with secrets, shares handed over in sealed boxes, and small payloads."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from data_contracts.masking.held_shares import HeldShares
from data_contracts.masking.mask_group import MaskGroup, mask_group
from data_contracts.masking.pads import UInt32Array, add_pads, pads_of
from data_contracts.masking.sealed_shares import opened, sealed
from data_contracts.masking.shares import ShareCommitments, share_out
from data_contracts.masking.silo_secrets import SiloSecrets
from data_contracts.protocol.records.masking_terms import least_threshold

BINDING = b"fed-one, run-one, round 1, attempt 1, plan 00"
OTHER_BINDING = b"fed-one, run-one, round 1, attempt 2, plan 00"


def names_of(count: int) -> tuple[str, ...]:
    return tuple(f"silo-{number:02d}" for number in range(count))


@dataclass(frozen=True)
class Silos:
    """Silos of one attempt, all of which shared their seeds out."""

    group: MaskGroup
    secrets: dict[str, SiloSecrets]
    shown: dict[str, ShareCommitments]
    boxes: dict[tuple[str, str], bytes]
    own: dict[str, HeldShares]

    def held(self, holder: str, sharing: tuple[str, ...]) -> HeldShares:
        """What `holder` has once it opened the boxes of `sharing`."""
        own = self.own[holder]
        values = {holder: own.values[holder]}
        for owner in sharing:
            if owner != holder:
                box, secrets = self.boxes[owner, holder], self.secrets[holder]
                pair = opened(box, secrets, self.group, holder, self.shown[owner])
                values[owner] = HeldShares.of(holder, [pair]).values[owner]
        return HeldShares(holder, values)

    def masked(self, silo: str, sharing: tuple[str, ...], values: UInt32Array) -> UInt32Array:
        out = values.copy()
        add_pads(out, 0, pads_of(self.secrets[silo], self.group, silo, sharing))
        return out


@cache
def silos_of(count: int, binding: bytes = BINDING, threshold: int | None = None) -> Silos:
    names = names_of(count)
    secrets = {silo: SiloSecrets.drawn() for silo in names}
    keys = [secrets[silo].advertised(binding, silo) for silo in reversed(names)]
    group = mask_group(binding, threshold or least_threshold(count), keys)
    shown, boxes, own = {}, {}, {}
    for owner in names:
        pairs, shown[owner] = share_out(secrets[owner], group, owner)
        own[owner] = HeldShares.of(owner, [pairs[owner]])
        for holder, pair in pairs.items():
            boxes[owner, holder] = sealed(pair, secrets[owner], group)
    return Silos(group, secrets, shown, boxes, own)


def payloads_of(names: tuple[str, ...], entries: int, seed: int = 0) -> dict[str, UInt32Array]:
    rng = np.random.default_rng(seed)
    return {silo: rng.integers(0, 2**32, entries, dtype=np.uint32) for silo in names}
