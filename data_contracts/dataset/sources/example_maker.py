"""Values of a row become an example, or a reason why not.

Each field has one type (`field_values`): what is of another type, not finite, holds a NUL character
or half a surrogate pair makes the row unreadable. CSV's empty cell means that an optional field is
not stated. Where question and answer come from one column, it holds a conversation (`chat`). Of a
form with classes the label becomes the contract's word for it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_contracts.dataset.examples import Example, UnreadableRow
from data_contracts.dataset.licence_policy import NO_ASSERTION
from data_contracts.dataset.sources.chat import chat_places, question_and_answer
from data_contracts.dataset.sources.columns import Column
from data_contracts.dataset.sources.data_source import DataSource, SourceFormat, required_fields
from data_contracts.dataset.sources.field_values import (
    ValueRefusedError,
    converter_of,
    text_of,
)
from data_contracts.dataset.sources.places import DataRoot, link_fault
from data_contracts.shown_text import is_blank

RawRow = tuple[int, Sequence[Any]]
"""Row number, and one value per column; None where nothing is stated."""

Rows = Iterator[RawRow | UnreadableRow]


class ExampleMaker:
    """Makes examples of rows whose values come in the order of `columns`.

    `file_format` is that of the file (of an image-text set: of its metadata); `image_folder` is
    the resolved folder that images must lie in, for an image-text set only.
    """

    def __init__(
        self,
        source: DataSource,
        columns: Sequence[Column],
        file_format: SourceFormat,
        image_folder: DataRoot | None = None,
    ) -> None:
        required = required_fields(source.format, source.record_form)
        self._others = {name: "" for name in ("prompt", "answer") if name not in required}
        self._classes = dict(source.classes)
        self._is_csv = file_format == "csv"
        self._image_folder = image_folder
        self._chat = chat_places(columns)
        self._steps = [
            (column.field, self._converter(column.field), column.field in required)
            for column in columns
        ]
        self._labels = {column.field: column.label for column in columns}

    def examples(self, rows: Rows) -> Iterator[Example | UnreadableRow]:
        """The example, or the reason, of each row."""
        for row in rows:
            yield row if isinstance(row, UnreadableRow) else self.example(row[0], row[1])

    def example(self, row: int, values: Sequence[Any]) -> Example | UnreadableRow:
        """The example of one row."""
        known: dict[str, Any] = {"licence": NO_ASSERTION, **self._others}
        is_csv = self._is_csv
        field = next(iter(self._labels), "")
        try:
            if self._chat is not None:
                field = "prompt"
                values = _with_chat(values, *self._chat)
            for (field, convert, is_required), value in zip(self._steps, values, strict=True):
                if value is None or (is_csv and value == "" and not is_required):
                    if is_required:
                        raise ValueRefusedError("missing")
                else:
                    known[field] = convert(value)
        except ValueRefusedError as refused:
            return UnreadableRow(row, f"field {self._labels[field]} {refused}")
        if self._image_folder is not None:
            _complete_image_text(known, self._image_folder.path)
        if is_blank(known["id"]) or is_blank(known["subject"]):
            return UnreadableRow(row, "field id or subject is blank")
        return Example(row, **known)

    def _converter(self, field: str) -> Callable[[Any], Any]:
        if field == "label" and self._classes:
            return lambda value: _class_of(converter_of(field)(value), self._classes)
        return self._image if field == "image" else converter_of(field)

    def _image(self, value: Any) -> Path:
        return _image_inside(text_of(value), self._image_folder)


def _with_chat(values: Sequence[Any], asked: int, answered: int) -> Sequence[Any]:
    """The values with a question and an answer in the places of the conversation."""
    if values[asked] is None:
        return values
    changed = list(values)
    changed[asked], changed[answered] = question_and_answer(values[asked])
    return changed


def _class_of(label: str, classes: Mapping[str, str]) -> str:
    word = classes.get(label)
    if word is None:
        raise ValueRefusedError("is none of the classes that the contract names")
    return word


def _image_inside(name: str, folder: DataRoot | None) -> Path:
    if folder is None or not name or name.startswith("/") or ".." in name.split("/"):
        raise ValueRefusedError("is not the name of a file inside the folder")
    try:
        path = (folder.path / name).resolve(strict=True)
        is_file = path.is_file()
    except (OSError, RuntimeError, ValueError):
        is_file = False
    if not is_file:
        raise ValueRefusedError("names no file")
    if not path.is_relative_to(folder.path):
        raise ValueRefusedError("lies outside the folder")
    if not _is_utf8(path):
        raise ValueRefusedError("names a file whose name is not UTF-8")
    if (fault := link_fault(path, folder)) is not None:
        raise ValueRefusedError(f"names {fault}")
    return path


def _is_utf8(path: Path) -> bool:
    """A link may lead to a name that no text can hold, and the file of training records is text."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _complete_image_text(known: dict[str, Any], folder: Path) -> None:
    """An image without an id of its own is known by its name, and stands for one subject."""
    name = known["image"].relative_to(folder).as_posix()
    known["prompt"] = ""
    known.setdefault("id", name)
    known.setdefault("subject", name)
    known.setdefault("source", known["id"])
