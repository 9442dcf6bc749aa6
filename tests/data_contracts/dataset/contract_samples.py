"""Contract files and record files to test with, written out rather than mocked."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_contracts.dataset.contract import DataContract, parse_contract

CONTRACT = """\
apiVersion: v3.2.0
kind: DataContract
id: sample
version: 1.0.0
description:
  purpose: |
    Question answering
    Summaries
servers:
  - server: silo
    type: local
    path: sets/records.jsonl
    format: jsonl
schema:
  - name: records
    logicalType: object
    properties:
      - {name: id, logicalType: string}
      - {name: subject, logicalType: string}
      - {name: prompt, logicalType: string}
      - {name: answer, logicalType: string}
      - {name: licence, logicalType: string}
      - {name: source, logicalType: string}
    quality:
      - id: answer-length
        type: custom
        engine: great-expectations
        severity: critical
        implementation:
          type: expect_column_values_to_be_between
          kwargs:
            column: answer_characters
            max_value: 500
customProperties:
  - property: fl.licences
    value: [MIT, LicenseRef-Own]
  - property: fl.licenceTerms
    value:
      - id: LicenseRef-Own
        commercial: true
        derivatives: true
        shareAlike: false
        attribution: false
        noAi: false
        source: The house's own texts
  - property: fl.duplicates
    value: {maxExactPerMille: 100, maxNearPerMille: 1000, maxLeakingPerMille: 1000}
  - property: fl.minimumRecords
    value: 20
  - property: fl.minimumCohort
    value: 12
  - property: fl.duoCodes
    value: ["DUO:0000042"]
  - property: fl.expires
    value: "2030-01-01T00:00:00Z"
"""


def replaced(*changes: tuple[str, str]) -> str:
    """CONTRACT with each (old, new) replaced once; the old text must be there."""
    text = CONTRACT
    for old, new in changes:
        if old not in text:
            raise ValueError(f"not in the sample contract: {old}")
        text = text.replace(old, new, 1)
    return text


def sample_contract(*changes: tuple[str, str]) -> DataContract:
    """The parsed sample contract after the changes."""
    return parse_contract(replaced(*changes).encode(), "sample.yaml")


def sample_record(number: int, **changes: Any) -> dict[str, Any]:
    """A good record, with the changed fields; a field set to None is left out."""
    record = {
        "id": f"record-{number}",
        "subject": f"subject-{number}",
        "prompt": f"What is number {number}?",
        "answer": f"It is the number {number}.",
        "licence": "MIT",
        "source": "made for a test",
        **changes,
    }
    return {name: value for name, value in record.items() if value is not None}


def sample_records(count: int = 40) -> list[dict[str, Any]]:
    """`count` good records of distinct subjects and texts."""
    return [sample_record(number) for number in range(count)]


def write_lines(path: Path, lines: Iterable[dict[str, Any] | bytes]) -> Path:
    """A JSONL file of records, with raw bytes lines as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = (line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
    path.write_bytes(b"".join(line + b"\n" for line in encoded))
    return path
