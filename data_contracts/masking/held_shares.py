"""What a silo holds of the others' seeds, and the one of two that it hands out.

Both seeds of one silo would unmask its file. So once the list of survivors is known, a holder keeps
of each silo one share and forgets the other, and only what is left can be handed out: the share of
the self seed of a silo that sent its masked file, the share of the mask seed of one that did not.
The state with one share each is to be on disk before anything is handed out, in place of the other;
then no second list, nor a restart, can get at what is gone.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from data_contracts.errors import SiloOperatorError
from data_contracts.masking.derivation import unfit
from data_contracts.masking.mask_group import MaskGroup
from data_contracts.masking.shares import SeedName, Share, SharePair
from data_contracts.masking.silo_secrets import SEED_BYTES
from data_contracts.protocol.strict_json import distinct_names

Values = Mapping[str, Mapping[SeedName, bytes]]


@dataclass(frozen=True)
class HeldShares:
    """The shares of one holder by owner: of each both, or, with `survivors`, one.

    `survivors`: the silos whose masked files count, in order, once that is settled.
    """

    holder: str
    values: Values = field(repr=False)
    survivors: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for other shares of an owner than those, so that no value has both."""
        for owner, shares in self.values.items():
            if set(shares) != _kept(owner, self.survivors):
                raise ValueError(f"expected both shares of {owner}, or the one that is handed out")

    @classmethod
    def of(cls, holder: str, pairs: Iterable[SharePair]) -> "HeldShares":
        """All pairs that `holder` has, its own included."""
        values: dict[str, Mapping[SeedName, bytes]] = {}
        for pair in pairs:
            if {pair.mask_seed.holder, pair.self_seed.holder} != {holder}:
                raise ValueError(f"expected shares that {holder} holds")
            values[pair.mask_seed.owner] = {
                "mask_seed": pair.mask_seed.value,
                "self_seed": pair.self_seed.value,
            }
        return cls(holder, values)

    @property
    def owners(self) -> tuple[str, ...]:
        """The silos whose shares are held, in order."""
        return tuple(sorted(self.values))

    def settled(self, group: MaskGroup, survivors: Iterable[str]) -> "HeldShares":
        """One share of each owner, by who survived; the others are not in it any more.

        Raises UntrustedInputError for a list that is too short to protect anybody, that leaves the
        holder out or names a silo that shared nothing, and for another list than the first.
        """
        chosen = tuple(sorted(survivors))
        if self.survivors is not None and self.survivors != chosen:
            first = f"{', '.join(self.survivors)}, as in the first"
            raise _refused(first, ", ".join(chosen), "second_list")
        if len(set(chosen)) != len(chosen) or not set(chosen) <= set(self.values):
            expected = f"silos out of {', '.join(self.owners)}, each once"
            raise _refused(expected, ", ".join(chosen), "bad_list")
        if len(chosen) < group.threshold:
            raise _refused(f"at least {group.threshold} silos", f"{len(chosen)}", "too_few")
        if self.holder not in chosen:
            raise _refused(f"{self.holder}, which is asked", ", ".join(chosen), "not_on_list")
        values = {
            owner: {name: shares[name] for name in _kept(owner, chosen)}
            for owner, shares in self.values.items()
        }
        return replace(self, values=values, survivors=chosen)

    def handed_out(self) -> tuple[Share, ...]:
        """One share of each owner; ValueError before the survivors are settled."""
        if self.survivors is None:
            raise ValueError("expected settled shares: both of a silo are never handed out")
        return tuple(
            Share(owner, self.holder, name, value)
            for owner in self.owners
            for name, value in self.values[owner].items()
        )

    def to_bytes(self) -> bytes:
        """All of it as JSON, for a file that nobody else may read."""
        shares = {
            owner: {name: value.hex() for name, value in self.values[owner].items()}
            for owner in self.owners
        }
        survivors = None if self.survivors is None else list(self.survivors)
        state = {"holder": self.holder, "survivors": survivors, "shares": shares}
        return json.dumps(state, indent=1).encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> "HeldShares":
        """What `to_bytes` wrote; raises SiloOperatorError for anything else."""
        try:
            return _read(json.loads(raw, object_pairs_hook=distinct_names))
        except (ValueError, TypeError, KeyError, AttributeError):
            raise SiloOperatorError(
                "held shares of a confidential round",
                expected="a file as this agent writes it",
                found="another one",
                action="remove it below masking/ in the home and start the agent again: it "
                "leaves this attempt, and the next has new ones",
            ) from None


def _kept(owner: str, survivors: tuple[str, ...] | None) -> set[SeedName]:
    """Both before the survivors are settled, then one."""
    if survivors is None:
        return {"mask_seed", "self_seed"}
    return {"self_seed"} if owner in survivors else {"mask_seed"}


def _read(state: Any) -> HeldShares:
    if set(state) != {"holder", "survivors", "shares"}:
        raise ValueError("other fields")
    values = {
        str(owner): {_seed_name(name): _seed(value) for name, value in shares.items()}
        for owner, shares in state["shares"].items()
    }
    survivors = state["survivors"]
    chosen = None if survivors is None else tuple(str(silo) for silo in survivors)
    return HeldShares(str(state["holder"]), values, chosen)


def _seed_name(name: str) -> SeedName:
    if name == "mask_seed":
        return "mask_seed"
    if name == "self_seed":
        return "self_seed"
    raise ValueError("another seed")


def _seed(value: str) -> bytes:
    seed = bytes.fromhex(value)
    if len(seed) != SEED_BYTES:
        raise ValueError("another length")
    return seed


def _refused(expected: str, found: str, rule: str) -> Exception:
    return unfit(
        "coordinator's list of silos whose masked files count", expected, found or "none", rule
    )
