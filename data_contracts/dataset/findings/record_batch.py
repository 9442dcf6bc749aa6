"""The findings of one batch of records: every detector sees it, one row per record comes out.

Detectors that work on arrays (copyright, shingles) see all texts of a batch at once. What a text
says never goes further than this module: rows hold keyed digests, counts and flags, and a note
names a row, never a value.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from data_contracts.dataset.copyright.overlap import MIN_CHAIN, find_overlap
from data_contracts.dataset.findings.checks import Checks
from data_contracts.dataset.findings.columns import PER_RECORD
from data_contracts.dataset.findings.keyed import Keyed
from data_contracts.dataset.findings.splits import split_of
from data_contracts.dataset.licence_policy import NO_ASSERTION
from data_contracts.dataset.near_duplicates import band_keys, signatures
from data_contracts.dataset.opt_out import UNREADABLE, judge_opt_out
from data_contracts.dataset.records import DataRecord, UnreadableRow
from data_contracts.dataset.word_hashes import WordHashes, hash_words


@dataclass
class BatchFindings:
    """What one batch adds to the table, and what is only counted or noted."""

    last_row: int
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    signatures: list[tuple[int, bytes]] = field(default_factory=list)
    bands: list[tuple[int, int]] = field(default_factory=list)
    licence_ids: list[str] = field(default_factory=list)
    evidence_until: datetime | None = None
    notes: list[str] = field(default_factory=list)


def judge_batch(
    batch: Sequence[DataRecord | UnreadableRow], checks: Checks, keyed: Keyed
) -> BatchFindings:
    """Findings of `batch`, in its order."""
    found = BatchFindings(last_row=batch[-1].row)
    records = [row for row in batch if isinstance(row, DataRecord)]
    texts = [f"{record.prompt}\n{record.answer}" for record in records]
    words = hash_words(texts)
    overlaps = find_overlap(words, checks.references.registries)
    personal = checks.personal_data.scan(texts)
    _add_shingles(found, records, words)
    for position, record in enumerate(records):
        judged = _Record(record, checks, keyed, found)
        judged.copyright(overlaps.chains[position], overlaps.coverage_per_mille[position])
        judged.personal_data(personal[position])
        found.rows.append(judged.row())
    for row in batch:
        if isinstance(row, UnreadableRow):
            _add_unreadable(found, row, keyed)
    return found


def _add_unreadable(found: BatchFindings, row: UnreadableRow, keyed: Keyed) -> None:
    found.notes.append(f"row {row.row}: unreadable, {row.reason}")
    found.licence_ids.append(NO_ASSERTION)
    values = {"row": row.row, "readable": False, "record_id": keyed("row", str(row.row))}
    found.rows.append(tuple(values.get(name) for name in PER_RECORD))


def _add_shingles(found: BatchFindings, records: Sequence[DataRecord], words: WordHashes) -> None:
    """Signatures and band keys; SQLite's integers are signed, which changes no comparison."""
    signed = signatures(words)
    bands = band_keys(signed).view("<i8")
    encoded = signed.astype("<u4", copy=False)
    for position, record in enumerate(records):
        found.signatures.append((record.row, encoded[position].tobytes()))
        found.bands += [(key, record.row) for key in bands[position].tolist()]


class _Record:
    """One record's row under construction; `found` collects what is counted and noted."""

    def __init__(
        self, record: DataRecord, checks: Checks, keyed: Keyed, found: BatchFindings
    ) -> None:
        self._record, self._checks, self._found = record, checks, found
        self._values: dict[str, Any] = {
            "row": record.row,
            "readable": True,
            "record_id": keyed("id", record.id),
            "subject_id": keyed("subject", record.subject),
            "text_digest": keyed("text", record.prompt, record.answer),
            "prompt_characters": len(record.prompt),
            "answer_characters": len(record.answer),
            "split": record.split or split_of(record.subject),
            "label": record.label,
            "language": record.language,
            "consent": record.consent,
            "synthetic": record.synthetic,
        }
        self._empty()
        self._licence()
        self._opt_out()
        self._image()

    def row(self) -> tuple[Any, ...]:
        """The values of PER_RECORD, in its order."""
        return tuple([self._values.get(name) for name in PER_RECORD])

    def copyright(self, chain: int, coverage_per_mille: int) -> None:
        """Longest chain of a registry's tiles, and share of words in chains."""
        policy = self._checks.contract.terms.copyright
        hit = bool(chain >= MIN_CHAIN and coverage_per_mille > policy.max_coverage_per_mille)
        self._values["copyright_chain"] = int(chain)
        self._values["copyright_coverage"] = int(coverage_per_mille)
        self._values["copyright_hit"] = hit
        if hit:
            self._note(f"repeats {chain} tiles or more of a copyright registry")

    def personal_data(self, kinds: dict[str, int]) -> None:
        """Kinds found, with how often."""
        self._values["has_personal_data"] = bool(kinds)
        if kinds:
            named = ",".join(sorted(kinds))
            self._values["personal_data"] = named
            self._note(f"personal data: {named}")

    def _empty(self) -> None:
        record = self._record
        is_caption = record.image is not None
        empty = not record.answer.strip() or not (is_caption or record.prompt.strip())
        self._values["is_empty"] = empty
        if empty:
            self._note("prompt or answer is empty")

    def _licence(self) -> None:
        licence = self._record.licence
        judged = self._checks.licences.judge(licence)
        self._values["licence"] = licence or NO_ASSERTION
        self._values["licence_allowed"] = judged.allowed
        self._found.licence_ids += judged.ids
        if not judged.allowed:
            self._note(f"licence {licence[:80]!r} is not allowed: {judged.rule}")
        agrees = self._checks.licence_agrees(licence)
        self._values["licence_agrees"] = agrees
        if agrees is False:
            self._note("its licence is another than the package claims")

    def _opt_out(self) -> None:
        record, policy = self._record, self._checks.contract.terms.opt_out
        judged = judge_opt_out(
            record.tdm_reservation,
            record.tdm_policy,
            record.tdm_checked_at,
            now=self._checks.now,
            max_age_days=policy.max_age_days,
        )
        # A reservation that cannot be read may be one: silence is not permission, nor is noise.
        unreadable = judged.rule == UNREADABLE and bool((record.tdm_reservation or "").strip())
        self._values["opted_out"] = judged.opted_out or unreadable
        self._values["opt_out_evidence"] = judged.evidence
        until = judged.evidence_until
        if until is not None and (self._found.evidence_until or until) >= until:
            self._found.evidence_until = until
        if judged.opted_out or unreadable:
            self._note("its owner has opted out of text and data mining, or may have")

    def _image(self) -> None:
        if self._record.image is not None:
            refused = self._checks.images.refusal(self._record)
            self._values["image_refused"] = refused
            if refused:
                self._note(f"image refused: {refused}")

    def _note(self, reason: str) -> None:
        self._found.notes.append(f"row {self._record.row}: {reason}")
