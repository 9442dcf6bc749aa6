"""Shares: any threshold of them rebuild, each wrong one has a name, boxes open in one place."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import pytest
from Crypto.Protocol.SecretSharing import Shamir

from data_contracts.errors import FederationOperatorError, SiloOperatorError, UntrustedInputError
from data_contracts.masking.held_shares import HeldShares
from data_contracts.masking.sealed_shares import BOX_BYTES, opened, sealed
from data_contracts.masking.shares import (
    Share,
    ShareCommitments,
    SharePair,
    check_share,
    rebuilt_mask_seed,
    rebuilt_self_seed,
    require_commitments,
    share_out,
)
from data_contracts.masking.silo_secrets import SiloSecrets
from tests.data_contracts.masking.mask_samples import OTHER_BINDING, Silos, names_of, silos_of

SILOS = silos_of(5)
OWNER, HOLDER = "silo-01", "silo-03"


def pair_of(silos: Silos, owner: str, holder: str) -> SharePair:
    if owner == holder:
        values = silos.own[owner].values[owner]
        own = [Share(owner, owner, name, value) for name, value in values.items()]
        return SharePair(*own)
    secrets, shown = silos.secrets[holder], silos.shown[owner]
    return opened(silos.boxes[owner, holder], secrets, silos.group, holder, shown)


def shares_of(silos: Silos, owner: str, seed: str) -> list[Share]:
    return [getattr(pair_of(silos, owner, holder), seed) for holder in silos.group.silos]


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6])
def test_every_threshold_of_shares_rebuilds_both_seeds_and_fewer_none(count: int) -> None:
    silos, owner = silos_of(count), "silo-01"
    secrets, shown, group = silos.secrets[owner], silos.shown[owner], silos.group
    masks, own = shares_of(silos, owner, "mask_seed"), shares_of(silos, owner, "self_seed")
    for chosen in combinations(range(count), group.threshold):
        assert rebuilt_mask_seed([masks[i] for i in chosen], group, shown) == secrets.mask_seed
        assert rebuilt_self_seed([own[i] for i in chosen], group, shown) == secrets.self_seed
    assert rebuilt_mask_seed(reversed(masks), group, shown) == secrets.mask_seed
    too_few = masks[: group.threshold - 1]
    with pytest.raises(FederationOperatorError, match=rf"{group.threshold} silos, the threshold"):
        # The same silo's share twice, and shares of the other seed, do not make up for one.
        rebuilt_mask_seed([*too_few, *too_few, *own], group, shown)


@pytest.mark.parametrize("count", [3, 5, 6])
def test_what_fewer_shares_give_is_not_the_seed(count: int) -> None:
    """The scheme itself, without our count of shares."""
    silos = silos_of(count)
    shares = shares_of(silos, OWNER, "self_seed")
    points = [(silos.group.place_of(share.holder), share.value) for share in shares]
    enough, secret = silos.group.threshold, silos.secrets[OWNER].self_seed
    assert Shamir.combine(points[:enough], ssss=False) == secret
    for chosen in combinations(points, enough - 1):
        assert Shamir.combine(list(chosen), ssss=False) != secret


def test_fifty_silos_rebuild_with_thirty_four() -> None:
    silos = silos_of(50)
    assert silos.group.threshold == 34
    shares = shares_of(silos, OWNER, "self_seed")
    secret = silos.secrets[OWNER].self_seed
    assert rebuilt_self_seed(shares[16:], silos.group, silos.shown[OWNER]) == secret
    with pytest.raises(FederationOperatorError, match="found 33"):
        rebuilt_self_seed(shares[17:], silos.group, silos.shown[OWNER])


Changed = Callable[[Share], Share]
OTHER_ATTEMPT = silos_of(5, OTHER_BINDING)
WRONG: dict[str, Changed] = {
    "tampered": lambda s: replace(s, value=bytes([s.value[0] ^ 1]) + s.value[1:]),
    "of another attempt": lambda s: getattr(pair_of(OTHER_ATTEMPT, s.owner, s.holder), s.seed),
    "of another holder": lambda s: replace(
        s, value=getattr(pair_of(SILOS, s.owner, "silo-04"), s.seed).value
    ),
    "of another owner": lambda s: replace(
        s, value=getattr(pair_of(SILOS, "silo-02", s.holder), s.seed).value
    ),
    "of the other seed": lambda s: replace(
        s,
        value=getattr(
            pair_of(SILOS, s.owner, s.holder),
            "mask_seed" if s.seed == "self_seed" else "self_seed",
        ).value,
    ),
    "too short": lambda s: replace(s, value=s.value[:15]),
    "too long": lambda s: replace(s, value=s.value + b"\0"),
    "said to be another owner's": lambda s: replace(s, owner="silo-02"),
}


@pytest.mark.parametrize("seed", ["mask_seed", "self_seed"])
@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_share_is_the_fault_of_who_handed_it_in(what: str, seed: str) -> None:
    shares = shares_of(SILOS, OWNER, seed)
    good = shares[3]
    bad = WRONG[what](good)
    check_share(good, SILOS.group, SILOS.shown[OWNER])
    with pytest.raises(UntrustedInputError, match=f"from {HOLDER}: expected the one") as told:
        check_share(bad, SILOS.group, SILOS.shown[OWNER])
    assert told.value.rule == "masking.wrong_share"
    shares[3] = bad
    rebuild = rebuilt_mask_seed if seed == "mask_seed" else rebuilt_self_seed
    with pytest.raises(UntrustedInputError, match=f"from {HOLDER}"):
        rebuild(shares, SILOS.group, SILOS.shown[OWNER])


@pytest.mark.parametrize("value", [b"", bytes(15), bytes(17)])
def test_what_an_owner_committed_to_and_is_no_share_rebuilds_nothing(value: bytes) -> None:
    bad = Share(OWNER, HOLDER, "mask_seed", value)
    lists = list(SILOS.shown[OWNER].mask_seed_shares)
    lists[3] = bad.commitment(SILOS.group.binding)
    shown = replace(SILOS.shown[OWNER], mask_seed_shares=tuple(lists))
    shares = [*shares_of(SILOS, OWNER, "mask_seed")[:3], bad]
    with pytest.raises(UntrustedInputError) as told:
        rebuilt_mask_seed(shares, SILOS.group, shown)
    assert told.value.rule == "masking.wrong_share"


def test_a_share_from_a_silo_outside_the_group_is_refused() -> None:
    stranger = replace(shares_of(SILOS, OWNER, "mask_seed")[3], holder="silo-44")
    with pytest.raises(UntrustedInputError) as told:
        check_share(stranger, SILOS.group, SILOS.shown[OWNER])
    assert told.value.rule == "masking.no_member"


def test_an_owner_that_shared_other_seeds_out_than_it_advertised_is_named() -> None:
    """Its shares are all as it committed to them; what they give is not its own."""
    pairs, shown = share_out(SiloSecrets.drawn(), SILOS.group, OWNER)
    masks = [pair.mask_seed for pair in pairs.values()]
    with pytest.raises(UntrustedInputError, match=f"mask seed of {OWNER}") as told:
        rebuilt_mask_seed(masks, SILOS.group, shown)
    assert told.value.rule == "masking.wrong_secret"
    own = [pair.self_seed for pair in pairs.values()]
    lie = replace(shown, self_seed=SILOS.shown[OWNER].self_seed)
    with pytest.raises(UntrustedInputError, match=f"self seed of {OWNER}"):
        rebuilt_self_seed(own, SILOS.group, lie)


def test_commitments_show_nothing_that_is_shared_and_have_one_form() -> None:
    shown, group = SILOS.shown[OWNER], SILOS.group
    require_commitments(shown, group)
    text = repr(shown)
    for share in (*shares_of(SILOS, OWNER, "mask_seed"), *shares_of(SILOS, OWNER, "self_seed")):
        assert share.value.hex() not in text
        assert repr(share.value) not in repr(share)
    for change in (
        {"self_seed": "0" * 63},
        {"self_seed": "G" * 64},
        {"mask_seed_shares": shown.mask_seed_shares[:-1]},
        {"self_seed_shares": (*shown.self_seed_shares, "0" * 64)},
        {"self_seed_shares": ("", *shown.self_seed_shares[1:])},
    ):
        with pytest.raises(UntrustedInputError) as told:
            require_commitments(replace(shown, **change), group)
        assert told.value.rule == "masking.bad_commitments"
    cut = replace(shown, mask_seed_shares=(), self_seed_shares=shown.self_seed_shares[:-1])
    for share in (shares_of(SILOS, OWNER, "mask_seed")[4], shares_of(SILOS, OWNER, "self_seed")[0]):
        with pytest.raises(UntrustedInputError, match=f"commitments of {OWNER}"):
            check_share(share, group, cut)
    with pytest.raises(UntrustedInputError, match=f"commitments of {OWNER}"):
        opened(SILOS.boxes[OWNER, HOLDER], SILOS.secrets[HOLDER], group, HOLDER, cut)
    with pytest.raises(UntrustedInputError):
        require_commitments(replace(shown, owner="silo-99"), group)


def test_a_box_opens_for_its_receiver_and_holds_what_was_shared() -> None:
    pair = pair_of(SILOS, OWNER, HOLDER)
    assert (pair.mask_seed.owner, pair.self_seed.holder) == (OWNER, HOLDER)
    assert len(SILOS.boxes[OWNER, HOLDER]) == BOX_BYTES == 60


def opens(box: bytes, silos: Silos, holder: str, owner: str, shown: ShareCommitments) -> bool:
    try:
        opened(box, silos.secrets[holder], silos.group, holder, shown)
    except UntrustedInputError as error:
        assert f"from {owner} to {holder}" in str(error)
        assert error.rule == "masking.bad_box"
        return False
    return True


def test_a_box_opens_nowhere_else() -> None:
    box, shown = SILOS.boxes[OWNER, HOLDER], SILOS.shown
    assert opens(box, SILOS, HOLDER, OWNER, shown[OWNER])
    assert not opens(box, SILOS, "silo-04", OWNER, shown[OWNER])  # another receiver
    assert not opens(box, SILOS, HOLDER, "silo-02", shown["silo-02"])  # another sender
    assert not opens(box, SILOS, OWNER, HOLDER, shown[HOLDER])  # sent back
    for at in range(BOX_BYTES):
        tampered = box[:at] + bytes([box[at] ^ 0x40]) + box[at + 1 :]
        assert not opens(tampered, SILOS, HOLDER, OWNER, shown[OWNER])
    for other in (b"", box[:-1], box + b"\0"):
        assert not opens(other, SILOS, HOLDER, OWNER, shown[OWNER])


def test_a_box_of_another_attempt_does_not_open_even_between_the_same_sealing_keys() -> None:
    """Only the binding differs: keys, shares and commitments are those of this attempt."""
    elsewhere = replace(SILOS.group, binding=OTHER_BINDING)
    moved = replace(SILOS, group=elsewhere)
    assert not opens(SILOS.boxes[OWNER, HOLDER], moved, HOLDER, OWNER, SILOS.shown[OWNER])
    box = OTHER_ATTEMPT.boxes[OWNER, HOLDER]
    assert not opens(box, SILOS, HOLDER, OWNER, SILOS.shown[OWNER])


def test_shares_in_a_box_that_were_not_committed_to_are_the_owners_fault() -> None:
    pairs, _ = share_out(SILOS.secrets[OWNER], SILOS.group, OWNER)
    box = sealed(pairs[HOLDER], SILOS.secrets[OWNER], SILOS.group)
    with pytest.raises(UntrustedInputError, match=f"{OWNER} committed to") as told:
        opened(box, SILOS.secrets[HOLDER], SILOS.group, HOLDER, SILOS.shown[OWNER])
    assert told.value.rule == "masking.wrong_share_in_box"


def test_a_holder_hands_out_one_share_of_each_and_forgets_the_other() -> None:
    names = names_of(5)
    held = SILOS.held(HOLDER, names)
    survivors = ("silo-00", "silo-02", "silo-03", "silo-04")
    settled = held.settled(SILOS.group, reversed(survivors))
    kinds = {share.owner: share.seed for share in settled.handed_out()}
    assert kinds == {s: "self_seed" if s in survivors else "mask_seed" for s in names}
    for share in settled.handed_out():
        check_share(share, SILOS.group, SILOS.shown[share.owner])
    kept = settled.to_bytes()
    for owner in names:
        both = held.values[owner]
        gone = both["mask_seed" if owner in survivors else "self_seed"]
        assert gone.hex().encode() not in kept
        assert gone.hex().encode() in held.to_bytes()
    again = HeldShares.from_bytes(kept)
    assert again == settled
    assert again.settled(SILOS.group, survivors) == settled


def test_no_second_list_is_followed_and_no_list_gives_both() -> None:
    names = names_of(5)
    held = SILOS.held(HOLDER, names)
    with pytest.raises(ValueError, match="never handed out"):
        held.handed_out()
    settled = HeldShares.from_bytes(held.settled(SILOS.group, names[:4]).to_bytes())
    for other in (names, names[1:], ("silo-00", "silo-02", "silo-03", "silo-04")):
        with pytest.raises(UntrustedInputError, match="as in the first") as told:
            settled.settled(SILOS.group, other)
        assert told.value.rule == "masking.second_list"
    for values, survivors in (
        (held.values, names),
        (settled.values, None),
        (settled.values, names),
    ):
        with pytest.raises(ValueError, match="expected both shares of silo-0"):
            replace(settled, values=values, survivors=survivors)
    for size in range(6):
        for survivors in combinations(names, size):
            try:
                shares = held.settled(SILOS.group, survivors).handed_out()
            except UntrustedInputError:
                continue
            assert sorted(share.owner for share in shares) == list(names)


@pytest.mark.parametrize(
    ("survivors", "rule"),
    [
        (("silo-00", "silo-01", "silo-03"), "too_few"),
        ((), "too_few"),
        (("silo-00", "silo-01", "silo-02", "silo-04"), "not_on_list"),
        (("silo-00", "silo-01", "silo-03", "silo-77"), "bad_list"),
        (("silo-00", "silo-01", "silo-01", "silo-03"), "bad_list"),
    ],
)
def test_a_list_that_protects_nobody_is_refused(survivors: tuple[str, ...], rule: str) -> None:
    held = SILOS.held(HOLDER, names_of(5))
    with pytest.raises(UntrustedInputError) as told:
        held.settled(SILOS.group, survivors)
    assert told.value.rule == f"masking.{rule}"


def test_a_silo_that_never_shared_is_on_no_list() -> None:
    held = SILOS.held(HOLDER, ("silo-00", "silo-01", "silo-02", HOLDER))
    with pytest.raises(UntrustedInputError) as told:
        held.settled(SILOS.group, names_of(5))
    assert told.value.rule == "masking.bad_list"


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-3],
        lambda text: text.replace('"survivors": null', '"survivors": ["silo-03"]'),
        lambda text: text.replace('"holder"', '"keeper"'),
        lambda text: text.replace('"mask_seed": "', '"mask_seed": "00', 1),
        lambda text: text.replace('"mask_seed": "', '"mask_seed": "zz', 1),
        lambda text: "[]",
        lambda text: "3",
    ],
)
def test_a_state_that_is_another_is_said(change: Callable[[str], str]) -> None:
    text = SILOS.held(HOLDER, names_of(5)).to_bytes().decode()
    assert HeldShares.from_bytes(text.encode()).to_bytes().decode() == text
    with pytest.raises(SiloOperatorError, match="held shares of a confidential round"):
        HeldShares.from_bytes(change(text).encode())
