"""Every object key and bucket name, as pure functions of validated ids.

Record keys end in the digest of their envelope, so that two documents for one slot can both be
seen; readers list the slot, verify, and treat none as absent and two as equivocation.
"""

import re
from dataclasses import dataclass

from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import RoundPlan, RoundRecord
from data_contracts.protocol.wire_types import NAME_PATTERN

_NAME = re.compile(NAME_PATTERN)
_FEDERATION = re.compile(f"(?!.*-inbox(-|$)){NAME_PATTERN}")
"""Without `-inbox` inside, no two federations and silos of one store share a bucket name."""
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SLOT_ENTRY = re.compile(r"[a-z0-9/-]{1,200}/(?P<part>[0-9a-f]{64})\.json")
_ATTEMPT = re.compile(rf"rounds/(?P<part>{NAME_PATTERN}/[0-9]{{4,}}/[0-9]{{2}}-[0-9a-f]{{16}}/).+")
_BLOB = re.compile(r"blobs/(?P<part>[0-9a-f]{64})")

MEMBERS_PREFIX = "members/"
FEED_PREFIX = "feed/"
ROUNDS_PREFIX = "rounds/"
STATUS_PREFIX = "status/"
PROBE_PREFIX = "probe/"
PLAN_DIGITS = 16


@dataclass(frozen=True)
class RoundId:
    """One attempt of one round of a run, which is one plan.

    The plan's digest is part of every key: a plan that a later membership made void, and its
    successor of the same number, share no slot.
    """

    run: str
    round: int
    attempt: int
    plan_digest: str

    def __post_init__(self) -> None:
        _checked(self.run, _NAME, "run id")
        _checked(self.plan_digest, _DIGEST, "plan digest")

    @property
    def path(self) -> str:
        """Run, round, attempt and the beginning of the plan's digest, as in every key."""
        digits = self.plan_digest[:PLAN_DIGITS]
        return f"{self.run}/{self.round:04d}/{self.attempt:02d}-{digits}/"


def run_round_prefix(run: str, round_number: int) -> str:
    """Beginning of the keys of every attempt of a round."""
    return f"{ROUNDS_PREFIX}{_checked(run, _NAME, 'run id')}/{round_number:04d}/"


def attempt_of(plan: Verified[RoundPlan]) -> RoundId:
    """The attempt that a plan opens."""
    return RoundId(plan.record.run, plan.record.round, plan.record.attempt, plan.digest)


def attempt_of_record(record: RoundRecord) -> RoundId:
    """The attempt that a record says it belongs to."""
    return RoundId(record.run, record.round, record.attempt, record.plan_digest)


def plans_bucket(federation: str) -> str:
    """Bucket that the coordinator writes and every silo reads."""
    return f"{_federation(federation)}-plans"


def inbox_bucket(federation: str, silo: str) -> str:
    """Bucket that one silo writes and the coordinator reads; no other silo sees it."""
    return f"{_federation(federation)}-inbox-{_checked(silo, _NAME, 'silo id')}"


def ledger_bucket(federation: str) -> str:
    """Bucket with the coordinator's copies of what was judged, where inboxes have no locks."""
    return f"{_federation(federation)}-ledger"


def membership_slot(number: int) -> str:
    """Slot of one membership version."""
    return f"{MEMBERS_PREFIX}{number:06d}/"


def feed_slot(number: int) -> str:
    """Slot of one plan or abort in the federation's gap-free feed."""
    return f"{FEED_PREFIX}{number:08d}/"


def number_in_key(prefix: str, key: str) -> int | None:
    """The number of the slot below `prefix` that a key lies in, or None for anything else."""
    name = key.removeprefix(prefix).split("/")[0]
    return int(name) if key.startswith(prefix) and name.isascii() and name.isdigit() else None


def round_prefix(round_id: RoundId) -> str:
    """Everything of one attempt in a plans bucket or an inbox."""
    return f"{ROUNDS_PREFIX}{round_id.path}"


def round_slot(round_id: RoundId, kind: str) -> str:
    """Slot of the coordinator's or a silo's record of `kind` within its own bucket."""
    return f"{round_prefix(round_id)}{_checked(kind, _NAME, 'record kind')}/"


def ledger_slot(round_id: RoundId, silo: str, kind: str) -> str:
    """Slot of the ledger's copy of a silo's record."""
    silo, kind = _checked(silo, _NAME, "silo id"), _checked(kind, _NAME, "record kind")
    return f"{round_prefix(round_id)}{silo}/{kind}/"


def record_key(slot: str, envelope_digest: str) -> str:
    """Key of an envelope in its slot."""
    return f"{slot}{_checked(envelope_digest, _DIGEST, 'digest')}.json"


def digest_in_key(key: str) -> str | None:
    """Envelope digest that a record key ends in, or None when it is not a record key."""
    return _part_of(_SLOT_ENTRY, key)


def blob_key(digest: str) -> str:
    """Key of a blob under its own digest."""
    return f"blobs/{_checked(digest, _DIGEST, 'digest')}"


def attempt_path_in_key(key: str) -> str | None:
    """`RoundId.path` of the attempt that a record's key belongs to; None for any other key."""
    return _part_of(_ATTEMPT, key)


def blob_digest_in_key(key: str) -> str | None:
    """The digest in a blob's key, or None for any other key."""
    return _part_of(_BLOB, key)


def status_prefix(round_id: RoundId) -> str:
    """Prefix of a silo's status records of one attempt."""
    return f"{STATUS_PREFIX}{round_id.path}"


def status_key(round_id: RoundId, number: int) -> str:
    """Key of a silo's status; for display only, expired by lifecycle."""
    return f"{status_prefix(round_id)}{number:06d}.json"


def _part_of(pattern: re.Pattern[str], key: str) -> str | None:
    match = pattern.fullmatch(key)
    return match["part"] if match else None


def _federation(federation: str) -> str:
    return _checked(federation, _FEDERATION, "federation id")


def _checked(value: str, pattern: re.Pattern[str], what: str) -> str:
    if not pattern.fullmatch(value):
        raise UntrustedInputError(
            what,
            expected=f"text matching {pattern.pattern}",
            found=repr(value[:60]),
            action="correct the id where it was configured",
            rule="layout.id",
        )
    return value
