"""Records of each form from every source that can hold them, and what the detectors see of them."""

from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from data_contracts.dataset.contract import parse_contract
from data_contracts.dataset.examples import MAX_EXAMPLE_BYTES, Example
from data_contracts.dataset.sources.arrow_messages import BYTES_OF_A_VALUE
from data_contracts.dataset.sources.data_source import DataSource
from tests.data_contracts.dataset.contract_samples import write_lines
from tests.data_contracts.dataset.findings_samples import Looked, look
from tests.data_contracts.dataset.forms.form_samples import (
    CHAT,
    CLASSES,
    PLAIN,
    as_json_text,
    chat_record,
    record,
    turns,
)
from tests.data_contracts.dataset.sources.source_samples import (
    reasons_of,
    rows_of,
    unavailable,
    write_csv,
)

FILE = "sets/records.jsonl"

datasets.disable_progress_bars()


def source(file_format: str, path: str = "data", form: str = "chat") -> DataSource:
    return DataSource.model_validate({"format": file_format, "path": path, "form": form})


def through_jsonl(root: Path, rows: list[dict[str, Any]]) -> list[Any]:
    write_lines(root / "data", [*rows])
    return rows_of(source("jsonl"), root)


def through_csv(root: Path, rows: list[dict[str, Any]]) -> list[Any]:
    write_csv(root / "data", as_json_text(rows))
    return rows_of(source("csv"), root)


def through_parquet(root: Path, rows: list[dict[str, Any]]) -> list[Any]:
    pq.write_table(pa.Table.from_pylist(rows), root / "data", row_group_size=2)
    return rows_of(source("parquet"), root)


def through_plain_pages(root: Path, rows: list[dict[str, Any]]) -> list[Any]:
    pq.write_table(pa.Table.from_pylist(rows), root / "data", use_dictionary=False)
    return rows_of(source("parquet"), root)


def through_text_in_parquet(root: Path, rows: list[dict[str, Any]]) -> list[Any]:
    pq.write_table(pa.Table.from_pylist(as_json_text(rows)), root / "data")
    return rows_of(source("parquet"), root)


def through_hugging_face(root: Path, rows: list[dict[str, Any]]) -> list[Any]:
    datasets.Dataset.from_list(rows).save_to_disk(root / "data")
    return rows_of(source("huggingface"), root)


def through_sql(root: Path, rows: list[dict[str, Any]]) -> list[Any]:
    url = f"sqlite:///{root}/data.db"
    columns = [sa.Column(name, sa.JSON if name == "messages" else sa.Text) for name in rows[0]]
    metadata = sa.MetaData()
    table = sa.Table("chats", metadata, *columns)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        metadata.create_all(connection)
        connection.execute(table.insert(), rows)
    engine.dispose()
    named = DataSource.model_validate({"format": "sql", "table": "chats", "form": "chat"})
    return rows_of(named, root, url)


WAYS = [
    through_jsonl,
    through_csv,
    through_parquet,
    through_plain_pages,
    through_text_in_parquet,
    through_hugging_face,
    through_sql,
]


@pytest.mark.parametrize("through", WAYS)
def test_a_conversation_is_the_same_from_every_source(tmp_path: Path, through: Any) -> None:
    system = turns("q", "a", "qq", "aa", system="Be kind.")
    rows = [chat_record(1), chat_record(2, messages=system), chat_record(3)]
    found = through(tmp_path, rows)
    assert reasons_of(found) == []
    expected = [[(m["role"], m["content"]) for m in row["messages"]] for row in rows]
    assert [list(row.messages) for row in found] == expected
    assert all(row.prompt == row.answer == row.text == "" for row in found)


@pytest.mark.parametrize("through", WAYS)
def test_a_row_that_is_no_conversation_stands_alone(tmp_path: Path, through: Any) -> None:
    rows = [chat_record(1), chat_record(2, messages=turns("q")), chat_record(3)]
    assert reasons_of(through(tmp_path, rows)) == [
        (2, "field messages has no turn of the assistant")
    ]


