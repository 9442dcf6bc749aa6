"""A conversation of several turns as the base model's chat template renders it: token ids, with
loss on every turn of the assistant.

Where a turn begins and ends is found by rendering the conversation up to there: what a template
adds for the assistant to begin is prompt, what it writes until the next turn begins is answer, as
it is for one turn (`conversation`). Prompt parts and answers are tokenised one by one. A template
that renders earlier turns otherwise when later ones follow, as those do that drop earlier thinking,
has no such borders in the whole: then every answer becomes a conversation of its own, behind all
that comes before it, as it does when the model is asked. What the template refuses is left out, and
so is a conversation of which it leaves out a turn, as its sample shows (`template_sample`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from data_contracts.dataset.examples import Message
from data_contracts.errors import DataStewardError
from data_contracts.shown_text import is_blank
from infra.base_model.chat_template import (
    ChatTemplate,
    NoBorderError,
    Told,
    TooLongApartError,
)
from infra.base_model.template_sample import Shape, sample_told
from silo_agent.training.ranks.conversation import IGNORED, Conversation, Refusal
from silo_agent.training.ranks.record_text import RecordText, marks_for

MOST_LETTERS_APART = 4 * 1024 * 1024
"""Of a conversation whose answers stand apart, in all of them together."""
SHAPES_KEPT = 256

Parts = list[list[int]]
"""Token ids of each part, prompt and answer by turns."""


@dataclass(frozen=True)
class _Rendered:
    """A conversation with its parts as texts, prompt and answer by turns."""

    messages: Sequence[Message]
    parts: list[str]
    apart: bool

    @property
    def goes_on(self) -> list[bool]:
        """Whether each part goes on from the one before it."""
        return [place % 2 == 1 if self.apart else place > 0 for place in range(len(self.parts))]


class ChatTurns:
    """Makes conversations of messages with one template."""

    def __init__(self, template: ChatTemplate, text: RecordText) -> None:
        self._template, self._text = template, text
        self._shapes: dict[Shape, list[list[int]]] = {}

    def of_many(
        self, conversations: Sequence[Sequence[Message]]
    ) -> list[Sequence[Conversation | None]]:
        """One conversation of each, several where its answers stand apart.

        (None,) for one that spells control tokens which this tokenizer can only give as such.
        """
        rendered = [self._rendered(messages) for messages in conversations]
        whole = [each for each in rendered if isinstance(each, _Rendered)]
        ids = iter(
            self._text.ids_of_parts(
                [part for each in whole for part in each.parts],
                [goes_on for each in whole for goes_on in each.goes_on],
            )
        )
        return [
            self._told(each, [next(ids) for _ in each.parts])
            if isinstance(each, _Rendered)
            else _refused(each)
            for each in rendered
        ]

    def _rendered(self, messages: Sequence[Message]) -> _Rendered | Refusal:
        """Or why it is left out."""
        try:
            told = self._template.told(
                [message._asdict() for message in messages], MOST_LETTERS_APART
            )
            self._own_controls(messages)
        except NoBorderError:
            return "border"
        except TooLongApartError:
            return "length"
        except DataStewardError:
            return "template"
        return _Rendered(messages, _parts(told), told.apart)

    def _told(self, rendered: _Rendered, ids: Parts) -> Sequence[Conversation | None]:
        found = list(map(self._text.controls, ids))
        texts = [message.content for message in rendered.messages]
        own = self._own_controls(rendered.messages)
        if not any(map(self._text.names_unknown, texts)) and (
            found == own or not any(map(self._controls, texts))
        ):
            return _conversations(ids, apart=rendered.apart)
        return self._as_text(rendered.messages, own)

    def _as_text(
        self, messages: Sequence[Message], own: list[list[int]]
    ) -> Sequence[Conversation | None]:
        """As `Conversations` does it for one turn."""
        marks = marks_for(*(message.content for message in messages))
        if marks is None:
            return (None,)
        for whole in (False, True):
            # What says nothing stays so: a template may ask.
            marked = [
                Message(role, content)
                if is_blank(content)
                else Message(role, self._text.marked(content, marks, whole=whole))
                for role, content in messages
            ]
            rendered = self._rendered(marked)
            if not isinstance(rendered, _Rendered):
                return _refused(rendered)
            ids = self._marked_ids(rendered, marks)
            if list(map(self._text.controls, ids)) == own:
                return _conversations(ids, apart=rendered.apart, spells_controls=True)
        return (None,)

    def _marked_ids(self, rendered: _Rendered, marks: tuple[str, str]) -> Parts:
        ids: Parts = []
        before: list[int] = []
        for part, goes_on in zip(rendered.parts, rendered.goes_on, strict=True):
            before = before if goes_on else []
            ids.append(self._text.ids_of_marked(part, marks, before))
            before = ids[-1] or before
        return ids

    def _own_controls(self, messages: Sequence[Message]) -> list[list[int]]:
        """Control tokens that the template writes into each part of such a conversation, whatever
        is said in it; raises DataStewardError where it does not render all of its turns."""
        shape = tuple((message.role, not is_blank(message.content)) for message in messages)
        if shape not in self._shapes:
            if len(self._shapes) >= SHAPES_KEPT:
                self._shapes.clear()
            parts = _parts(sample_told(self._template, shape))
            self._shapes[shape] = list(map(self._controls, parts))
        return self._shapes[shape]

    def _controls(self, text: str) -> list[int]:
        return self._text.controls(self._text.ids(text))


def _refused(why: Refusal) -> Sequence[Conversation]:
    return (Conversation([], [], refused=why),)


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
