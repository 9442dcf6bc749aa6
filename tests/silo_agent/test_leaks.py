"""A canary planted in everything that a data set holds is in nothing that leaves the silo.

Checked are the outcome that verdicts are made of, the verdict itself, the kept files, what the
child process says, and every exception; `operator_notes` alone may name a licence as it stands.
"""

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_contracts.errors import ConsortiaError
from silo_agent.gate.outcome import GateOutcome
from tests.data_contracts.dataset.contract_samples import CONTRACT, replaced, sample_record
from tests.silo_agent.gate_samples import SampleSilo, failing

CANARY = "Canary7f3a"
FIELDS = ("id", "subject", "prompt", "answer", "source")


def planted(count: int = 40, **changes: Any) -> list[dict[str, Any] | bytes]:
    """Records with the canary in every field."""
    texts = [{field: f"{CANARY} {field} {n}" for field in FIELDS} for n in range(count)]
    return [sample_record(n, **(text | changes)) for n, text in enumerate(texts)]


def leaves(outcome: GateOutcome) -> str:
    """Everything of an outcome but the operator's notes."""
    return outcome.model_copy(update={"operator_notes": ()}).model_dump_json()


BAD_SETS: dict[str, list[dict[str, Any] | bytes]] = {
    "good": planted(),
    "licences": planted(licence=CANARY),
    "expressions": planted(licence=f"MIT OR {CANARY}"),
    "references": planted(licence=f"LicenseRef-{CANARY}"),
    "deep expressions": planted(licence="(" * 50 + CANARY),
    "personal data": planted(answer=f"Mail {CANARY}@example.org, card 4111 1111 1111 1111"),
    "broken rows": [*planted(), f'{{"{CANARY}'.encode(), f'["{CANARY}"]'.encode()],
    "wrong types": [*planted(), *planted(3, answer=7), *planted(3, prompt=[CANARY])],
    "wrong encoding": [*planted(), f'{{"id": "{CANARY}ä"}}'.encode("latin-1")],
    "surrogates": [*planted(), *planted(3, answer=f"{CANARY}\ud800")],
    "repetitions": [*planted(), *planted()],
    "a huge record": [*planted(), *planted(1, answer=CANARY * 200_000)],
}


@pytest.mark.parametrize("records", BAD_SETS.values(), ids=list(BAD_SETS))
def test_no_outcome_holds_the_canary(
    tmp_path: Path, records: list[dict[str, Any] | bytes], caplog: pytest.LogCaptureFixture
) -> None:
    silo = SampleSilo(tmp_path)
    with caplog.at_level(logging.DEBUG):
        silo.write_records(records)
        outcome = silo.check()
    assert CANARY.lower() not in leaves(outcome).lower()
    assert CANARY.lower() not in caplog.text.lower()
    tables = [p.read_bytes() for p in (tmp_path / "work").rglob("*") if p.is_file()]
    licence_is_canary = any(CANARY in str(r.get("licence")) for r in records if isinstance(r, dict))
    if not licence_is_canary:
        assert not any(CANARY.encode() in table for table in tables)


def damaged_parquet(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({name: [f"{CANARY} {n}" for n in range(50)] for name in (*FIELDS, "licence")})
    pq.write_table(table, path)
    path.write_bytes(path.read_bytes()[:-200])


def mixed_parquet(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: [f"{CANARY} {n}" for n in range(50)] for name in (*FIELDS, "licence")}
    pq.write_table(pa.table(columns | {"answer": list(range(50))}), path)


def other_columns(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({CANARY: [CANARY]}), path)


@pytest.mark.parametrize("damage", [damaged_parquet, mixed_parquet, other_columns])
def test_no_fault_of_a_reader_holds_the_canary(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    silo = SampleSilo(tmp_path, replaced(("format: jsonl", "format: parquet")))
    silo.data_file.parent.mkdir(parents=True)
    damage(silo.data_file)
    with caplog.at_level(logging.DEBUG):
        outcome = silo.check()
    assert not outcome.passed
    assert CANARY.lower() not in (repr(outcome) + caplog.text).lower()


def test_a_changed_set_raises_without_the_canary(tmp_path: Path) -> None:
    silo = SampleSilo(tmp_path)
    silo.write_records(planted())
    digest = silo.check().findings_digest
    silo.write_records(planted(39))
    with pytest.raises(ConsortiaError) as error:
        silo.gate.splits(digest)
    assert CANARY not in str(error.value)
    assert error.value.__context__ is None or CANARY not in repr(error.value.__context__)


def test_the_child_process_says_nothing_of_the_data(tmp_path: Path) -> None:
    """What the agent reads of its child is the outcome; both streams are looked through."""
    silo = SampleSilo(tmp_path, CONTRACT)
    silo.write_config()
    silo.write_records([*planted(), b"broken"])
    command = [sys.executable, "-m", "silo_agent.gate.check_child", str(tmp_path)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout
        assert child.stderr
        out, err = child.stdout.read(), child.stderr.read()
    assert CANARY.lower() not in (out + err).lower()
    line = next(line for line in out.splitlines() if line.startswith("outcome "))
    outcome = GateOutcome.model_validate(
        GateOutcome.model_validate_json(line.removeprefix("outcome "))
    )
    assert failing(outcome) == ["records.readable"]
