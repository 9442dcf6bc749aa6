"""Why one row breaks a rule, in words, from what the findings table holds of it.

A reason may repeat what a record states of itself (its licence, its language) and nothing of its
texts. It is for people inside the silo.
"""

from collections.abc import Callable, Mapping
from typing import Any

from data_contracts.dataset.contract import DataContract
from data_contracts.dataset.contract.quality_rules import QualityRule
from data_contracts.dataset.licence_policy import NO_ASSERTION, NOT_LISTED, LicencePolicy
from data_contracts.dataset.personal_data.kinds import MEANINGS
from data_contracts.dataset.suite.rule_limits import WORDS_OF_COLUMNS, value_words
from data_contracts.licences.expression import NOT_STATED, UNKNOWN, UNKNOWN_EXCEPTION, UNREADABLE
from data_contracts.licences.uses import (
    CONDITIONAL,
    NO_AI,
    NO_DERIVATIVES,
    NO_TERMS,
    NON_COMMERCIAL,
)

Row = Mapping[str, Any]
"""Columns of the findings table by name."""

_LICENCE_REASONS = {
    NOT_LISTED: "not on the contract's list",
    NOT_STATED: "silence is not permission",
    UNREADABLE: "cannot be read as a licence",
    UNKNOWN: "no known licence",
    UNKNOWN_EXCEPTION: "with an exception that nobody knows",
    NO_TERMS: "nobody knows what it allows",
    NO_AI: "excludes training",
    NO_DERIVATIVES: "allows no derivatives, and training makes one",
    NON_COMMERCIAL: "allows no commercial use",
    CONDITIONAL: "nobody has accepted its conditions",
}
_IMAGE_REASONS = {
    "absent": "there is no such picture any more",
    "too_large": "the picture's file is larger than 32 MiB",
    "too_many_pixels": "the picture has more than 50 million pixels",
    "too_small": "a side of the picture has fewer than 16 pixels",
    "unknown_format": "the picture is none: expected PNG, JPEG, WebP or GIF",
    "undecodable": "the picture is damaged",
    "listed": "the picture is on the list",
    "unsafe": "the picture is unsafe by its scores",
    "watermark": "the picture has a watermark by its score",
}
_FIXED = {
    "records.readable": "is no record",
    "text.control_tokens": "spells what steers a language model, such as the end of a turn",
    "opt_out.evidence": "no evidence, or none that is recent enough",
    "consent.given": "says that there is no consent",
    "duplicates.near": "nearly the same text",
}


class RowReasons:
    """Reasons under one `contract`, judged by its `licences`."""

    def __init__(self, contract: DataContract, licences: Callable[[], LicencePolicy]) -> None:
        self._terms, self._licences = contract.terms, licences
        self._form = contract.source.record_form

    def reason(self, rule: QualityRule, row: Row, other: Row | None) -> str:
        """Why `row` breaks `rule`; `other` is the row that it leaks into, if it does."""
        if (fixed := _FIXED.get(rule.rule)) is not None:
            return fixed
        match rule.rule:
            case "records.not_empty":
                return self._form.empty_words
            case "licence.allowed":
                return self._licence(row["licence"])
            case "licence.claims_agree":
                return f"states {value_words(row['licence'])}, not {self._terms.package_licence}"
            case "licence.of_pictures":
                stated = value_words(row["licence"])
                return f"states {stated}, and beside the pictures: {row['licence_contradicted']}"
            case "opt_out.none":
                return _opt_out(row["opt_out_stated"])
            case "copyright.overlap":
                return f"{row['copyright_coverage']:,} of 1,000 words are in a registered work"
            case "personal_data.limit":
                return _kinds(row["personal_data"])
            case "duplicates.exact":
                return "the same text" if row["image_digest"] is None else "the same pair"
            case "split.no_leakage":
                return _leak(row, other)
            case "images.allowed":
                return _IMAGE_REASONS.get(row["image_refused"], "the picture is refused")
        return _value(rule, row)

    def _licence(self, licence: str) -> str:
        against = _LICENCE_REASONS.get(self._licences().judge(licence).rule or "", "not allowed")
        if licence in ("", NO_ASSERTION):
            return "states no licence"
        return f"states {value_words(licence)}: {against}"


def _kinds(named: str) -> str:
    return "; ".join(MEANINGS.get(kind, kind) for kind in named.split(","))


def _opt_out(stated: str | None) -> str:
    if stated is None:
        return "rights are reserved, or what it says of them cannot be read"
    return f"not for training, by {stated}"


def _leak(row: Row, other: Row | None) -> str:
    if other is None:
        return "the same text or subject"
    same_text = row["text_digest"] == other["text_digest"]
    if row["image_digest"] is not None and row["image_digest"] == other["image_digest"]:
        return "the same picture"
    if row["subject_id"] == other["subject_id"]:
        return "the same subject and text" if same_text else "the same subject"
    return "the same text" if same_text else "nearly the same text"


def _value(rule: QualityRule, row: Row) -> str:
    """What a contract's own rule looked at, and what is there."""
    column = rule.column or ""
    named, value = WORDS_OF_COLUMNS.get(column, column), row.get(column)
    if value is None:
        return f"{named}: not stated"
    if type(value) is int:
        return f"{named} of {value:,} {'character' if value == 1 else 'characters'}"
    return f"{named}: {value_words(value)}"
