"""After a restore the ledger knows at least what this silo has signed."""

from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from data_contracts.protocol.records import Verdict
from infra.storage.config import StorageSection
from silo_agent.config import SiloConfig
from silo_agent.home.backup import kept_files
from silo_agent.privacy.ledger import MARK_NAME, PRIVACY, PrivacyLedger, lifetime_of
from silo_agent.privacy.ledger_lines import Charged, LedgerLines, statement_of
from silo_agent.privacy.taking_back import take_back
from tests.silo_agent.privacy.ledger_samples import (
    FINDINGS,
    JOB,
    NOW,
    charged,
    digest,
    written,
)

LATER = NOW + timedelta(days=1)


def verdicts_of(ledger: PrivacyLedger) -> list[Verdict]:
    """A verdict for each charge, as they lie in storage."""
    return [
        Verdict(
            federation="oncology",
            issued_at=each.at,
            run=each.run,
            round=each.round,
            attempt=each.attempt,
            plan_digest=each.plan_digest,
            silo="bank-a",
            contract_digest=digest(8),
            findings_digest=FINDINGS,
            passed=True,
            outcomes=(),
            licences=(),
            expires_at=LATER,
            privacy=statement_of(line, each),
        )
        for line, each in ledger.read().charges()
    ]


def charges(ledger: PrivacyLedger) -> list[Charged]:
    return [each for _, each in ledger.read().charges()]


def total(ledger: PrivacyLedger) -> Decimal:
    lines = ledger.read()
    return lifetime_of(lines, "ward", Decimal("0.00001"))


def older_home(home: Path, plans: int) -> PrivacyLedger:
    return written(home, plans)


def test_charges_that_the_ledger_lost_come_back(tmp_path: Path) -> None:
    newest = written(tmp_path / "newest", 3)
    signed = verdicts_of(newest)
    older = older_home(tmp_path / "older", 1)
    kept = verdicts_of(older)
    assert take_back(older, [*kept, *signed[1:]], LATER) == 2
    assert total(older) == total(newest)
    assert [each.plan_digest for each in charges(older)] == [digest(n) for n in (1, 2, 3)]
    older.read([*(v.privacy for v in signed[1:] if v.privacy)])
    assert take_back(older, [*kept, *signed[1:]], LATER) == 0, "once"


def test_what_came_back_is_charged_anew_before_it_is_trained_on(tmp_path: Path) -> None:
    newest = written(tmp_path / "newest", 1)
    ledger = PrivacyLedger(tmp_path / "home")
    take_back(ledger, verdicts_of(newest), LATER)
    ledger.secret_for(digest(1), FINDINGS, JOB, LATER)
    assert [each.entries for each in charges(ledger)] == [1, 2], "its secret is in no backup"


def test_the_newest_verdict_alone_brings_back_the_total_and_the_count(tmp_path: Path) -> None:
    newest = written(tmp_path / "newest", 4)
    ledger = PrivacyLedger(tmp_path / "home")
    take_back(ledger, verdicts_of(newest)[-1:], LATER)
    assert len(charges(ledger)) >= 4
    assert total(ledger) >= total(newest)


def test_a_ledger_that_is_gone_is_made_again_of_its_mark(tmp_path: Path) -> None:
    ledger = written(tmp_path, 3)
    before = total(ledger)
    ledger.path.unlink()
    take_back(ledger, [], LATER)
    assert total(ledger) >= before
    assert len(charges(ledger)) >= 3


def test_a_broken_ledger_is_kept_aside_and_counts_as_far_as_it_is_sound(tmp_path: Path) -> None:
    ledger = written(tmp_path, 3)
    before, data = total(ledger), ledger.path.read_bytes()
    broken = data.replace(b'"round":2', b'"round":9')
    ledger.path.write_bytes(broken)
    take_back(ledger, [], LATER)
    assert total(ledger) >= before
    aside = list((tmp_path / PRIVACY).glob("ledger-broken-*.jsonl"))
    assert [path.read_bytes() for path in aside] == [broken]


def test_a_sound_ledger_stays_as_it_is(tmp_path: Path) -> None:
    ledger = written(tmp_path, 2)
    signed, data = verdicts_of(ledger), ledger.path.read_bytes()
    assert take_back(ledger, signed, LATER) == 0
    assert ledger.path.read_bytes() == data


def test_a_home_without_private_rounds_gets_no_ledger(tmp_path: Path) -> None:
    assert take_back(PrivacyLedger(tmp_path), [], NOW) == 0
    assert not (tmp_path / PRIVACY).exists()
    assert not (tmp_path / MARK_NAME).exists()


def test_other_populations_are_left_alone(tmp_path: Path) -> None:
    ledger = written(tmp_path / "home", 1)
    lines = ledger.read()
    ledger.charge(lines, charged(lines, 2, population="clinic"))
    signed = verdicts_of(written(tmp_path / "newest", 2))
    take_back(ledger, signed[1:], LATER)
    assert len([each for each in charges(ledger) if each.population == "clinic"]) == 1


class _Full(PrivacyLedger):
    """A disk that is full after so many lines."""

    def write(self, lines: LedgerLines, entry: Any) -> LedgerLines:
        if len(lines.lines) >= 2:
            raise OSError("full")
        return super().write(lines, entry)


def test_taking_back_that_ends_in_the_middle_loses_no_total(tmp_path: Path) -> None:
    ledger = written(tmp_path, 3)
    before = total(ledger)
    ledger.path.unlink()
    with pytest.raises(OSError, match="full"):
        take_back(_Full(tmp_path), [], LATER)
    take_back(ledger, [], LATER)
    assert total(ledger) >= before
    assert len(charges(ledger)) >= 3


def test_a_backup_has_ledger_and_mark_and_no_secret(tmp_path: Path) -> None:
    ledger = written(tmp_path, 1)
    config = SiloConfig(
        silo="bank-a",
        federation="oncology",
        storage=StorageSection(endpoint_url="http://127.0.0.1:1"),
        home=tmp_path,
    )
    kept = {path.relative_to(tmp_path).as_posix() for path in kept_files(config).paths}
    assert {"privacy/ledger.jsonl", "privacy-mark.json"} <= kept
    assert not any("secrets" in path for path in kept)
    assert ledger.path.exists()
