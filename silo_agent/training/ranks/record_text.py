"""Text of records as tokens that are never control tokens, whatever it spells.

A tokenizer finds its added tokens anywhere in a text, so a record that quotes `<|im_end|>` would
end its own turn, or begin one of somebody else, with loss on it. What a record spells is text: such
places are encoded without the added tokens, and only what the template writes is a control token.
Control tokens are all special tokens, and every other added token that looks like markup: it
begins and ends with a sign, as `<think>` and `[INST]` do. Runs of spaces, words and HTML elements
that some vocabularies add are text, and stay the tokens that they were.
"""

import json
import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer

LEAST_MARKUP = 3
_HTML = frozenset(
    {
        *("a", "b", "blockquote", "body", "br", "caption", "code", "dd", "div", "dl", "dt", "em"),
        *("h1", "h2", "h3", "h4", "h5", "h6", "head", "hr", "html", "i", "img", "li", "ol", "p"),
        *("pre", "small", "span", "strong", "sub", "sup", "table", "tbody", "td", "tfoot", "th"),
        *("thead", "title", "tr", "u", "ul"),
    }
)
_SIGNS = frozenset(string.punctuation)
_ANY_TEXT = "a"
_PRIVATE = range(0xE000, 0xF8FF, 2)
"""Characters that nobody has given a meaning, in pairs; a record may hold some of them."""


