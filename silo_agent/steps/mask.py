"""Confidential mode at the silo, one signed word after the other; see docs/privacy.md.

Keys -> sealed shares -> (training, the masked change) -> countersignature -> revealed shares. Each
word is on disk before it leaves, so a retry says the same; every list of the coordinator is
verified down to the signatures of the other silos. What does not hold ends this silo's part, and
nothing of it can be opened then: fewer than the threshold of others never do.
"""

import logging
from collections.abc import Iterable
from functools import lru_cache

from data_contracts.confidential.attempt import binding_of, group_of, terms_of
from data_contracts.errors import UntrustedInputError
from data_contracts.masking.sealed_shares import sealed
from data_contracts.masking.shares import share_out
from data_contracts.masking.silo_mask import OwnPlace
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import (
    Close,
    Countersignature,
    CountersignedClose,
    MaskKeys,
    MaskRoster,
    RevealedShares,
    SealedShares,
    ShareBook,
)
from data_contracts.protocol.records.revealed_shares import RevealedShare
from data_contracts.protocol.records.sealed_shares import SealedShare
from silo_agent.federation.coordinator_view import CoordinatorView
from silo_agent.masking.kept_secrets import KeptSecrets
from silo_agent.masking.lists import MaskedAttempt, contradiction
from silo_agent.masking.opened_sums import OpenedSums
from silo_agent.policy.known_silos import objection_to_sum
from silo_agent.policy.plan_context import PolicyRefusal
from silo_agent.release.doors import SECRETS_LOST
from silo_agent.silo import Silo
from silo_agent.steps.answer import refuse, refuse_fault
from silo_agent.steps.own_attempt import OwnAttempt, Step

log = logging.getLogger("silo-agent")


def mask_step(silo: Silo, attempt: OwnAttempt, coordinator: CoordinatorView) -> Step | None:
    """The word that is due in a masked attempt, or why none is; None where the round goes on as any
    other: with training once there is a share book, and after the sum with the evaluation."""
    if attempt.plan.record.masking is None:
        return None
    kept = KeptSecrets.of(silo.config.home, attempt.plan)
    if coordinator.candidate is not None or silo.clock.now() >= attempt.plan.record.expires_at:
        # Nothing is opened any more, or all of it is.
        kept.erase()
        return None
    try:
        return _due(silo, attempt, coordinator)
    except UntrustedInputError as error:
        if attempt.done.submission is None:
            refusal = PolicyRefusal(error.rule, f"Masks cannot be had: {error.problem}."[:300])
            return refuse_fault(silo, attempt, error, refusal)
        # What was sent stays under its pads.
        _say_once(f"nothing is revealed: {error}")
        return Step.WAITING


def _due(silo: Silo, attempt: OwnAttempt, coordinator: CoordinatorView) -> Step | None:
    done, close = attempt.done, coordinator.close
    if close is None:
        return _before_close(silo, attempt, coordinator)
    if done.revealed_shares is not None:
        # Where the agent died between its last word and this.
        KeptSecrets.of(silo.config.home, attempt.plan).erase()
        return None
    if done.submission is None:
        return None
    KeptSecrets.of(silo.config.home, attempt.plan).forget_own()
    admitted = {item.silo for item in close.record.admitted}
    if silo.name not in admitted:
        return None
    if coordinator.book is None or coordinator.roster is None:
        raise contradiction("share book", "the one that the close record rests on", "none")
    if KeptSecrets.of(silo.config.home, attempt.plan).held() is None:
        _say_once(
            f"round {attempt.plan.record.round}: nothing is countersigned or revealed, because the "
            "others' shares are not in this home any more"
        )
        return Step.WAITING
    objection = _objection(silo, attempt, admitted)
    if objection is not None:
        _say_once(
            f"round {attempt.plan.record.round}: nothing is countersigned or revealed by "
            f"{objection.rule}: {objection.reason}"
        )
        return Step.WAITING
    if done.countersignature is None:
        return _countersign(silo, attempt, close, coordinator.book)
    if coordinator.countersigned is None:
        return Step.WAITING
    return _reveal(silo, attempt, close, coordinator.countersigned, coordinator.roster)


def _before_close(silo: Silo, attempt: OwnAttempt, coordinator: CoordinatorView) -> Step | None:
    done, now, terms = attempt.done, silo.clock.now(), terms_of(attempt.plan.record)
    if done.mask_keys is None:
        if now >= terms.keys_by or coordinator.roster is not None:
            return Step.WAITING
        return _offer_keys(silo, attempt)
    if coordinator.roster is None:
        return Step.WAITING
    if done.sealed_shares is None:
        if now >= terms.shares_by or coordinator.book is not None:
            return Step.WAITING
        return _seal_shares(silo, attempt, coordinator.roster)
    if coordinator.book is None:
        return Step.WAITING
    listed = [entry.silo for entry in coordinator.book.record.shares]
    if silo.name not in listed:
        return _left_out(attempt, "the share book")
    if done.submission is not None:
        return None
    kept = KeptSecrets.of(silo.config.home, attempt.plan)
    if kept.secrets() is None:
        return refuse(silo, attempt, SECRETS_LOST)
    objection = _objection(silo, attempt, listed)
    if objection is not None:
        return refuse(silo, attempt, objection)
    if kept.held() is None:
        # Before anything is trained: what others sealed for this silo may not open.
        own_place(silo, attempt, coordinator)
    return None


