"""The silos of one attempt that mask together, their keys, and how many it takes to unmask."""

from collections.abc import Iterable
from dataclasses import dataclass

from data_contracts.errors import FederationOperatorError
from data_contracts.masking.derivation import require_usable, unfit
from data_contracts.masking.silo_secrets import AdvertisedKeys
from data_contracts.protocol.records.masking_terms import MOST_MASKED_SILOS

FEWEST_SILOS = 2


@dataclass(frozen=True)
class MaskGroup:
    """Made by `mask_group`: `members` in the order of their ids, their keys checked.

    `binding` ties all that follows to one attempt; `threshold` shares rebuild a seed.
    """

    binding: bytes
    threshold: int
    members: tuple[AdvertisedKeys, ...]

    @property
    def silos(self) -> tuple[str, ...]:
        """Ids in order; a silo's place in it, from 1, is where its shares are evaluated."""
        return tuple(keys.silo for keys in self.members)

    def keys_of(self, silo: str) -> AdvertisedKeys:
        """The advertised keys of `silo`; raises UntrustedInputError for one that is none of it."""
        return self.members[self.place_of(silo) - 1]

    def place_of(self, silo: str) -> int:
        """From 1; raises UntrustedInputError for a silo that is none of the group."""
        try:
            return self.silos.index(silo) + 1
        except ValueError:
            raise unfit(
                "silos that mask together", f"one of {', '.join(self.silos)}", silo, "no_member"
            ) from None


def mask_group(binding: bytes, threshold: int, keys: Iterable[AdvertisedKeys]) -> MaskGroup:
    """The group of those who advertised `keys`, in any order.

    Raises FederationOperatorError for a size or threshold that protects nobody, and
    UntrustedInputError for a key that is of small order or that two have.
    """
    members = tuple(sorted(keys, key=lambda keys: keys.silo))
    count = len(members)
    if not FEWEST_SILOS <= count <= MOST_MASKED_SILOS:
        found = f"{count} with keys"
        raise _unfit_plan(f"{FEWEST_SILOS} to {MOST_MASKED_SILOS} silos that mask together", found)
    if not count // 2 < threshold <= count:
        expected = f"a threshold above half of {count} silos and of at most all"
        raise _unfit_plan(expected, f"{threshold}")
    if len({member.silo for member in members}) != count:
        raise unfit("advertised keys", "each silo once", "one twice", "same_silo")
    for member in members:
        require_usable(member.mask_key, member.silo)
        require_usable(member.sealing_key, member.silo)
    # A silo that repeats another's key could pass that one's boxes and pads off as its own.
    if len({key for m in members for key in (m.mask_key, m.sealing_key)}) != 2 * count:
        raise unfit("advertised keys", "keys of each silo's own", "one key twice", "same_key")
    return MaskGroup(binding, threshold, members)


def _unfit_plan(expected: str, found: str) -> FederationOperatorError:
    return FederationOperatorError(
        "confidential round",
        expected=expected,
        found=found,
        action="plan the round with other silos or another threshold",
    )
