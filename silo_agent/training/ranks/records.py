"""The training records as the data gate wrote them, one after the other."""

import json
from collections.abc import Iterator
from pathlib import Path

from data_contracts.errors import DataStewardError
from data_contracts.shown_text import is_blank


def read_records(path: Path) -> Iterator[tuple[str, str]]:
    """(prompt, answer) of every record of a JSONL file; empty lines are none.

    Raises DataStewardError when the file has no records or a line is not a record; the message
    counts records from 1 and never says what is in them.
    """
    number = 0
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                number += 1
                yield _record(path, number, line)
    if not number:
        raise bad_records(path.name, "an empty file")


def bad_records(name: str, found: str) -> DataStewardError:
    """The one message for a file of records that cannot be trained with."""
    return DataStewardError(
        f"training records {name}",
        expected="one JSON object per line with the non-empty texts `prompt` and `answer`",
        found=found,
        action="correct the data set or the fields that the data contract names for them",
    )


def _record(path: Path, number: int, line: bytes) -> tuple[str, str]:
    try:
        record = json.loads(line)
        prompt, answer = record["prompt"], record["answer"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise bad_records(path.name, f"something else in record {number}") from None
    texts = (prompt, answer)
    if not all(isinstance(text, str) and not is_blank(text) for text in texts):
        raise bad_records(path.name, f"an empty or non-text field in record {number}")
    return prompt, answer
