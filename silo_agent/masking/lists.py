"""The coordinator's lists of a masked attempt as one silo reads them: verified, or not believed.

Every signature in them is another silo's, and what this silo said has to be in them as it said it.
Raises UntrustedInputError for what no honest coordinator signs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from data_contracts.confidential.attempt import commitments_of, group_of, terms_of
from data_contracts.errors import UntrustedInputError
from data_contracts.masking.held_shares import HeldShares
from data_contracts.masking.mask_group import MaskGroup
from data_contracts.masking.sealed_shares import opened
from data_contracts.masking.silo_secrets import SiloSecrets
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import (
    Close,
    Countersignature,
    CountersignedClose,
    MaskRoster,
    Membership,
    RoundPlan,
    SealedShares,
    ShareBook,
    Submission,
)
from data_contracts.protocol.relayed import relayed


@dataclass(frozen=True)
class MaskedAttempt:
    """A masked plan as the silo `name` follows it, and the membership that its keys are in."""

    plan: Verified[RoundPlan]
    membership: Membership
    name: str

    def group(self, roster: Verified[MaskRoster], secrets: SiloSecrets) -> MaskGroup:
        """The silos of the roster, as many as a sum needs, with this silo's own keys among them."""
        needed = terms_of(self.plan.record).threshold
        if len(roster.record.keys) < needed:
            found = f"{len(roster.record.keys)}"
            raise contradiction("roster of mask keys", f"at least {needed} silos", found)
        group = group_of(self.plan, roster, self.membership)
        if group.keys_of(self.name) != secrets.advertised(group.binding, self.name):
            raise contradiction("roster of mask keys", "this silo's own keys in it", "others")
        return group

    def open_book(
        self,
        group: MaskGroup,
        book: Verified[ShareBook],
        own: Verified[SealedShares],
        secrets: SiloSecrets,
    ) -> HeldShares:
        """What a share book has for this silo; its owners are the silos between which pads lie."""
        words = relayed(book.record.shares, SealedShares, self.plan, self.membership)
        _require_one_roster(words, own.record.roster_digest, group)
        if self.name not in words or words[self.name].digest != own.digest:
            raise contradiction("share book", "what this silo sealed", "something else, or nothing")
        if len(words) < group.threshold:
            found = f"{len(words)}"
            raise contradiction("share book", f"at least {group.threshold} silos", found)
        pairs = [
            opened(
                _box_for(self.name, word.record),
                secrets,
                group,
                self.name,
                commitments_of(word.record),
            )
            for word in words.values()
        ]
        return HeldShares.of(self.name, pairs)

    def require_sound(
        self, close: Verified[Close], book: Verified[ShareBook], own: Verified[Submission]
    ) -> None:
        """That a sum over what the close admits is one that this silo masked its change for."""
        admitted = {item.silo: item for item in close.record.admitted}
        others = set(admitted) - {entry.silo for entry in book.record.shares}
        if others:
            raise contradiction(
                "close record", "silos of the share book", ", ".join(sorted(others))
            )
        needed = terms_of(self.plan.record).threshold
        if len(admitted) < needed:
            raise contradiction("close record", f"at least {needed} silos", f"{len(admitted)}")
        mine = admitted[self.name]
        if mine.submission_digest != own.digest:
            raise contradiction("close record", "what this silo submitted", "something else")
        if own.record.book_digest != book.digest:
            raise contradiction("share book", "the one that this silo masked under", "another")
        if mine.weight != self.plan.record.weight_of(own.record.tokens):
            raise contradiction("close record", "the weight that is masked already", "another")

    def require_agreed(
        self,
        close: Verified[Close],
        countersigned: Verified[CountersignedClose],
        own: Verified[Countersignature],
    ) -> None:
        """That as many admitted silos as a sum needs have signed this very close and share book."""
        words = relayed(
            countersigned.record.countersignatures, Countersignature, self.plan, self.membership
        )
        admitted = {item.silo for item in close.record.admitted}
        said = (own.record.close_digest, own.record.book_digest)
        agreeing = [
            silo
            for silo, word in words.items()
            if silo in admitted and (word.record.close_digest, word.record.book_digest) == said
        ]
        needed = terms_of(self.plan.record).threshold
        if own.record.close_digest != close.digest or len(agreeing) < needed:
            expected = f"{needed} silos that signed the close record which this silo signed"
            raise contradiction("list of countersignatures", expected, f"{len(agreeing)}")


def _require_one_roster(
    words: Mapping[str, Verified[SealedShares]], digest: str, group: MaskGroup
) -> None:
    """That all of them sealed for the same silos: a coordinator that shows two rosters is found."""
    for silo, word in words.items():
        holders = sorted(share.holder for share in word.record.shares)
        if word.record.roster_digest != digest or holders != list(group.silos):
            raise contradiction(
                f"shares of {silo}", "sealed for the silos of the same roster", "another roster"
            )


def _box_for(holder: str, record: SealedShares) -> bytes:
    return next(bytes.fromhex(share.box) for share in record.shares if share.holder == holder)


def contradiction(what: str, expected: str, found: str) -> UntrustedInputError:
    """What is raised for what cannot be of an honest coordinator."""
    return UntrustedInputError(
        what,
        expected=expected,
        found=found,
        action="take no further part in this attempt, and ask the federation operator; the "
        "coordinator's key may be in use by someone else",
        rule="masking.contradiction",
    )