def _objection(silo: Silo, attempt: OwnAttempt, silos: Iterable[str]) -> PolicyRefusal | None:
    """Why the policy, as it is now, has no sum of changes of `silos`."""
    policy, members = silo.release.in_force.policy(), attempt.feed.membership_of(attempt.plan)
    return objection_to_sum(silos, policy, members, silo.name)


def _offer_keys(silo: Silo, attempt: OwnAttempt) -> Step:
    plan = attempt.plan
    attempt.out.require_open(MaskKeys)
    keys = KeptSecrets.of(silo.config.home, plan).begun().advertised(binding_of(plan), silo.name)
    attempt.out.record(
        MaskKeys.on(
            plan,
            silo.clock.now(),
            silo=silo.name,
            mask_key=keys.mask_key.hex(),
            sealing_key=keys.sealing_key.hex(),
        )
    )
    log.info("round %d: keys for masks offered", plan.record.round)
    return Step.MASKED


def _seal_shares(silo: Silo, attempt: OwnAttempt, roster: Verified[MaskRoster]) -> Step:
    plan, name = attempt.plan, silo.name
    if name not in {entry.silo for entry in roster.record.keys}:
        return _left_out(attempt, "the roster of mask keys")
    secrets = KeptSecrets.of(silo.config.home, plan).secrets()
    if secrets is None:
        return refuse(silo, attempt, SECRETS_LOST)
    group = masked_attempt(silo, attempt).group(roster, secrets)
    objection = _objection(silo, attempt, group.silos)
    if objection is not None:
        return refuse(silo, attempt, objection)
    attempt.out.require_open(SealedShares)
    pairs, shown = share_out(secrets, group, name)
    places = enumerate(group.silos)
    attempt.out.record(
        SealedShares.on(
            plan,
            silo.clock.now(),
            silo=name,
            roster_digest=roster.digest,
            self_seed=shown.self_seed,
            shares=tuple(
                SealedShare(
                    holder=holder,
                    box=sealed(pairs[holder], secrets, group).hex(),
                    mask_commitment=shown.mask_seed_shares[place],
                    self_commitment=shown.self_seed_shares[place],
                )
                for place, holder in places
            ),
        )
    )
    log.info("round %d: shares sealed for %d silos", plan.record.round, len(group.silos))
    return Step.MASKED


def own_place(silo: Silo, attempt: OwnAttempt, coordinator: CoordinatorView) -> OwnPlace:
    """This silo among those of the share book, whose shares for it are opened and kept.

    Raises UntrustedInputError for a book that does not hold, and SiloOperatorError where the
    secrets that it began with are not there any more.
    """
    plan, book, roster = attempt.plan, coordinator.book, coordinator.roster
    own, kept = attempt.done.sealed_shares, KeptSecrets.of(silo.config.home, plan)
    secrets = kept.secrets()
    if book is None or roster is None or own is None or secrets is None:
        raise ValueError("expected a share book of which this silo is a part")
    reading = masked_attempt(silo, attempt)
    group = reading.group(roster, secrets)
    held = reading.open_book(group, book, own, secrets)
    kept.keep_held(held)
    return OwnPlace(silo.name, secrets, group, held.owners)


def _countersign(
    silo: Silo, attempt: OwnAttempt, close: Verified[Close], book: Verified[ShareBook]
) -> Step:
    plan, own = attempt.plan, attempt.done.submission
    if own is None:
        return Step.WAITING
    masked_attempt(silo, attempt).require_sound(close, book, own)
    attempt.out.record(
        Countersignature.on(
            plan,
            silo.clock.now(),
            silo=silo.name,
            close_digest=close.digest,
            book_digest=book.digest,
        )
    )
    count = len(close.record.admitted)
    log.info("round %d: close record over %d silos countersigned", plan.record.round, count)
    return Step.MASKED


def _reveal(
    silo: Silo,
    attempt: OwnAttempt,
    close: Verified[Close],
    countersigned: Verified[CountersignedClose],
    roster: Verified[MaskRoster],
) -> Step:
    """One share of each silo, once it is certain that enough others saw the same close record."""
    plan, own = attempt.plan, attempt.done.countersignature
    kept = KeptSecrets.of(silo.config.home, plan)
    held = kept.held()
    if own is None or held is None:
        return Step.WAITING
    masked_attempt(silo, attempt).require_agreed(close, countersigned, own)
    group = group_of(plan, roster, attempt.feed.membership_of(plan))
    settled = held.settled(group, {item.silo for item in close.record.admitted})
    OpenedSums.of(silo.config.home, plan).note()
    kept.keep_held(settled)
    attempt.out.record(
        RevealedShares.on(
            plan,
            silo.clock.now(),
            silo=silo.name,
            close_digest=close.digest,
            countersigned_digest=countersigned.digest,
            shares=tuple(
                RevealedShare(owner=share.owner, secret=share.seed, share=share.value.hex())
                for share in settled.handed_out()
            ),
        )
    )
    kept.erase()
    log.info("round %d: shares revealed that open the sum, and no other", plan.record.round)
    return Step.MASKED


def masked_attempt(silo: Silo, attempt: OwnAttempt) -> MaskedAttempt:
    """How this silo reads the coordinator's lists."""
    plan = attempt.plan
    return MaskedAttempt(plan, attempt.feed.membership_of(plan), silo.name)


def _left_out(attempt: OwnAttempt, of_what: str) -> Step:
    """Too late, most likely: the silo takes part again with the evaluation."""
    number = attempt.plan.record.round
    _say_once(f"round {number}: this silo is not in {of_what}, so nothing of it is summed")
    return Step.WAITING


@lru_cache(maxsize=64)
def _say_once(line: str) -> None:
    log.warning("%s", line)