class RecordText:
    """Encodes what a template has rendered; `tokenizer` is one of Hugging Face, fast or not."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._controls = control_tokens(tokenizer.added_tokens_decoder)
        longest_first = sorted(self._controls, key=len, reverse=True)
        self._spelled = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._unknown = unknown_token(tokenizer)
        self._known = set(self._controls.values()) - {self._controls.get(self._unknown or "")}
        self._plain = _without_added_tokens(tokenizer)
        self._newline = {as_text: self._encoded("\n", as_text=as_text) for as_text in (False, True)}
        self._added = {number: t.content for number, t in tokenizer.added_tokens_decoder.items()}
        alone, behind = (self.ids(text) for text in (_ANY_TEXT, "\n" + _ANY_TEXT))
        self._minds_beginnings = behind != self._newline[False] + alone

    def ids(self, text: str) -> list[int]:
        """As the tokenizer gives them: a control token wherever one is spelled."""
        return self._encoded(text, as_text=False)

    def ids_of(self, texts: list[str]) -> list[list[int]]:
        """As `ids`, of several texts at once."""
        found = self._tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        return [list(ids) for ids in found]

    def ids_of_parts(self, texts: list[str], goes_on: Sequence[bool]) -> list[list[int]]:
        """As `ids_of`, where a text that `goes_on` does so from the one before it in the list.

        Some tokenizers put a space before a beginning, which is none in the middle of a text.
        """
        ids = self.ids_of(texts)
        if not self._minds_beginnings:
            return ids
        contexts: list[str] = []
        before: list[int] = []
        for found, does in zip(ids, goes_on, strict=True):
            before = before if does else []
            contexts.append(self._context(before))
            before = found or before
        again = iter(self.ids_of([c + text for c, text in zip(contexts, texts, strict=True) if c]))
        return [
            self._behind(context, next(again), found) if context else found
            for context, found in zip(contexts, ids, strict=True)
        ]

    def controls(self, ids: Sequence[int]) -> list[int]:
        """The control tokens among `ids`, in their order, but for the one that stands for any
        letter that the vocabulary lacks."""
        return [token for token in ids if token in self._known]

    def names_unknown(self, text: str) -> bool:
        """Whether `text` spells the token for letters that the vocabulary lacks."""
        return self._unknown is not None and self._unknown in text

    def marked(self, text: str, marks: tuple[str, str], *, whole: bool) -> str:
        """`text` with the two `marks` around each control token that it spells, or around all."""
        begin, end = marks
        if whole:
            return f"{begin}{text}{end}"
        return self._spelled.sub(lambda found: f"{begin}{found.group()}{end}", text)

    def ids_of_marked(
        self, text: str, marks: tuple[str, str], before: Sequence[int] = ()
    ) -> list[int]:
        """Ids of a rendered part, which goes on from `before`; what stands between marks is text
        and no control token."""
        begin, end = marks
        ids = list(before[-1:])
        for place, piece in enumerate(re.split(f"{begin}(.*?){end}", text, flags=re.DOTALL)):
            # A template may have cut a text, and with it one of two marks.
            piece = piece.replace(begin, "").replace(end, "")
            if place % 2:
                ids += self._spelled_out(ids, piece)
            elif place == 0 and before:
                ids += self._going_on(ids, piece)
            else:
                ids += self._after(ids, piece)
        return ids[len(before[-1:]) :]

    def _going_on(self, before: Sequence[int], text: str) -> list[int]:
        """Ids of one part behind another, as in `ids_of_parts`."""
        if not self._minds_beginnings:
            return self.ids(text)
        context = self._context(before)
        return self._behind(context, self.ids(context + text), self.ids(text))

    def _context(self, before: Sequence[int]) -> str:
        """What stands for the text before a part: an added token begins a section."""
        return self._added.get(before[-1], "\n") if before else ""

    def _behind(self, context: str, ids: list[int], alone: list[int]) -> list[int]:
        """What of `ids` is behind the context; where that cannot be told, the text `alone`."""
        of_context = self.ids(context)
        is_apart = ids[: len(of_context)] == of_context
        return ids[len(of_context) :] if is_apart else alone

    def _spelled_out(self, before: Sequence[int], text: str) -> list[int]:
        """As text; letter by letter where the vocabulary itself has the whole."""
        ids = self._after(before, text, as_text=True)
        if not self.controls(ids):
            return ids
        return [token for letter in text for token in self._after([0], letter, as_text=True)]

    def _after(self, before: Sequence[int], text: str, *, as_text: bool = False) -> list[int]:
        """Ids of `text` in the middle of a part: some tokenizers put a space before a beginning."""
        newline = self._newline[as_text]
        if text and before and newline:
            ids = self._encoded("\n" + text, as_text=as_text)
            if ids[: len(newline)] == newline:
                return ids[len(newline) :]
        return self._encoded(text, as_text=as_text) if text else []

    def _encoded(self, text: str, *, as_text: bool) -> list[int]:
        if not as_text:
            return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])
        if self._plain is not None:
            return list(self._plain.encode(text, add_special_tokens=False).ids)
        split = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        return list(split["input_ids"])


def marks_for(*texts: str) -> tuple[str, str] | None:
    """Two characters that are in none of `texts`; None where they hold some of every pair."""
    used = set[str]().union(*texts)
    pairs = ((chr(first), chr(first + 1)) for first in _PRIVATE)
    return next((pair for pair in pairs if used.isdisjoint(pair)), None)


def control_tokens(added: Mapping[int, Any]) -> dict[str, int]:
    """Ids of those among a tokenizer's added tokens, by id, that no record may spell."""
    return {
        token.content: number
        for number, token in added.items()
        if token.content.strip() and (token.special or is_markup(token.content))
    }


def unknown_token(tokenizer: Any) -> str | None:
    """What unknown letters become, unless it is one that ends or begins something as well."""
    named: Mapping[str, Any] = tokenizer.special_tokens_map
    unknown = named.get("unk_token")
    others = [token for name, token in named.items() if name != "unk_token"]
    return None if unknown is None or unknown in others else str(unknown)


def is_markup(text: str) -> bool:
    """Whether an added token that is not special looks like one that steers the model."""
    if len(text) < LEAST_MARKUP or not {text[0], text[-1]} <= _SIGNS:
        return False
    return text.strip("</>").casefold() not in _HTML


def _without_added_tokens(tokenizer: Any) -> Any | None:
    """A fast tokenizer's own pipeline, which knows no added tokens; None for one in Python."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        return None
    pipeline = json.loads(backend.to_str()) | {"added_tokens": [], "post_processor": None}
    return Tokenizer.from_str(json.dumps(pipeline | {"truncation": None, "padding": None}))
