"""What the ledger promises: charged once, never less, and never the same noise twice."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from data_contracts.errors import SiloOperatorError
from silo_agent.privacy.ledger import (
    MARK_NAME,
    PRIVACY,
    SECRETS,
    NotTrainedError,
    PrivacyLedger,
    higher_mark,
    lifetime_of,
    longer_ledger,
)
from silo_agent.privacy.ledger_lines import Charged, statement_of
from tests.silo_agent.privacy.ledger_samples import (
    FINDINGS,
    JOB,
    NOW,
    OTHER_JOB,
    charged,
    digest,
    written,
)


def secrets_of(home: Path) -> list[Path]:
    return sorted((home / PRIVACY / SECRETS).glob("*"))


def totals(ledger: PrivacyLedger) -> list[str]:
    return [str(each.epsilon_lifetime) for _, each in ledger.read().charges()]


def test_totals_rise_with_every_charge_and_say_how_many(tmp_path: Path) -> None:
    ledger = written(tmp_path, 3)
    lines = ledger.read()
    found = [each for _, each in lines.charges("ward")]
    assert [each.entries for each in found] == [1, 2, 3]
    rising = [each.epsilon_lifetime for each in found]
    assert rising == sorted(set(rising))
    assert rising[-1] == lifetime_of(lines, "ward", found[0].delta)
    assert found[0].epsilon == found[0].epsilon_lifetime


def test_a_statement_says_what_was_charged_and_names_its_line(tmp_path: Path) -> None:
    lines = written(tmp_path, 2).read()
    line, last = list(lines.charges())[-1]
    statement = statement_of(line, last)
    assert lines.knows(statement)
    assert (statement.population, statement.entries) == ("ward", 2)
    assert statement.epsilon_lifetime == last.epsilon_lifetime
    assert not lines.knows(statement.model_copy(update={"ledger_digest": digest(9)}))


def test_the_secret_is_private_random_and_not_in_the_ledger(tmp_path: Path) -> None:
    ledger = written(tmp_path, 1)
    path = ledger.secret_for(digest(1), FINDINGS, JOB, NOW)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    secret = path.read_bytes()
    assert len(secret) == 32
    assert secret.hex() not in ledger.path.read_text()
    other = written(tmp_path / "other", 1).secret_for(digest(1), FINDINGS, JOB, NOW)
    assert other.read_bytes() != secret


def test_the_same_training_finds_the_same_secret_and_is_charged_once(tmp_path: Path) -> None:
    ledger = written(tmp_path, 1)
    first = ledger.secret_for(digest(1), FINDINGS, JOB, NOW)
    kept = first.read_bytes()
    again = PrivacyLedger(tmp_path).secret_for(digest(1), FINDINGS, JOB, NOW)
    assert (again, again.read_bytes()) == (first, kept)
    assert len(list(ledger.read().charges())) == 1


def test_another_training_on_the_same_plan_is_charged_anew_with_another_secret(
    tmp_path: Path,
) -> None:
    ledger = written(tmp_path, 1)
    first = ledger.secret_for(digest(1), FINDINGS, JOB, NOW)
    kept = first.read_bytes()
    second = ledger.secret_for(digest(1), FINDINGS, OTHER_JOB, NOW)
    assert second.read_bytes() != kept
    assert not first.exists()
    charges = [each for _, each in ledger.read().charges()]
    assert [each.entries for each in charges] == [1, 2]
    assert charges[1].epsilon_lifetime > charges[0].epsilon_lifetime
    assert ledger.secret_for(digest(1), FINDINGS, OTHER_JOB, NOW) == second


def test_a_training_whose_secret_is_gone_is_charged_anew(tmp_path: Path) -> None:
    ledger = written(tmp_path, 1)
    ledger.secret_for(digest(1), FINDINGS, JOB, NOW).unlink()
    assert ledger.secret_for(digest(1), FINDINGS, JOB, NOW).exists()
    assert len(list(ledger.read().charges())) == 2


def test_another_training_over_the_budget_is_not_begun(tmp_path: Path) -> None:
    ledger = PrivacyLedger(tmp_path)
    lines = ledger.read()
    one = charged(lines, 1)
    ledger.charge(lines, one.model_copy(update={"epsilon_budget": one.epsilon}))
    first = ledger.secret_for(digest(1), FINDINGS, JOB, NOW)
    with pytest.raises(NotTrainedError) as error:
        ledger.secret_for(digest(1), FINDINGS, OTHER_JOB, NOW)
    assert error.value.refusal.rule == "policy.privacy_budget"
    assert ledger.secret_for(digest(1), FINDINGS, JOB, NOW) == first, "the one charged goes on"


def test_what_was_released_is_never_trained_again(tmp_path: Path) -> None:
    ledger = written(tmp_path, 1)
    ledger.secret_for(digest(1), FINDINGS, JOB, NOW)
    ledger.close(digest(1), digest(77), NOW)
    assert secrets_of(tmp_path) == [], "its noise can never be drawn again"
    for job in (JOB, OTHER_JOB):
        with pytest.raises(NotTrainedError) as error:
            ledger.secret_for(digest(1), FINDINGS, job, NOW)
        assert error.value.refusal.rule == "policy.privacy_replay"
    assert len(list(ledger.read().charges())) == 1


def test_closing_twice_writes_nothing_and_refunds_nothing(tmp_path: Path) -> None:
    ledger = written(tmp_path, 1)
    before = totals(ledger)
    ledger.close(digest(1), digest(77), NOW)
    data = ledger.path.read_bytes()
    ledger.close(digest(1), digest(77), NOW)
    assert ledger.path.read_bytes() == data
    assert totals(ledger) == before


def test_the_next_charge_closes_what_an_abandoned_plan_left(tmp_path: Path) -> None:
    ledger = written(tmp_path, 2)
    assert len(secrets_of(tmp_path)) == 1
    assert [each.plan_digest for _, each in ledger.read().open_charges()] == [digest(2)]


def test_nothing_is_trained_that_was_not_charged(tmp_path: Path) -> None:
    with pytest.raises(SiloOperatorError, match="no charge for the verdict"):
        written(tmp_path, 1).secret_for(digest(5), FINDINGS, JOB, NOW)


# What somebody, or a disk, may do to the files.


def _drop_last(ledger: PrivacyLedger, _: dict[str, bytes]) -> None:
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    ledger.path.write_bytes(b"".join(lines[:-1]))


def _older_copy(ledger: PrivacyLedger, older: dict[str, bytes]) -> None:
    ledger.path.write_bytes(older["ledger"])


def _remove(ledger: PrivacyLedger, _: dict[str, bytes]) -> None:
    ledger.path.unlink()


def _cut(ledger: PrivacyLedger, _: dict[str, bytes]) -> None:
    ledger.path.write_bytes(ledger.path.read_bytes()[:-9])


def _edit(number: int) -> Callable[[PrivacyLedger, dict[str, bytes]], None]:
    def edit(ledger: PrivacyLedger, _: dict[str, bytes]) -> None:
        lines = ledger.path.read_bytes().splitlines(keepends=True)
        charges = [place for place, line in enumerate(lines) if b'"charged"' in line]
        place = charges[number]
        assert b'"steps":100' in lines[place]
        lines[place] = lines[place].replace(b'"steps":100', b'"steps":1')
        ledger.path.write_bytes(b"".join(lines))

    return edit


def _swap(ledger: PrivacyLedger, _: dict[str, bytes]) -> None:
    first, second, *rest = ledger.path.read_bytes().splitlines(keepends=True)
    ledger.path.write_bytes(b"".join([second, first, *rest]))


def _nonsense(ledger: PrivacyLedger, _: dict[str, bytes]) -> None:
    ledger.path.write_bytes(b"[[" * 100_000 + b"\n")


def _drop_mark(ledger: PrivacyLedger, _: dict[str, bytes]) -> None:
    (ledger.home / MARK_NAME).unlink()


def _damage_mark(ledger: PrivacyLedger, _: dict[str, bytes]) -> None:
    (ledger.home / MARK_NAME).write_bytes(b"{}")


MUTATIONS = {
    "dropped-last-line": _drop_last,
    "older-copy": _older_copy,
    "removed": _remove,
    "cut": _cut,
    "edited-first-charge": _edit(0),
    "edited-last-charge": _edit(-1),
    "swapped": _swap,
    "nonsense": _nonsense,
    "no-mark": _drop_mark,
    "damaged-mark": _damage_mark,
}


@pytest.mark.parametrize("name", sorted(MUTATIONS))
def test_a_ledger_that_is_not_what_was_written_stops_everything(name: str, tmp_path: Path) -> None:
    ledger = written(tmp_path, 2)
    older = {"ledger": ledger.path.read_bytes()}
    lines = ledger.read()
    ledger.charge(lines, charged(lines, 3))
    MUTATIONS[name](ledger, older)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(SiloOperatorError, match="it never gets shorter") as error:
        ledger.read()
    assert "Nothing was trained" in str(error.value)
    assert "catch-up" in str(error.value)
    with pytest.raises(SiloOperatorError):
        ledger.secret_for(digest(3), FINDINGS, JOB, NOW)
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before, "nothing lost"


def test_a_whole_home_that_was_put_back_is_found_by_what_was_signed(tmp_path: Path) -> None:
    ledger = written(tmp_path / "home", 1)
    shutil.copytree(tmp_path / "home", tmp_path / "older")
    lines = ledger.read()
    signed = statement_of(*ledger.charge(lines, charged(lines, 2)))
    older = PrivacyLedger(tmp_path / "older")
    assert len(list(older.read().charges())) == 1, "nothing in it says that it is older"
    with pytest.raises(SiloOperatorError, match="no charge for a statement about ward"):
        older.read([signed])
    ledger.read([signed])


def test_a_kill_between_line_and_mark_is_no_older_state(tmp_path: Path) -> None:
    ledger = written(tmp_path, 1)
    mark = (tmp_path / MARK_NAME).read_bytes()
    lines = ledger.read()
    ledger.charge(lines, charged(lines, 2))
    (tmp_path / MARK_NAME).write_bytes(mark)
    assert len(list(ledger.read().charges())) == 2
    assert (tmp_path / MARK_NAME).read_bytes() != mark, "the mark follows"


def test_a_kill_before_the_very_first_mark_is_no_older_state(tmp_path: Path) -> None:
    ledger = written(tmp_path, 1)
    (tmp_path / MARK_NAME).unlink()
    assert len(list(ledger.read().charges())) == 1
    assert (tmp_path / MARK_NAME).exists()


def test_of_two_ledgers_the_longer_one_is_restored_and_never_another(tmp_path: Path) -> None:
    ledger = written(tmp_path, 1)
    short, low = ledger.path.read_bytes(), (tmp_path / MARK_NAME).read_bytes()
    lines = ledger.read()
    ledger.charge(lines, charged(lines, 2))
    long, high = ledger.path.read_bytes(), (tmp_path / MARK_NAME).read_bytes()
    assert longer_ledger(short, long) == longer_ledger(long, short) == long
    assert higher_mark(low, high) == higher_mark(high, low) == high
    other = written(tmp_path / "other", 1, steps=7).path.read_bytes()
    with pytest.raises(SiloOperatorError, match="two that contradict each other"):
        longer_ledger(other, long)


def test_populations_do_not_share_a_total(tmp_path: Path) -> None:
    ledger = written(tmp_path, 2)
    lines = ledger.read()
    ledger.charge(lines, charged(lines, 3, population="clinic"))
    lines = ledger.read()
    found: list[Charged] = [each for _, each in lines.charges("clinic")]
    alone = lifetime_of(lines, "clinic", found[0].delta)
    assert alone == found[0].epsilon
    assert lifetime_of(lines, "ward", found[0].delta) > alone


def test_closing_does_not_hide_that_a_ledger_was_put_back(tmp_path: Path) -> None:
    ledger = written(tmp_path, 1)
    older = ledger.path.read_bytes()
    lines = ledger.read()
    ledger.charge(lines, charged(lines, 2))
    ledger.path.write_bytes(older)
    mark = (tmp_path / MARK_NAME).read_bytes()
    for plan in (1, 2):
        with pytest.raises(SiloOperatorError, match="an older state"):
            ledger.close(digest(plan), digest(77), NOW)
    assert (tmp_path / MARK_NAME).read_bytes() == mark


def test_closing_in_a_home_without_a_ledger_writes_none(tmp_path: Path) -> None:
    PrivacyLedger(tmp_path).close(digest(1), None, NOW)
    assert list(tmp_path.iterdir()) == []
