"""The glossary has every record, and the fields that it names are those of the records."""

import re

import pytest

from data_contracts.protocol.records import RECORD_TYPES
from tests.docs.pages import ROOT, inline_code, text_of

GLOSSARY = ROOT / "docs" / "glossary.md"
TABLE_OF_RECORDS = ROOT / "data_contracts" / "README.md"
SHORT = {"plan": "round-plan", "report": "round-report"}
_FIELD = re.compile(r"([a-z]+)\.([a-z_]+)")


def fields_named() -> list[tuple[str, str]]:
    """Every `record.field` of the glossary, by the record's kind."""
    found = [_FIELD.fullmatch(code) for code in inline_code(GLOSSARY)]
    named = [(SHORT.get(match[1], match[1]), match[2]) for match in found if match]
    return [(kind, name) for kind, name in named if kind in RECORD_TYPES]


@pytest.mark.parametrize("kind", sorted(RECORD_TYPES))
def test_every_record_is_there(kind: str) -> None:
    assert f"`{kind}`" in text_of(GLOSSARY)
    assert re.search(rf"^\|[^|]*\b{kind}\b", text_of(TABLE_OF_RECORDS), re.MULTILINE)


@pytest.mark.parametrize(("kind", "field"), fields_named())
def test_a_field_that_is_named_exists(kind: str, field: str) -> None:
    assert field in RECORD_TYPES[kind].model_fields


def test_no_word_has_two_meanings() -> None:
    """But for `held`, of which the glossary says both."""
    rows = re.findall(r"^\| ([^|]+?) \|", text_of(GLOSSARY), re.MULTILINE)
    words = [word for row in rows for word in row.split(", ") if row not in ("word", "---")]
    assert sorted(words) == sorted(set(words))
    assert len(words) > 70
