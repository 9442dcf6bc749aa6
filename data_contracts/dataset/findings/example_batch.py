"""The findings of one batch of examples: every detector sees it, one row per example comes out.

Detectors that work on arrays (copyright, shingles) see all texts of a batch at once. What a text
says never goes further than this module: rows hold keyed digests, counts and flags, and a note
names a row, never a value.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from data_contracts.dataset.control_tokens import spells_control_token
from data_contracts.dataset.copyright.overlap import MIN_CHAIN, find_overlap
from data_contracts.dataset.examples import Example, UnreadableRow
from data_contracts.dataset.findings.checks import Checks
from data_contracts.dataset.findings.columns import PER_RECORD
from data_contracts.dataset.findings.keyed import Keyed
from data_contracts.dataset.findings.splits import split_of
from data_contracts.dataset.licence_policy import NO_ASSERTION
from data_contracts.dataset.near_duplicates import band_keys, signatures
from data_contracts.dataset.opt_out import UNREADABLE, judge_opt_out, stated_by_columns
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
    batch: Sequence[Example | UnreadableRow], checks: Checks, keyed: Keyed
) -> BatchFindings:
    """Findings of `batch`, in its order."""
    found = BatchFindings(last_row=batch[-1].row)
    examples = [row for row in batch if isinstance(row, Example)]
    texts = ["\n".join(checks.form.texts(example)) for example in examples]
    words = hash_words(texts)
    overlaps = find_overlap(words, checks.references.registries)
    personal = checks.personal_data.scan(texts)
    _add_shingles(found, examples, words)
    for position, example in enumerate(examples):
        judged = _ExampleRow(example, checks, keyed, found)
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


def _add_shingles(found: BatchFindings, examples: Sequence[Example], words: WordHashes) -> None:
    """Signatures and band keys; SQLite's integers are signed, which changes no comparison.

    Pictures have none: what is said of two of them may be the same, and they are two records.
    """
    signed = signatures(words)
    bands = band_keys(signed).view("<i8")
    encoded = signed.astype("<u4", copy=False)
    for position, example in enumerate(examples):
        if example.image is not None:
            continue
        found.signatures.append((example.row, encoded[position].tobytes()))
        found.bands += [(key, example.row) for key in bands[position].tolist()]


class _ExampleRow:
    """One example's row under construction; `found` collects what is counted and noted."""

    def __init__(
        self, example: Example, checks: Checks, keyed: Keyed, found: BatchFindings
    ) -> None:
        self._checks, self._found, self._keyed = checks, found, keyed
        path, form = example.image, checks.form
        self._image = None if path is None else checks.images.judge(example, path)
        if self._image is not None:
            example = replace(example, image_sha256=self._image.sha256)
        self._example = example
        prompt_characters, answer_characters = form.lengths(example)
        self._values: dict[str, Any] = {
            "row": example.row,
            "readable": True,
            "record_id": keyed("id", example.id),
            "subject_id": keyed("subject", example.subject),
            "text_digest": keyed("text", *form.identity(example)),
            "prompt_characters": prompt_characters,
            "answer_characters": answer_characters,
            "split": example.split or split_of(example.subject),
            "label": example.label,
            "language": example.language,
            "consent": example.consent,
            "synthetic": example.synthetic,
        }
        self._empty()
        self._control_tokens()
        self._licence()
        self._picture()
        self._opt_out()

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
        form = self._checks.form
        empty = form.is_empty(self._example)
        self._values["is_empty"] = empty
        if empty:
            self._note(form.empty_words)

    def _control_tokens(self) -> None:
        spelled = any(map(spells_control_token, self._checks.form.texts(self._example)))
        self._values["has_control_tokens"] = spelled
        if spelled:
            self._note("it spells a control token of a language model")

    def _licence(self) -> None:
        licence = self._example.licence
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
        against = self._checks.beside.against(licence)
        self._values["licence_contradicted"] = against
        if against is not None:
            self._note(f"its licence {licence[:80]!r} is not that of the pictures: {against}")

    def _opt_out(self) -> None:
        example, policy = self._example, self._checks.contract.terms.opt_out
        judged = judge_opt_out(
            example.tdm_reservation,
            example.tdm_policy,
            example.tdm_checked_at,
            now=self._checks.now,
            max_age_days=policy.max_age_days,
        )
        # A reservation that cannot be read may be one: silence is not permission, nor is noise.
        unreadable = judged.rule == UNREADABLE and bool((example.tdm_reservation or "").strip())
        stated = (*stated_by_columns(example), *(self._image.opt_outs if self._image else ()))
        self._values["opt_out_stated"] = "; ".join(stated) or None
        self._values["opted_out"] = judged.opted_out or unreadable or bool(stated)
        self._values["opt_out_evidence"] = judged.evidence
        until = judged.evidence_until
        if until is not None and (self._found.evidence_until or until) >= until:
            self._found.evidence_until = until
        if judged.opted_out or unreadable:
            self._note("its owner has opted out of text and data mining, or may have")
        if stated:
            self._note(f"it states that it is not for training: {'; '.join(stated)}")

    def _picture(self) -> None:
        if self._image is None:
            return
        self._values["image_refused"] = self._image.refused
        if self._image.sha256 is not None:
            self._values["image_digest"] = self._keyed("image", self._image.sha256)
        if self._image.refused:
            self._note(f"image refused: {self._image.refused}")

    def _note(self, reason: str) -> None:
        self._found.notes.append(f"row {self._example.row}: {reason}")