def test_a_nested_row_that_is_too_long_is_not_made(tmp_path: Path) -> None:
    many = turns(*["", ""] * (MAX_EXAMPLE_BYTES // BYTES_OF_A_VALUE))
    long = turns("q", "x" * MAX_EXAMPLE_BYTES)
    rows = [chat_record(1), chat_record(2, messages=many), chat_record(3, messages=long)]
    reason = f"longer than {MAX_EXAMPLE_BYTES} bytes"
    found = through_parquet(tmp_path, [*rows, chat_record(4), chat_record(5, messages=[])])
    assert reasons_of(found) == [
        (2, reason),
        (3, reason),
        (5, "field messages has no turn of the assistant"),
    ]


def test_messages_of_another_type_are_said_once(tmp_path: Path) -> None:
    for messages in (["q", "a"], {"role": ["user"], "content": ["q"]}, 3):
        with unavailable("column messages of type"):
            through_parquet(tmp_path, [chat_record(1, messages=messages)])


def test_messages_with_null_rows_and_more_keys(tmp_path: Path) -> None:
    more = [dict(message, tool_calls=None, rank=3, tags=["x"]) for message in turns("q", "a")]
    found = through_parquet(tmp_path, [chat_record(1, messages=more), record(2)])
    assert isinstance(found[0], Example) and len(found[0].messages) == 2
    assert reasons_of(found) == [(2, "field messages missing")]


def looked(root: Path, contract: str, rows: list[dict[str, Any]]) -> Looked:
    write_lines(root / FILE, [*rows])
    return look(root, parse_contract(contract.encode(), "c.yaml"))


def test_every_turn_is_looked_at(tmp_path: Path) -> None:
    named = turns("Hello", "Hello.", "Pay to DE89 3704 0044 0532 0130 00", "Done.")
    spelled = turns("Hello <|im_end|>", "Hello.", "Who is it?", "Me.")
    empty = turns("Hello", " ", "What?", "That.")
    found = looked(
        tmp_path,
        CHAT,
        [
            *(chat_record(n) for n in range(4)),
            chat_record(4, messages=named),
            chat_record(5, messages=spelled),
            chat_record(6, messages=empty),
            chat_record(7, messages=turns("q", "a", system="")),
            chat_record(8, messages=chat_record(0)["messages"]),
            chat_record(9, messages=[*turns("q"), *chat_record(0)["messages"][1:]]),
            chat_record(10, messages=turns("q")),
        ],
    )
    assert found.column("personal_data")[4] == "iban"
    assert [n for n, spells in enumerate(found.column("has_control_tokens")) if spells] == [5]
    assert [n for n, is_empty in enumerate(found.column("is_empty")) if is_empty] == [6]
    assert [n for n, same in enumerate(found.column("is_duplicate")) if same] == [8]
    assert found.column("readable") == [1] * 10 + [0]
    said = [len(message["content"]) for message in named]
    assert found.column("prompt_characters")[4] == said[0] + said[2]
    assert found.column("answer_characters")[4] == said[1] + said[3]
    assert "row 7: a turn of the user or the assistant is empty" in found.findings.notes


def test_plain_text_has_an_answer_and_no_prompt(tmp_path: Path) -> None:
    found = looked(tmp_path, PLAIN, [record(1, text="A text."), record(2, text="\u200b")])
    assert found.column("prompt_characters") == [None, None]
    assert found.column("answer_characters") == [7, 1]
    assert found.column("is_empty") == [0, 1]


def test_a_label_is_one_of_the_contract_s_classes(tmp_path: Path) -> None:
    labels: list[Any] = [0, "1", 1.0, True, "admitted", "2", None]
    rows = [record(n, text=f"Note {n}.", label=label) for n, label in enumerate(labels)]
    found = looked(tmp_path, CLASSES, rows)
    classes = ["discharged", "admitted", "admitted"]
    assert found.column("label") == [*classes, None, None, None, None]
    notes = found.findings.notes
    reason = "unreadable, field label is none of the classes that the contract names"
    assert [note for note in notes if "classes" in note] == [
        f"row {n}: {reason}" for n in (4, 5, 6)
    ]
    assert "row 7: unreadable, field label missing" in notes
    assert found.column("answer_characters")[:2] == [len("discharged"), len("admitted")]
