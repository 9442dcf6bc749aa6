"""Lists of messages in Parquet: how many values a row may hold, and of which types."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from data_contracts.dataset.examples import MAX_EXAMPLE_BYTES, Example
from data_contracts.dataset.sources.arrow_messages import BYTES_OF_A_VALUE, MOST_VALUES, row_sizes
from data_contracts.dataset.sources.data_source import DataSource
from data_contracts.dataset.sources.parquet import MAX_LISTED_VALUES
from tests.data_contracts.dataset.forms.form_samples import chat_record, turns
from tests.data_contracts.dataset.sources.source_samples import reasons_of, rows_of, unavailable

CHATS = DataSource.model_validate({"format": "parquet", "path": "data", "form": "chat"})
TOO_LONG = f"longer than {MAX_EXAMPLE_BYTES} bytes"


def lists(*lengths: int) -> Any:
    """Rows of so many messages that all say the same."""
    count = sum(lengths)
    said = pa.array(["user"]).take(pa.array(np.zeros(count, np.int8)))
    messages = pa.StructArray.from_arrays([said, said], names=["role", "content"])
    return pa.ListArray.from_arrays(pa.array(np.cumsum((0, *lengths)), pa.int32()), messages)


def written(root: Path, messages: Any, **options: Any) -> None:
    rows = [chat_record(n) for n in range(len(messages))]
    names = [name for name in rows[0] if name not in ("messages", "prompt", "answer")]
    columns = {name: [row[name] for row in rows] for name in names}
    pq.write_table(pa.table({**columns, "messages": messages}), root / "data", **options)


@pytest.mark.parametrize("empty", [0, 500])
def test_a_few_bytes_cannot_become_millions_of_messages(tmp_path: Path, empty: int) -> None:
    many = MAX_LISTED_VALUES + 2
    written(tmp_path, lists(*[0] * empty, many), compression="zstd")
    assert (tmp_path / "data").stat().st_size < 20_000
    with unavailable(r"column messages: a row group with more than 8,388,608 values"):
        rows_of(CHATS, tmp_path)


def test_messages_that_may_repeat_those_before_them_are_bounded(tmp_path: Path) -> None:
    said = [turns(*["x" * 100, "y" * 100] * 20) for _ in range(20)]
    options = {
        "use_dictionary": False,
        "column_encoding": {"messages.list.element.content": "DELTA_BYTE_ARRAY"},
    }
    written(tmp_path, pa.array(said), **options)
    assert reasons_of(rows_of(CHATS, tmp_path)) == []
    text = "".join(map(chr, np.random.default_rng(1).integers(0x4E00, 0x9FFF, 40_000)))
    written(tmp_path, pa.array([*said, turns(*[text, text] * 2000)]), **options)
    assert (tmp_path / "data").stat().st_size < 2**20
    with unavailable("column messages: lists whose values may repeat those before them"):
        rows_of(CHATS, tmp_path)


def test_a_row_of_too_many_messages_stands_alone(tmp_path: Path) -> None:
    written(tmp_path, lists(0, 500_000, 1, MOST_VALUES + 1))
    assert reasons_of(rows_of(CHATS, tmp_path)) == [
        (1, "field messages has no turn of the assistant"),
        (2, TOO_LONG),
        (3, "field messages has no turn of the assistant"),
        (4, TOO_LONG),
    ]


def test_lists_that_are_too_long_are_not_measured() -> None:
    def text_sizes(array: Any) -> Any:
        return pc.binary_length(array).cast(pa.int64())

    rows = lists(2, 1_000_000, 3, 0, MOST_VALUES)
    tracemalloc.start()
    try:
        found = row_sizes(rows, text_sizes).tolist()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    a_message = BYTES_OF_A_VALUE + 2 * len("user")
    assert found == [
        2 * a_message,
        1_000_000 * BYTES_OF_A_VALUE,
        3 * a_message,
        0,
        MOST_VALUES * a_message,
    ]
    assert most < 2_000_000


@pytest.mark.parametrize(
    "kind", [pa.binary(), pa.large_binary(), pa.dictionary(pa.int32(), pa.binary())]
)
def test_texts_of_messages_may_be_binary_as_columns_may(tmp_path: Path, kind: Any) -> None:
    said = [turns("q\u00e9", "a"), turns("q", "b")]
    encoded = [
        [{name: text.encode() for name, text in message.items()} for message in row] for row in said
    ]
    encoded[1][0]["content"] = b"\xff"
    struct = pa.struct([("role", kind), ("content", kind)])
    written(tmp_path, pa.array(encoded, pa.list_(struct)))
    found = rows_of(CHATS, tmp_path)
    assert isinstance(found[0], Example)
    assert [tuple(message) for message in found[0].messages] == [
        ("user", "q\u00e9"),
        ("assistant", "a"),
    ]
    assert reasons_of(found) == [(2, "field messages has a message whose content is not text")]
