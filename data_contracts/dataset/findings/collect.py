"""One streaming pass over the records of a data set gives its findings.

In order: records come in batches, every detector sees the batch, one row per record goes into the
table, and when the last has come duplicates, leaks, balance and drift follow from the table. At
most one batch of text is in memory; nothing of a text is kept but keyed digests and counts.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from data_contracts.dataset.examples import Example, UnreadableRow
from data_contracts.dataset.findings.checks import Checks
from data_contracts.dataset.findings.columns import TABLE
from data_contracts.dataset.findings.duplicates import mark_duplicates
from data_contracts.dataset.findings.example_batch import BatchFindings, judge_batch
from data_contracts.dataset.findings.keyed import Keyed
from data_contracts.dataset.findings.profile import Profile, profile_of, summarise
from data_contracts.dataset.findings.store import FindingsStore

MAX_NOTES = 1000
BATCH_RECORDS = 2_000
BATCH_CHARACTERS = 4 * 1024 * 1024
"""A batch is full at so many records or so much text; detectors need some ten times the text."""

Progress = Callable[[int], None]
"""Called with the number of records that have been looked at."""


@dataclass(frozen=True)
class Findings:
    """Findings of one data set; the table lies at `path`.

    `licence_ids` counts records per licence id, in ids that may leave the silo. `notes` name rows
    and reasons and are for the silo operator only. `evidence_until` is when the first evidence of
    an opt-out check becomes too old (None: there is none).
    """

    path: Path
    digest: str
    records: int
    train_records: int
    heldout_records: int
    train_subjects: int
    unreadable: int
    escalated: int
    licence_ids: dict[str, int]
    profile: Profile
    evidence_until: datetime | None
    notes: tuple[str, ...]


def collect_findings(
    rows: Iterable[Example | UnreadableRow],
    checks: Checks,
    key: bytes,
    into: Path,
    *,
    previous: Profile | None = None,
    progress: Progress = lambda records: None,
) -> Findings:
    """Findings of `rows` in a table at `into`.

    `key` is the silo's own, at least MIN_KEY_BYTES long; `previous` is the profile of the last
    accepted round, to measure drift against. Raises what `rows` raises.
    """
    store = FindingsStore(into)
    try:
        keyed = Keyed(key)
        notes, licence_ids = _Notes(), dict[str, int]()
        evidence_until: datetime | None = None
        store.begin()
        for batch in batches(rows):
            found = judge_batch(batch, checks, keyed)
            _keep(store, found)
            notes.extend(found.notes)
            for licence in found.licence_ids:
                licence_ids[licence] = licence_ids.get(licence, 0) + 1
            evidence_until = _earliest(evidence_until, found.evidence_until)
            progress(found.last_row)
        store.commit()
        mark_duplicates(store)
        notes.add_last(_repeated_ids(store))
        _mark_usable(store)
        profile = profile_of(store.connection, keyed)
        store.set_summary(summarise(profile, previous))
        store.drop_scratch()
        return Findings(
            path=into,
            digest=store.digest(key),
            records=_count(store, "1"),
            train_records=_count(store, "usable AND split = 'train'"),
            heldout_records=_count(store, "usable AND split = 'heldout'"),
            train_subjects=_train_subjects(store),
            unreadable=_count(store, "NOT readable"),
            escalated=checks.personal_data.escalated,
            licence_ids=dict(sorted(licence_ids.items())),
            profile=profile,
            evidence_until=evidence_until,
            notes=notes.all(),
        )
    finally:
        store.close()


def _keep(store: FindingsStore, found: BatchFindings) -> None:
    store.add_rows(found.rows)
    store.add_signatures(found.signatures)
    store.add_bands(found.bands)


def _mark_usable(store: FindingsStore) -> None:
    """What may be trained on: everything that is allowed and nothing that has an objection."""
    objections = " OR ".join(
        (
            "is_empty",
            "is_duplicate",
            "leaks",
            "opted_out",
            "copyright_hit",
            "has_personal_data",
            "NOT licence_allowed",
            "NOT COALESCE(licence_agrees, 1)",
            "licence_contradicted IS NOT NULL",
            "NOT COALESCE(consent, 1)",
            "image_refused IS NOT NULL",
        )
    )
    store.begin()
    statement = f"UPDATE {TABLE} SET usable = (readable AND NOT ({objections}))"  # noqa: S608
    store.connection.execute(statement)
    store.connection.execute(f"UPDATE {TABLE} SET usable = 0 WHERE NOT readable")  # noqa: S608
    store.connection.execute(
        f"UPDATE {TABLE} SET usable_text = text_digest, usable_subject = subject_id, "  # noqa: S608
        "usable_split = split WHERE usable"
    )
    store.commit()


def _repeated_ids(store: FindingsStore) -> str | None:
    """What the operator is told of ids that repeat; no rule looks at them."""
    if not (repeated := _count(store, "same_id_as IS NOT NULL")):
        return None
    first = int(store.scalar(f"SELECT MIN(row) FROM {TABLE} WHERE same_id_as IS NOT NULL"))  # noqa: S608
    other = int(store.scalar(f"SELECT same_id_as FROM {TABLE} WHERE row = {first}"))  # noqa: S608
    return f"ids that an earlier record has: {repeated}, first row {first} that of row {other}"


def _train_subjects(store: FindingsStore) -> int:
    query = "SELECT COUNT(DISTINCT usable_subject) FROM "
    return int(store.scalar(f"{query}{TABLE} WHERE usable AND split = 'train'"))


def _count(store: FindingsStore, condition: str) -> int:
    return int(store.scalar(f"SELECT COUNT(*) FROM {TABLE} WHERE {condition}"))  # noqa: S608


def batches(
    rows: Iterable[Example | UnreadableRow],
) -> Iterator[list[Example | UnreadableRow]]:
    """Rows in order, as many at once as BATCH_RECORDS and BATCH_CHARACTERS allow."""
    batch: list[Example | UnreadableRow] = []
    characters = 0
    for row in rows:
        batch.append(row)
        if isinstance(row, Example):
            characters += row.characters
        if len(batch) == BATCH_RECORDS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _earliest(one: datetime | None, other: datetime | None) -> datetime | None:
    return min((moment for moment in (one, other) if moment is not None), default=None)


class _Notes:
    """The first MAX_NOTES notes, how many more there were, and a last one about the whole set."""

    def __init__(self) -> None:
        self._kept: list[str] = []
        self._more = 0
        self._last: tuple[str, ...] = ()

    def extend(self, notes: list[str]) -> None:
        room = MAX_NOTES - len(self._kept)
        self._kept += notes[:room]
        self._more += max(0, len(notes) - room)

    def add_last(self, note: str | None) -> None:
        self._last = () if note is None else (note,)

    def all(self) -> tuple[str, ...]:
        return (*self._kept, *((f"{self._more} more",) if self._more else ()), *self._last)
