"""What survivors hand out, made into the pads that are still in the sum of their files."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from data_contracts.masking.derivation import unfit
from data_contracts.masking.mask_group import MaskGroup
from data_contracts.masking.pads import Pad, pair_pad, self_pad
from data_contracts.masking.shares import (
    Share,
    ShareCommitments,
    rebuilt_mask_seed,
    rebuilt_self_seed,
)
from data_contracts.masking.silo_secrets import mask_key


@dataclass(frozen=True)
class RebuiltSeeds:
    """`self_seeds` of the survivors and `mask_seeds` of the silos that shared and sent no file."""

    self_seeds: Mapping[str, bytes] = field(repr=False)
    mask_seeds: Mapping[str, bytes] = field(repr=False)

    @property
    def survivors(self) -> tuple[str, ...]:
        """The silos whose files are summed, in order."""
        return tuple(sorted(self.self_seeds))


def rebuilt_seeds(
    handed_out: Iterable[Share],
    group: MaskGroup,
    shown: Mapping[str, ShareCommitments],
    survivors: Iterable[str],
) -> RebuiltSeeds:
    """One seed of each silo in `shown`, which are those that shared their seeds out.

    Raises FederationOperatorError where shares of a silo are too few, and UntrustedInputError,
    with the name of whose fault it is, for a wrong share, a wrong seed, or a survivor that shared
    nothing.
    """
    lasting = set(survivors)
    if not lasting <= set(shown):
        stranger = sorted(lasting - set(shown))[0]
        raise unfit("survivors", "silos that shared their seeds out", stranger, "bad_list")
    by_owner: dict[str, list[Share]] = {owner: [] for owner in shown}
    for share in handed_out:
        if share.owner in by_owner:
            by_owner[share.owner].append(share)
    gone = sorted(set(shown) - lasting)
    return RebuiltSeeds(
        self_seeds={s: rebuilt_self_seed(by_owner[s], group, shown[s]) for s in sorted(lasting)},
        mask_seeds={s: rebuilt_mask_seed(by_owner[s], group, shown[s]) for s in gone},
    )


def pads_left(group: MaskGroup, seeds: RebuiltSeeds) -> tuple[Pad, ...]:
    """What has to be added to the sum of the survivors' files so that no pad is left in it.

    Of each survivor its self pad is taken away. Pads of two survivors cancel; what a survivor added
    for a silo that is gone is cancelled by what that one would have added.
    """
    binding = group.binding
    own = [self_pad(seed, binding, silo).opposite for silo, seed in seeds.self_seeds.items()]
    pairs = [
        pair_pad(mask_key(seed, binding, gone), group.keys_of(gone), group.keys_of(peer), binding)
        for gone, seed in seeds.mask_seeds.items()
        for peer in seeds.survivors
    ]
    return (*own, *pairs)
