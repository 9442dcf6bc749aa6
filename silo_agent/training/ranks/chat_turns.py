"""A conversation of several turns as the base model's chat template renders it: token ids, with
loss on every turn of the assistant.

Where a turn begins and ends is found by rendering the conversation up to there: what a template
adds for the assistant to begin is prompt, what it writes until the next turn begins is answer, as
it is for one turn (`conversation`). Prompt parts and answers are tokenised one by one. A template
that renders earlier turns otherwise when later ones follow, as those do that drop earlier thinking,
has no such borders in the whole: then every answer becomes a conversation of its own, behind all
that comes before it, as it does when the model is asked. What the template refuses is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from data_contracts.dataset.examples import Message
from data_contracts.errors import DataStewardError
from infra.base_model.chat_template import ANSWER, PROMPT, ChatTemplate, Told
from silo_agent.training.ranks.conversation import IGNORED, Conversation
from silo_agent.training.ranks.record_text import RecordText, marks_for

MOST_LETTERS_APART = 4 * 1024 * 1024
"""Of a conversation whose answers stand apart, in all of them together."""
SHAPES_KEPT = 256

Shape = tuple[str, ...]
Parts = list[list[int]]
"""Token ids of each part, prompt and answer by turns."""

_REFUSED = Conversation([], [], refused=True)


@dataclass(frozen=True)
class _Rendered:
    """A conversation with its parts as texts, prompt and answer by turns."""

    messages: Sequence[Message]
    parts: list[str]
    apart: bool


class ChatTurns:
    """Makes conversations of messages with one template."""

    def __init__(self, template: ChatTemplate, text: RecordText) -> None:
        self._template, self._text = template, text
        self._shapes: dict[Shape, list[list[int]] | None] = {}

    def of_many(
        self, conversations: Sequence[Sequence[Message]]
    ) -> list[Sequence[Conversation | None]]:
        """One conversation of each, several where its answers stand apart.

        (None,) for one that spells control tokens which this tokenizer can only give as such.
        """
        rendered = [self._rendered(messages) for messages in conversations]
        ids = iter(self._text.ids_of([part for each in rendered if each for part in each.parts]))
        return [
            self._told(each, [next(ids) for _ in each.parts]) if each else (_REFUSED,)
            for each in rendered
        ]

    def _rendered(self, messages: Sequence[Message]) -> _Rendered | None:
        """None where the template refuses it."""
        try:
            told = self._template.told([message._asdict() for message in messages])
        except DataStewardError:
            return None
        parts = _parts(told)
        if told.apart and sum(map(len, parts)) > MOST_LETTERS_APART:
            return None
        return _Rendered(messages, parts, told.apart)

    def _told(self, rendered: _Rendered, ids: Parts) -> Sequence[Conversation | None]:
        found = list(map(self._text.controls, ids))
        texts = [message.content for message in rendered.messages]
        if not any(map(self._text.names_unknown, texts)) and (
            found == self._own_controls(rendered) or not any(map(self._controls, texts))
        ):
            return _conversations(ids, apart=rendered.apart)
        return self._as_text(rendered.messages, self._own_controls(rendered))

    def _as_text(
        self, messages: Sequence[Message], own: list[list[int]] | None
    ) -> Sequence[Conversation | None]:
        """As `Conversations` does it for one turn."""
        marks = marks_for(*(message.content for message in messages))
        for whole in (False, True):
            marked = [
                Message(role, self._text.marked(content, marks, whole=whole))
                for role, content in messages
            ]
            rendered = self._rendered(marked)
            if rendered is None:
                return (_REFUSED,)
            ids = [self._text.ids_of_marked(part, marks) for part in rendered.parts]
            if list(map(self._text.controls, ids)) == own:
                return _conversations(ids, apart=rendered.apart, spells_controls=True)
        return (None,)

    def _own_controls(self, rendered: _Rendered) -> list[list[int]] | None:
        """Control tokens that the template writes into each part of such a conversation, whatever
        is said in it; None where that cannot be rendered."""
        shape = tuple(message.role for message in rendered.messages)
        if shape not in self._shapes:
            if len(self._shapes) >= SHAPES_KEPT:
                self._shapes.clear()
            said = [Message(role, ANSWER if role == "assistant" else PROMPT) for role in shape]
            sample = self._rendered(said)
            self._shapes[shape] = (
                None if sample is None else list(map(self._controls, sample.parts))
            )
        return self._shapes[shape]

    def _controls(self, text: str) -> list[int]:
        return self._text.controls(self._text.ids(text))


def _parts(told: Told) -> list[str]:
    return [part for turn in told.turns for part in (turn.before, turn.answer)]


def _conversations(ids: Parts, *, apart: bool, spells_controls: bool = False) -> list[Conversation]:
    token_ids: list[list[int]] = []
    labels: list[list[int]] = []
    for asked, answered in zip(ids[::2], ids[1::2], strict=True):
        if apart or not token_ids:
            token_ids.append([])
            labels.append([])
        token_ids[-1] += asked + answered
        labels[-1] += [IGNORED] * len(asked) + answered
    for each in labels:
        # Nothing comes before it: in a packed sequence that would be somebody else's end.
        each[:1] = [IGNORED] * len(each[:1])
    pieces = enumerate(zip(token_ids, labels, strict=True))
    return [
        Conversation(*piece, spells_controls, continues=place > 0, apart=apart)
        for place, piece in pieces
    ]
