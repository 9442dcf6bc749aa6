"""A home whose path holds what URLs, templates, shells and patterns read as something else."""

import os
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from data_contracts.dataset.findings.store import sqlite_url
from infra.stack.prefect_server import database_url
from silo_agent.config import parse_config
from silo_agent.first_day.templates import config_text
from tests.data_contracts.dataset.contract_samples import sample_records
from tests.silo_agent.gate_samples import SampleSilo, failing

ODD = [
    "a b",
    "a?b=c",
    "a#b",
    "a%20b%",
    "a$HOME",
    "a${x}b",
    "a[b]*{c}",
    "a'b\"c",
    "a&b;c|d",
    "a\\b:@é",
]
"""Names of folders that are all fine for a file system."""


@pytest.mark.parametrize("name", ["a b?c#d%20e$HOME${x}[y]*{z}'\"&;\\:@é"])
def test_a_gate_in_an_odd_place_finds_what_it_finds_elsewhere(tmp_path: Path, name: str) -> None:
    silo = SampleSilo(tmp_path / name / "home")
    silo.write_records([*sample_records(60), {**sample_records(61)[60], "licence": "GPL-3.0-only"}])
    outcome = silo.check()
    failed = [found.rule for found in outcome.outcomes if not found.success]
    assert failed == ["licence.allowed"]
    assert silo.gate.findings(outcome) is not None
    assert {path.name for path in tmp_path.iterdir()} == {name}
    silo.write_records([*sample_records(60)])
    outcome = silo.check()
    assert outcome.passed
    splits = silo.gate.splits(outcome.findings_digest)
    lines = splits.train.read_text().count("\n") + splits.heldout.read_text().count("\n")
    assert lines == 60


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("place", ["findings", "prefect"])
def test_a_url_names_the_file_and_no_other(tmp_path: Path, name: str, place: str) -> None:
    folder = tmp_path / name
    if place == "findings":
        file, url = folder / "x.sqlite", sqlite_url(folder / "x.sqlite")
    else:
        file = folder / "prefect" / "prefect.db"
        url = database_url(folder).replace("+aiosqlite", "")
    file.parent.mkdir(parents=True)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (x)"))
    engine.dispose()
    assert sqlite3.connect(file).execute("SELECT name FROM sqlite_master").fetchall() == [("t",)]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_of_two_names_is_a_question_for_the_silo_s_operator(tmp_path: Path) -> None:
    silo = SampleSilo(tmp_path)
    file = silo.write_records([*sample_records(60)])
    os.link(file, tmp_path / "a backup")
    outcome = silo.check()
    assert "data.available" in failing(outcome)
    assert "set data.allow_hard_links in silo-agent.toml" in outcome.operator_notes[0]
    allowed = silo.config.data.model_copy(update={"allow_hard_links": True})
    silo.config = silo.config.model_copy(update={"data": allowed})
    assert silo.check().passed
    silo.config = parse_config(
        config_text("s-1", "f-1", "http://127.0.0.1:1", "cpu", 1)
        .replace("# allow_hard_links = true", "allow_hard_links = true")
        .encode(),
        tmp_path,
    )
    assert silo.config.data.allow_hard_links
