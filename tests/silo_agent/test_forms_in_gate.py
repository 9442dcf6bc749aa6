"""Records of each form on their way through the gate into the files that training reads."""

import json
from pathlib import Path
from typing import Any

import pytest
import rfc8785

from data_contracts.dataset.forms.lines import form_of_file
from data_contracts.protocol.artifact import artifact_of_file
from silo_agent.gate.steward_page import render_page
from silo_agent.gate.steward_view import steward_view
from tests.data_contracts.dataset.contract_samples import CONTRACT, sample_record
from tests.data_contracts.dataset.forms.form_samples import (
    CHAT,
    CLASSES,
    LABEL,
    PLAIN,
    TEXT,
    chat_record,
    form_contract,
    record,
    turns,
)
from tests.silo_agent.gate_samples import SampleSilo, failing

NUMBER = 40


def of_chat(number: int) -> dict[str, Any]:
    return chat_record(number)


def of_text(number: int) -> dict[str, Any]:
    return record(number, text=f"The number {number} is\u2028\u0022{number}\u0022 \U0001f600.")


def of_class(number: int) -> dict[str, Any]:
    return record(number, text=f"Note {number}.", label=number % 2)


def class_line(row: dict[str, Any]) -> dict[str, Any]:
    return {"text": row["text"], "label": ("discharged", "admitted")[row["label"]]}


FORMS: dict[str, Any] = {
    "chat": (CHAT, of_chat, lambda row: {"messages": row["messages"]}),
    "text": (PLAIN, of_text, lambda row: {"text": row["text"]}),
    "classification": (CLASSES, of_class, class_line),
}


@pytest.mark.parametrize("form", FORMS)
def test_splits_hold_records_of_their_form_and_nothing_else(tmp_path: Path, form: str) -> None:
    contract, made, line = FORMS[form]
    silo = SampleSilo(tmp_path, contract)
    rows = [made(number) for number in range(NUMBER)]
    silo.write_records(rows)
    outcome = silo.check()
    assert outcome.passed, failing(outcome)
    files = silo.gate.splits(outcome.findings_digest)
    written = []
    for path in (files.train, files.heldout):
        assert path.stat().st_mode & 0o777 == 0o600
        assert form_of_file(path).name == form
        written += [json.loads(text) for text in path.read_text("utf-8").split("\n")[:-1]]
    assert sorted(map(json.dumps, written)) == sorted(json.dumps(line(row)) for row in rows)
    before = files.train.stat().st_mtime_ns
    silo.gate.splits(outcome.findings_digest)
    assert files.train.stat().st_mtime_ns == before, "the same outcome writes nothing again"


def test_a_contract_of_another_form_makes_the_files_anew(tmp_path: Path) -> None:
    rows = [record(n, text=f"Note {n} is long enough.", label=n % 2) for n in range(NUMBER)]
    silo = SampleSilo(tmp_path, CLASSES)
    silo.write_records(rows)
    files = silo.gate.splits(silo.check().findings_digest)
    files.shards.mkdir()
    assert form_of_file(files.train).name == "classification"
    silo.write_contract(form_contract(TEXT + LABEL, "{property: fl.form, value: text}"))
    files = silo.gate.splits(silo.check().findings_digest)
    assert form_of_file(files.train).name == "text"
    assert not files.shards.exists()


def test_files_that_are_marked_without_their_form_are_made_anew(tmp_path: Path) -> None:
    silo = SampleSilo(tmp_path, PLAIN)
    silo.write_records([*map(of_text, range(NUMBER))])
    found = silo.check().findings_digest
    files = silo.gate.splits(found)
    marker = files.train.with_name("made-for.json")
    whole = marker.read_bytes()
    paths = (files.train, files.heldout, files.units)
    digests = [artifact_of_file(path).digest for path in paths]
    others: list[list[str | int]] = [[], ["classification", 1], ["text", 0]]
    for other in others:
        marker.write_bytes(rfc8785.dumps([found, *digests, *other]))
        files.shards.mkdir()
        silo.gate.splits(found)
        assert marker.read_bytes() == whole
        assert not files.shards.exists()


@pytest.mark.parametrize(
    ("contract", "bad", "rules"),
    [
        (
            CHAT,
            chat_record(99, messages=turns("Hi", "Hello", "Call +1 212 555 0188 now", "Yes")),
            "personal_data.limit",
        ),
        (CHAT, chat_record(99, messages=turns("Hi", "Hello", "Bye")), "records.readable"),
        (CHAT, chat_record(99, messages=turns("Hi", "\u200b", "Bye", "Bye")), "records.not_empty"),
        (CHAT, chat_record(99, messages=turns("Hi", "x" * 501)), "contract.answer-length"),
        (PLAIN, record(99, text=""), "records.not_empty"),
        (PLAIN, record(99, text="Jane's number is 078-05-1120."), "personal_data.limit"),
        (CLASSES, record(99, text="A note.", label=7), "records.readable"),
        (CLASSES, record(99, text=" ", label=1), "records.not_empty"),
    ],
    ids=range(8),
)
def test_a_bad_record_of_a_form_breaks_the_rule_that_it_should(
    tmp_path: Path, contract: str, bad: dict[str, Any], rules: str
) -> None:
    made = {CHAT: of_chat, PLAIN: of_text, CLASSES: of_class}[contract]
    silo = SampleSilo(tmp_path, contract)
    silo.write_records([*(made(number) for number in range(NUMBER)), bad])
    outcome = silo.check()
    assert failing(outcome) == [rules]
    page = render_page(steward_view(silo.gate, outcome)).decode()
    assert f"<code>{silo.gate.contract().source.record_form.name}" in page
    assert "078-05" not in page and "0188" not in page


def test_rows_of_other_forms_are_no_records(tmp_path: Path) -> None:
    silo = SampleSilo(tmp_path, CHAT)
    silo.write_records([*map(of_chat, range(NUMBER)), sample_record(99), of_text(100)])
    outcome = silo.check()
    assert failing(outcome) == ["records.readable"]
    missing = "unreadable, field messages missing"
    assert outcome.operator_notes == (f"row 41: {missing}", f"row 42: {missing}")


def test_a_subject_stays_on_one_side_whatever_the_form(tmp_path: Path) -> None:
    rows = [dict(of_chat(n), subject=f"s{n // 2}") for n in range(60)]
    silo = SampleSilo(tmp_path, CHAT)
    silo.write_records(rows)
    files = silo.gate.splits(silo.check().findings_digest)
    sides = [
        {json.loads(line)["messages"][0]["content"] for line in path.read_text().splitlines()}
        for path in (files.train, files.heldout)
    ]
    for one, other in zip(rows[::2], rows[1::2], strict=True):
        texts = {row["messages"][0]["content"] for row in (one, other)}
        assert any(texts <= side for side in sides)


def test_the_files_of_prompts_and_answers_are_marked_as_ever(tmp_path: Path) -> None:
    silo = SampleSilo(tmp_path, CONTRACT)
    silo.write_records([sample_record(n) for n in range(NUMBER)])
    outcome = silo.check()
    files = silo.gate.splits(outcome.findings_digest)
    marker = json.loads(files.train.with_name("made-for.json").read_bytes())
    assert len(marker) == 4 and marker[0] == outcome.findings_digest
    line = json.loads(files.train.read_text().splitlines()[0])
    assert list(line) == ["prompt", "answer"]
