"""What an attempt in confidential mode waits for between its other steps, and what then is due.

Silos read no inbox but their own, so the coordinator passes on what they need of each other: first
their mask keys, then the shares that they sealed for one another, and after the close their
countersignatures. Last it needs their shares itself. Pure, over verified records.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from aggregator.attempt import Attempt, SiloRecords
from aggregator.decisions.opening import lacking, usable_shares
from data_contracts.confidential.attempt import advertised_keys, terms_of
from data_contracts.errors import UntrustedInputError
from data_contracts.masking.derivation import require_usable
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import (
    Countersignature,
    CountersignedClose,
    MaskRoster,
    RoundRecord,
    SealedShares,
    ShareBook,
)
from data_contracts.protocol.records.masking_terms import MaskingTerms

TOO_FEW = "masking.too_few"


@dataclass(frozen=True)
class Exchange:
    """`said` is what counts of the silos' words so far, `owing` who has yet to say something before
    `by`, `needed` how many have to.

    `what` is for people; `record` is what the coordinator signs of it, None for the shares that
    open the sum, which it reads itself.
    """

    what: str
    by: datetime
    owing: tuple[str, ...]
    said: tuple[Verified[Any], ...]
    needed: int
    record: type[RoundRecord] | None

    def is_over(self, now: datetime) -> bool:
        """Whether nobody is waited for any more."""
        return now >= self.by or not self.owing


def listed_silos(attempt: Attempt) -> frozenset[str] | None:
    """The silos between which pads lie; None where the attempt has no share book."""
    if attempt.book is None:
        return None
    return frozenset(entry.silo for entry in attempt.book.record.shares)


def exchange_of(attempt: Attempt) -> Exchange | None:
    """What is due between silos now; None where the plan is not masked, or nothing is."""
    terms = attempt.plan.record.masking
    if terms is None:
        return None
    if attempt.close is None:
        return _before_training(attempt, terms)
    admitted = [attempt.of(item.silo) for item in attempt.close.record.admitted]
    if attempt.countersigned is None:
        said = [
            (own, own.countersignature)
            for own in admitted
            if own.countersignature is None or _is_on(own.countersignature, attempt)
        ]
        what = "countersignatures of the close record"
        by = _after(attempt.close, attempt)
        return _enough(_exchange(what, by, said, terms, CountersignedClose))
    if not lacking(attempt, usable_shares(attempt)):
        return None
    revealed = [(own, own.revealed_shares) for own in admitted]
    by = _after(attempt.countersigned, attempt)
    return _exchange("revealed shares", by, revealed, terms, None)


def _before_training(attempt: Attempt, terms: MaskingTerms) -> Exchange | None:
    if attempt.roster is None:
        unfit = _with_unfit_keys(attempt)
        keys = [(own, own.mask_keys) for own in attempt.cohort() if own.silo not in unfit]
        return _exchange("mask keys", terms.keys_by, keys, terms, MaskRoster)
    if attempt.book is not None:
        return None
    holders = [entry.silo for entry in attempt.roster.record.keys]
    listed = [attempt.of(silo) for silo in holders]
    shares = [
        (own, own.sealed_shares)
        for own in listed
        if own.sealed_shares is None
        or _is_for(own.sealed_shares.record, attempt.roster.digest, holders)
    ]
    return _exchange("sealed shares", terms.shares_by, shares, terms, ShareBook)


def _exchange(
    what: str,
    by: datetime,
    words: Iterable[tuple[SiloRecords, Verified[Any] | None]],
    terms: MaskingTerms,
    record: type[RoundRecord] | None,
) -> Exchange:
    """Of a silo that has declined nothing counts, and nothing is waited for."""
    there = [(own.silo, word) for own, word in words if not own.has_declined]
    return Exchange(
        what,
        by,
        owing=tuple(silo for silo, word in there if word is None),
        said=tuple(word for _, word in there if word is not None),
        needed=terms.threshold,
        record=record,
    )


def _enough(exchange: Exchange) -> Exchange:
    """After the close nobody is waited for beyond what opens the sum."""
    if len(exchange.said) < exchange.needed:
        return exchange
    return Exchange(exchange.what, exchange.by, (), exchange.said, exchange.needed, exchange.record)


def _with_unfit_keys(attempt: Attempt) -> set[str]:
    """Silos whose keys no group can have: one of small order, or one that another has as well."""
    words = {own.silo: own.mask_keys for own in attempt.cohort() if own.mask_keys is not None}
    keys = {silo: advertised_keys(word.record) for silo, word in words.items()}
    used = Counter(key for own in keys.values() for key in (own.mask_key, own.sealing_key))
    return {
        silo
        for silo, own in keys.items()
        for key in (own.mask_key, own.sealing_key)
        if used[key] > 1 or not _is_usable(key, silo)
    }


def _is_usable(key: bytes, silo: str) -> bool:
    try:
        require_usable(key, silo)
    except UntrustedInputError:
        return False
    return True


def _is_for(sealed: SealedShares, roster_digest: str, holders: Sequence[str]) -> bool:
    """Whether there is a share for every silo of the roster that the coordinator signed."""
    named = sorted(share.holder for share in sealed.shares)
    return sealed.roster_digest == roster_digest and named == sorted(holders)


def _is_on(word: Verified[Countersignature], attempt: Attempt) -> bool:
    """Whether a silo has seen the close record and the share book that the others were shown."""
    close = attempt.close.digest if attempt.close else None
    book = attempt.book.digest if attempt.book else None
    return (word.record.close_digest, word.record.book_digest) == (close, book)


def _after(signed: Verified[Any], attempt: Attempt) -> datetime:
    """By when silos have to answer what the coordinator signed: the plan's deadline, or as long
    after that as the plan gives, where it came late; never later than the evaluations."""
    plan, terms = attempt.plan.record, terms_of(attempt.plan.record)
    given, signed_at = terms.reveal_by - plan.submit_by, cast(datetime, signed.record.issued_at)
    return min(max(terms.reveal_by, signed_at + given), plan.evaluate_by)


def said_of_masks(attempt: Attempt) -> str:
    """Sentences on why there are too few, for an abort: which silos' keys no group can have, what
    silos refused because of another, and that a round whose shares are out is over."""
    unfit = sorted(_with_unfit_keys(attempt))
    said = f" Keys of {', '.join(unfit)} cannot be used." if unfit else ""
    refused = [own.refusal.record for own in attempt.cohort() if own.refusal is not None]
    because = Counter(record.reason for record in refused if record.rule.startswith("masking."))
    for reason, silos in because.most_common(1):
        said += f" {silos} refused: {reason}"
    if attempt.countersigned is not None:
        said += (
            " Shares may be out, so silos open no other sum of this round: the next one follows."
        )
    return said
