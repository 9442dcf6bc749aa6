"""After a restore, or when a person says so: charges that this silo has signed and its ledger lost.

Nothing ever gets less. What a verdict in storage, or the mark in the home, knows of a charge goes
into the ledger again; where it knows of more charges, or of a larger total, than that makes, the
same charge is counted once more until both are reached. A ledger whose chain is broken is kept
beside the new one, and counts as far as it is sound.
"""

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal

from data_contracts.errors import SiloOperatorError
from data_contracts.privacy.accountant import NoGuaranteeError
from data_contracts.protocol.records import Verdict
from data_contracts.protocol.records.privacy_terms import MOST_EPSILON, PrivacyStatement
from infra.disk.durable_files import write_durably
from silo_agent.privacy.ledger import PrivacyLedger, lifetime_of, read_mark
from silo_agent.privacy.ledger_lines import BrokenChainError, Charged, LedgerLines

MOST_COUNTED = 1_000
BROKEN_NAME = "ledger-broken-%Y%m%dT%H%M%SZ.jsonl"

log = logging.getLogger("silo-agent")


def take_back(ledger: PrivacyLedger, verdicts: Iterable[Verdict], now: datetime) -> int:
    """Charge what `verdicts` of this silo and the mark know and the ledger does not; how often."""
    told = sorted((_told(v, v.privacy) for v in verdicts if v.privacy), key=lambda each: each.at)
    try:
        mark = read_mark(ledger.home)
    except SiloOperatorError:
        mark = None
    if not told and mark is None and not ledger.path.exists():
        return 0
    lines = _sound(ledger, now)
    before = sum(1 for _ in lines.charges())
    for each in (*told, *(mark.last if mark else ())):
        lines = _with(ledger, lines, each)
    # Last, because what it says now may be all that is known of some of them.
    ledger.mark(lines)
    made = sum(1 for _ in lines.charges()) - before
    if made:
        log.warning("privacy: %d charges that the ledger did not have were charged again", made)
    return made


def _with(ledger: PrivacyLedger, lines: LedgerLines, known: Charged) -> LedgerLines:
    """The ledger with at least as many charges, and as large a total, as `known` says."""
    if not _has(lines, known):
        lines = ledger.write(lines, _counted(lines, known))
    again = known.model_copy(update={"findings_digest": None, "told": None, "secret": None})
    for _ in range(MOST_COUNTED):
        charges = [each for _, each in lines.charges(known.population)]
        if len(charges) >= known.entries and _total(lines, known) >= known.epsilon_lifetime:
            break
        lines = ledger.write(lines, _counted(lines, again))
    return lines


def _counted(lines: LedgerLines, charged: Charged) -> Charged:
    """With a total that is no less than what was signed."""
    total = max(charged.epsilon_lifetime, _total(lines, charged, charged))
    entries = 1 + sum(1 for _ in lines.charges(charged.population))
    return charged.model_copy(
        update={"epsilon_lifetime": total, "entries": max(entries, charged.entries), "secret": None}
    )


def _total(lines: LedgerLines, of: Charged, *more: Charged) -> Decimal:
    steps = [each.private_steps for each in more]
    try:
        return lifetime_of(lines, of.population, of.delta, *steps)
    except NoGuaranteeError:
        return Decimal(MOST_EPSILON)


def _has(lines: LedgerLines, known: Charged) -> bool:
    """The same charge, as the ledger wrote it or as it was taken back before."""
    named = {(line.digest, each.told) for line, each in lines.charges(known.population)}
    if known.told is not None:
        return any(known.told in each for each in named)
    places = {(each.plan_digest, each.findings_digest, each.at) for _, each in lines.charges()}
    return (known.plan_digest, known.findings_digest, known.at) in places


def _told(verdict: Verdict, statement: PrivacyStatement) -> Charged:
    fields = statement.model_dump(exclude={"ledger_digest"})
    return Charged(
        **fields,
        at=verdict.issued_at,
        run=verdict.run,
        round=verdict.round,
        attempt=verdict.attempt,
        plan_digest=verdict.plan_digest,
        findings_digest=verdict.findings_digest,
        told=statement.ledger_digest,
    )


def _sound(ledger: PrivacyLedger, now: datetime) -> LedgerLines:
    """The lines as far as the chain holds; a broken ledger is kept beside."""
    if not ledger.path.exists():
        return LedgerLines()
    data = ledger.path.read_bytes()
    try:
        return LedgerLines.read(data)
    except BrokenChainError as broken:
        aside = ledger.path.with_name(now.strftime(BROKEN_NAME))
        write_durably(aside, data)
        log.warning("privacy: %s; the ledger as it was is kept in %s", broken, aside)
        sound: Sequence[bytes] = data.split(b"\n")[: len(broken.sound)]
        write_durably(ledger.path, b"".join(line + b"\n" for line in sound))
        return LedgerLines(broken.sound)
