"""A file of training records: every line is of the form of the first."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_contracts.dataset.forms.lines import form_of_file, read_lines
from data_contracts.errors import DataStewardError
from tests.data_contracts.dataset.forms.form_samples import turns

GOOD: dict[str, Any] = {
    "instruction": {"prompt": "q", "answer": "a"},
    "chat": {"messages": turns("q", "a")},
    "classification": {"text": "t", "label": "l"},
    "text": {"text": "t"},
    "image-text": {"image": "/data/a.png", "sha256": "0f" * 32, "answer": "a"},
}


def written(path: Path, *lines: Any) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize("form", GOOD)
def test_the_first_record_says_the_form(tmp_path: Path, form: str) -> None:
    path = written(tmp_path / "r.jsonl", dict(GOOD[form], note="x"), GOOD[form])
    assert form_of_file(path).name == form
    assert len(list(read_lines(path, form_of_file(path)))) == 2


@pytest.mark.parametrize(
    ("line", "form"),
    [
        ({"messages": None, "text": "t"}, "text"),
        ({"text": "t", "label": None}, "text"),
        ({"prompt": None, "answer": None, **GOOD["chat"]}, "chat"),
        ({"prompt": "q", **GOOD["chat"]}, "chat"),
        ({"label": "l", **GOOD["instruction"]}, "instruction"),
        (GOOD["classification"], "classification"),
    ],
)
def test_a_field_counts_where_it_says_something(tmp_path: Path, line: Any, form: str) -> None:
    path = written(tmp_path / "r.jsonl", line, line)
    assert form_of_file(path).name == form
    assert len(list(read_lines(path, form_of_file(path)))) == 2


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([GOOD["chat"], GOOD["text"]], "text in record 2, and chat before it"),
        ([GOOD["text"], GOOD["instruction"]], "instruction in record 2, and text before it"),
        ([GOOD["classification"], GOOD["text"]], "text in record 2, and classification before it"),
        ([GOOD["chat"], {"x": 1}], "something else in record 2"),
        ([GOOD["chat"], {"messages": turns("SECRET", " ")}], "an empty turn in record 2"),
        ([GOOD["chat"], {"messages": turns("SECRET")}], "no turn of the assistant in record 2"),
        ([GOOD["text"], {"text": "\u200b"}], "an empty or non-text field in record 2"),
        ([GOOD["classification"], {"text": "t", "label": 3}], "non-text field in record 2"),
        ([7], "something else in record 1"),
        ([GOOD["text"], GOOD["classification"]], "classification in record 2, and text before it"),
        ([GOOD["chat"], {**GOOD["chat"], "text": "t"}], "fields of chat and text in record 2"),
        ([GOOD["text"] | GOOD["instruction"]], "fields of instruction and text in record 1"),
        ([GOOD["instruction"] | GOOD["chat"]], "of instruction and chat in record 1, which may be"),
        ([{"messages": None}], "no list of messages in record 1"),
        ([{"prompt": None, "answer": "a"}], "an empty or non-text field in record 1"),
        (
            [GOOD["image-text"] | {"sha256": "0F" * 32}],
            "without the SHA-256 of what was checked in",
        ),
        ([GOOD["image-text"] | {"sha256": None}], "without the SHA-256 of what was checked in"),
        ([GOOD["image-text"] | {"image": "SECRET.png"}], "a picture without its whole path in"),
        ([GOOD["image-text"] | {"answer": " "}], "an empty or non-text field in record 1"),
        ([GOOD["image-text"] | GOOD["instruction"]], "of instruction and image-text in record 1"),
        ([GOOD["image-text"], GOOD["instruction"]], "instruction in record 2, and image-text"),
        ([], "an empty file"),
    ],
)
def test_what_is_no_record_is_named_by_number(tmp_path: Path, lines: Any, found: str) -> None:
    path = written(tmp_path / "r.jsonl", *lines)
    with pytest.raises(DataStewardError, match=found) as caught:
        list(read_lines(path, form_of_file(path)))
    assert "SECRET" not in str(caught.value)
    assert "`prompt` and `answer`; `messages`" in str(caught.value)
