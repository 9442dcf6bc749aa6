"""A document as token ids without a template: all of it carries loss but what nothing comes before.

It begins and ends as the tokenizer itself begins and ends a text: with its `bos`, where it puts one
there, and with its end, which is added where it does not; where it names none, the model's own
configuration does. One that is longer than a sequence is cut
into consecutive pieces. Each begins with the last token of the one before it, which carries no loss
there, so that every token is predicted exactly once.
"""

from collections.abc import Iterator, Sequence

from data_contracts.errors import SiloOperatorError
from silo_agent.training.ranks.conversation import IGNORED, ChatTokenizer, Conversation
from silo_agent.training.ranks.record_text import RecordText, marks_for

_ANY_TEXT = "a"


class PlainIds:
    """Token ids of texts, which hold no control tokens whatever they spell."""

    def __init__(self, text: RecordText) -> None:
        self._text = text

    def of_many(self, texts: Sequence[str]) -> list[tuple[list[int] | None, bool]]:
        """The ids of each, and whether it spells control tokens; None for one whose control tokens
        this tokenizer can only give as such, or that nothing is left to mark with."""
        found = zip(texts, self._text.ids_of(list(texts)), strict=True)
        return [self._told(text, ids) for text, ids in found]

    def _told(self, text: str, ids: list[int]) -> tuple[list[int] | None, bool]:
        spells = bool(self._text.controls(ids)) or self._text.names_unknown(text)
        return self._as_text(text) if spells else ids, spells

    def _as_text(self, text: str) -> list[int] | None:
        """Only what spells a control token is encoded apart; all of it where that is not enough."""
        marks = marks_for(text)
        if marks is None:
            return None
        for whole in (False, True):
            marked = self._text.marked(text, marks, whole=whole)
            ids = self._text.ids_of_marked(marked, marks)
            if not self._text.controls(ids):
                return ids
        return None


class Documents:
    """Makes pieces of at most `room` tokens. `named_end` ends a document where the tokenizer names
    no end; raises SiloOperatorError without either."""

    def __init__(
        self, tokenizer: ChatTokenizer, text: RecordText, room: int, named_end: int | None
    ) -> None:
        self._text, self._room = PlainIds(text), room
        self._begin, self._end = _with_end(tokenizer, named_end)

    def of_many(self, documents: Sequence[str]) -> list[Sequence[Conversation | None]]:
        """The pieces of each; (None,) for one that spells control tokens which this tokenizer can
        only give as such, or that nothing is left to mark with."""
        return [self._pieces(*found) for found in self._text.of_many(documents)]

    def _pieces(self, ids: list[int] | None, spells: bool) -> Sequence[Conversation | None]:
        if ids is None:
            return (None,)
        whole = [*self._begin, *ids, *self._end]
        return [
            Conversation(piece, [IGNORED, *piece[1:]], spells, continues=place > 0)
            for place, piece in enumerate(_cut(whole, self._room))
        ]


def _cut(ids: list[int], room: int) -> Iterator[list[int]]:
    """Pieces that share a token with the one before; room for two at least."""
    step = max(1, room - 1)
    for start in range(0, max(1, len(ids) - 1), step):
        yield ids[start : start + step + 1]


def around(tokenizer: ChatTokenizer) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before a text and behind it."""
    bare = list(tokenizer(_ANY_TEXT, add_special_tokens=False)["input_ids"])
    whole = list(tokenizer(_ANY_TEXT, add_special_tokens=True)["input_ids"])
    places = (p for p in range(len(whole)) if whole[p : p + len(bare)] == bare)
    start = next(places, len(whole))
    return (whole[:start], whole[start + len(bare) :]) if start < len(whole) else ([], [])


def closed(ids: list[int], end: list[int]) -> list[int]:
    """`ids` of a text that lost its end where a sequence had no more room, closed again."""
    return ids if not end or ids[-len(end) :] == end else [*ids[: -len(end)], *end]


def _with_end(tokenizer: ChatTokenizer, named_end: int | None) -> tuple[list[int], list[int]]:
    """As `around`, with the tokenizer's end in any case."""
    before, behind = around(tokenizer)
    if behind:
        return before, behind
    end = named_end if tokenizer.eos_token_id is None else tokenizer.eos_token_id
    if end is None:
        raise SiloOperatorError(
            "tokenizer of the base model",
            expected="an eos_token, at which a document ends",
            found="none in tokenizer_config.json, special_tokens_map.json, generation_config.json "
            "or config.json",
            action="use a base model with all files of its tokenizer",
        )
    return before, [end]
