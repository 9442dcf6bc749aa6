"""Columns of the findings table: everything that a rule may look at, and no text of a record.

Ids and texts appear only as HMAC-SHA256 under a key that never leaves the silo, so nobody else can
test a guess against them. Licence, label and language are what the data say about a record and stay
in the silo like the rest of the table. An unreadable row has only `row`, `record_id`, `readable`
and `usable`. Lengths are of what carries no loss in the record's form (NULL where all of it does),
and of what does. Integer columns hold counts, per-mille shares or row numbers; `repeats`,
`leaks_with` and `same_id_as` are the row that a record repeats, leaks into, or shares its id with.
`opt_out_stated` and `licence_contradicted` are phrases of this program, about what a file states;
`image_digest` is of the SHA-256 of the bytes that were checked.
"""

from typing import Literal

ColumnType = Literal["INTEGER", "TEXT", "BOOLEAN"]

TABLE = "findings"
SUMMARY = "summary"

COLUMNS: dict[str, ColumnType] = {
    "row": "INTEGER",
    "readable": "BOOLEAN",
    "record_id": "TEXT",
    "subject_id": "TEXT",
    "text_digest": "TEXT",
    "prompt_characters": "INTEGER",
    "answer_characters": "INTEGER",
    "is_empty": "BOOLEAN",
    "has_control_tokens": "BOOLEAN",
    "licence": "TEXT",
    "licence_allowed": "BOOLEAN",
    "licence_agrees": "BOOLEAN",
    "licence_contradicted": "TEXT",
    "opted_out": "BOOLEAN",
    "opt_out_stated": "TEXT",
    "opt_out_evidence": "BOOLEAN",
    "copyright_chain": "INTEGER",
    "copyright_coverage": "INTEGER",
    "copyright_hit": "BOOLEAN",
    "personal_data": "TEXT",
    "has_personal_data": "BOOLEAN",
    "split": "TEXT",
    "label": "TEXT",
    "language": "TEXT",
    "consent": "BOOLEAN",
    "synthetic": "BOOLEAN",
    "image_refused": "TEXT",
    "image_digest": "TEXT",
    "is_duplicate": "BOOLEAN",
    "is_near_duplicate": "BOOLEAN",
    "duplicate_cluster": "INTEGER",
    "repeats": "INTEGER",
    "leaks": "BOOLEAN",
    "leaks_with": "INTEGER",
    "same_id_as": "INTEGER",
    "usable": "BOOLEAN",
    "usable_text": "TEXT",
    "usable_subject": "TEXT",
    "usable_split": "TEXT",
}
"""In the order of the table. The last eleven follow from the whole set, once every row is known;
the last three are those of a usable row and NULL in any other, to count what is trained on."""

WHOLE_SET = (
    "is_duplicate",
    "is_near_duplicate",
    "duplicate_cluster",
    "repeats",
    "leaks",
    "leaks_with",
    "same_id_as",
    "usable",
    "usable_text",
    "usable_subject",
    "usable_split",
)
PER_RECORD = tuple(name for name in COLUMNS if name not in WHOLE_SET)

SUMMARY_COLUMNS: dict[str, ColumnType] = {
    "majority_per_mille": "INTEGER",
    "psi_thousandths": "INTEGER",
}
"""One row about the whole set; NULL where there are no labels, or nothing to compare with."""
