"""A prompt and its answer as a turn of the base model's chat template: token ids, and which of them
count.

The template is rendered on the day that the plan names. Labels are -100 on the prompt, so that only
the answer and its end-of-turn tokens count. Control tokens are those of the template: what the
texts of a record spell stays text (`record_text`), and is counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from infra.base_model.chat_template import ANSWER, PROMPT, ChatTemplate, chosen_template, on_day
from silo_agent.training.ranks.record_text import RecordText, marks_for

IGNORED = -100
"""The label that cross entropy skips (PyTorch's `ignore_index`)."""


class ChatTokenizer(Protocol):
    """What a conversation needs of a tokenizer; Hugging Face tokenizers satisfy it."""

    chat_template: Any
    special_tokens_map: Any
    added_tokens_decoder: Any
    eos_token_id: int | None

    def __call__(self, text: str | list[str], *, add_special_tokens: bool) -> Any: ...


Refusal = Literal["template", "border", "length"]
"""Why a conversation is left out: the chat template raises on it, or leaves a turn out; it has no
border before an answer; its answers stand apart and are too long with what comes before them."""


@dataclass(frozen=True)
class Conversation:
    """What a model is told of a record, or a piece of that.

    `spells_controls`: its texts spell control tokens, which were taken as text. It `continues` the
    record of the one before it; `apart` is one answer of a conversation whose template changes
    earlier turns. One that is `refused`, as it is rendered, has no tokens.
    """

    token_ids: list[int]
    labels: list[int]
    spells_controls: bool = False
    continues: bool = False
    apart: bool = False
    refused: Refusal | None = None


class Conversations:
    """Makes conversations of records with one tokenizer, as on `day` ("2026-11-29").

    Raises SiloOperatorError when the tokenizer has no chat template, and DataStewardError when it
    has one that cannot be trained with.
    """

    def __init__(self, tokenizer: ChatTokenizer, day: str) -> None:
        self._template = template_of(tokenizer, day)
        self._text = RecordText(tokenizer)
        sample = self._template.turn(PROMPT, ANSWER)
        self._own_controls = tuple(map(self._controls, (sample.before, sample.answer)))

    def of(self, prompt: str, answer: str) -> Conversation | None:
        """The turn, whose prompt is tokenized alone, as it is in generation.

        None when its texts spell control tokens that this tokenizer can only give as such, or that
        nothing is left to mark with. Raises
        DataStewardError when the template raises on it, or finds no border before the answer.
        """
        return self.of_many([(prompt, answer)])[0]

    def of_many(self, records: Sequence[tuple[str, str]]) -> list[Conversation | None]:
        """As `of`, of several (prompt, answer) at once, which fast tokenizers share among cores."""
        turns = [self._template.turn(prompt, answer) for prompt, answer in records]
        ids = self._text.ids_of([turn.before for turn in turns] + [turn.answer for turn in turns])
        parts = zip(records, ids[: len(turns)], ids[len(turns) :], strict=True)
        return [self._told(*record, asked, answered) for record, asked, answered in parts]

    def _told(
        self, prompt: str, answer: str, asked: list[int], answered: list[int]
    ) -> Conversation | None:
        found = (self._text.controls(asked), self._text.controls(answered))
        texts = (prompt, answer)
        if not any(map(self._text.names_unknown, texts)) and (
            found == self._own_controls or not any(map(self._controls, texts))
        ):
            return _conversation(asked, answered)
        return self._as_text(prompt, answer)

    def _as_text(self, prompt: str, answer: str) -> Conversation | None:
        """Only what spells a control token is encoded apart, as long as nothing else makes one: a
        normaliser can make control tokens of what does not look like them."""
        marks = marks_for(prompt, answer)
        if marks is None:
            return None
        for whole in (False, True):
            texts = (self._text.marked(text, marks, whole=whole) for text in (prompt, answer))
            turn = self._template.turn(*texts)
            asked = self._text.ids_of_marked(turn.before, marks)
            answered = self._text.ids_of_marked(turn.answer, marks)
            if (self._text.controls(asked), self._text.controls(answered)) == self._own_controls:
                return _conversation(asked, answered, spells_controls=True)
        return None

    def _controls(self, text: str) -> list[int]:
        return self._text.controls(self._text.ids(text))


def template_of(tokenizer: ChatTokenizer, day: str) -> ChatTemplate:
    """The tokenizer's template as on `day`; raises as `Conversations` does."""
    text = chosen_template(tokenizer.chat_template)
    return ChatTemplate(text, tokenizer.special_tokens_map, on_day(day))


def _conversation(
    asked: list[int], answered: list[int], *, spells_controls: bool = False
) -> Conversation:
    labels = [IGNORED] * len(asked) + answered
    return Conversation(asked + answered, labels, spells_controls)
