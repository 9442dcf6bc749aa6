"""A synthetic set held against this silo's own records, in the silo; see `data_contracts.novelty`.

The silo's records are those that its contract allows, in the splits that training reads.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from data_contracts.dataset.forms.lines import form_of_file, read_lines
from data_contracts.dataset.novelty.set_findings import (
    NoveltyLimits,
    OwnRecords,
    SetFindings,
    find_in_set,
)
from data_contracts.errors import DataStewardError
from silo_agent.gate.check_display import require_passed
from silo_agent.gate.contract_gate import ContractGate
from silo_agent.gate.splits import Splits

MOST_RECORDS = 200_000
MOST_BYTES = 1 << 30


def check_set(gate: ContractGate, path: Path, limits: NoveltyLimits) -> SetFindings:
    """Hold the records of the file `path` against those of the silo.

    Raises DataStewardError for a file that is no set of records, or too large, and
    SiloOperatorError where the silo's own data do not keep their contract.
    """
    texts = texts_of_set(path)
    outcome = gate.check()
    require_passed(outcome)
    own = own_records(gate.splits(outcome.findings_digest))
    return find_in_set(texts, own, limits, gate.registries())


def own_records(splits: Splits) -> OwnRecords:
    """All texts of both splits, and of which subject those of training are."""
    units = np.fromfile(splits.units, dtype="<u4").tolist()
    return OwnRecords(tuple(_texts(splits.train)), units, tuple(_texts(splits.heldout)))


def texts_of_set(path: Path) -> tuple[str, ...]:
    """Everything that is said in each record of a set; raises DataStewardError."""
    try:
        size = path.stat().st_size
        texts = tuple(_texts(path)) if size <= MOST_BYTES else ()
    except OSError as error:
        raise _unfit(path, error.strerror or "it cannot be read") from None
    if size > MOST_BYTES or len(texts) > MOST_RECORDS:
        raise _unfit(path, f"{size:,} bytes" if size > MOST_BYTES else f"{len(texts):,} records")
    return texts


def kept_rows(path: Path, findings: SetFindings) -> Iterable[bytes]:
    """The lines of a set whose records break no rule about single texts."""
    caught, row = findings.caught(), 0
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                row += 1
                if row not in caught:
                    yield line.rstrip(b"\r\n") + b"\n"


def _texts(path: Path) -> Iterable[str]:
    form = form_of_file(path)
    return ("\n".join(form.said(record)) for record, _ in read_lines(path, form))


def _unfit(path: Path, found: str) -> DataStewardError:
    return DataStewardError(
        f"set {path.name}",
        expected=f"a file of at most {MOST_RECORDS:,} records and {MOST_BYTES:,} bytes",
        found=found,
        action="name a file of records, one JSON object a line; a larger set in parts",
    )
