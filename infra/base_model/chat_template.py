"""How a chat template renders turns, on a date that is given: never on that of today.

A template is a program in somebody else's file, so it runs in Jinja's sandbox with what
transformers gives it (`transformers.utils.chat_template_utils`), and with one thing changed:
`strftime_now` tells the date that the plan names. A template that writes the date of the day would
otherwise train every round on another prompt, and give held-out losses that differ from day to day
by more than what decides about publication.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from data_contracts.errors import DataStewardError, SiloOperatorError

PROMPT, ANSWER = "THE PROMPT", "THE ANSWER"
MAX_TEMPLATE_BYTES = 1024 * 1024
DEFAULT_NAME = "default"

# A template can do what any small program can.
_FAULTS = (
    *(TemplateError, ArithmeticError, AttributeError, LookupError),
    *(RecursionError, TypeError, ValueError),
)

Strftime = Callable[[str], str]


class NoBorderError(DataStewardError):
    """A prompt's part changes with its answer, so that nobody can say where the answer begins."""


class TooLongApartError(DataStewardError):
    """Answers that have to stand apart are too many, or too long, with what comes before them."""


def on_day(day: str) -> Strftime:
    """`strftime_now` for a template: midnight of `day`, "2026-11-29"."""
    return datetime.fromisoformat(day).strftime


@dataclass(frozen=True)
class Turn:
    """One turn as it is rendered: what comes before the answer, and the answer to its end."""

    before: str
    answer: str


@dataclass(frozen=True)
class Told:
    """What a conversation is to a model: the assistant's turns, each with what comes before it.

    One after the other they are the whole as it is rendered; where they stand `apart`, because the
    template renders an earlier turn otherwise when a later one follows, each has all that comes
    before it in front.
    """

    turns: tuple[Turn, ...]
    apart: bool


class ChatTemplate:
    """One template; `tokens` are what it calls `bos_token`, `eos_token` and the like."""

    def __init__(self, text: str, tokens: Mapping[str, str], strftime: Strftime) -> None:
        self._template, self._tokens = _compiled(text, strftime), dict(tokens)

    def turn(self, prompt: str, answer: str) -> Turn:
        """The rendered turn; raises DataStewardError when the template raises, or has no border
        between prompt and answer because the prompt's part changes with the answer."""
        asked = [{"role": "user", "content": prompt}]
        answered = [*asked, {"role": "assistant", "content": answer}]
        before = self._rendered(asked, for_answer=True)
        whole = self._rendered(answered, for_answer=False)
        rest = whole.removeprefix(before)
        if not whole.startswith(before) or not rest:
            raise _no_border()
        return Turn(before, rest)

    def told(self, messages: Sequence[dict[str, str]], most_apart: int | None = None) -> Told:
        """A conversation of any turns, of which one at least is the user's, and a later one the
        assistant's. A greeting before the first question is a turn where the template can begin
        with nothing, and else a part of what comes before the first answer.

        Raises DataStewardError when the template raises on it, NoBorderError when it has no border
        before an answer, and TooLongApartError as soon as answers that have to stand apart are
        more than `most_apart` letters in all, with what comes before each.
        """
        turns: list[Turn] = []
        done, apart, letters = "", False, 0
        for place, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self._before(messages[:place])
            if before is None:
                continue
            whole = self._rendered(messages[: place + 1], for_answer=False)
            if not whole.startswith(before) or whole == before:
                raise _no_border()
            becomes_apart = not apart and not before.startswith(done)
            apart, letters = apart or becomes_apart, letters + len(whole)
            if apart and most_apart is not None and letters > most_apart:
                raise _too_long_apart(most_apart)
            # While turns go on from one another only what each adds is kept: whole beginnings of a
            # thousand turns would be a thousand times the conversation.
            turns = _each_whole(turns) if becomes_apart else turns
            turns.append(Turn(before if apart else before[len(done) :], whole[len(before) :]))
            done = whole
        return Told(tuple(turns), apart)

    def _before(self, messages: Sequence[dict[str, str]]) -> str | None:
        """What comes before an answer; None where nobody has asked yet, and the template asks who
        did."""
        try:
            return self._rendered(messages, for_answer=True)
        except DataStewardError:
            if any(message["role"] == "user" for message in messages):
                raise
            return None

    def _rendered(self, messages: Sequence[dict[str, str]], *, for_answer: bool) -> str:
        try:
            rendered: str = self._template.render(
                messages=list(messages),
                tools=None,
                documents=None,
                add_generation_prompt=for_answer,
                **self._tokens,
            )
        except _FAULTS as error:
            # Of what it raises only the kind: its words can repeat a record's.
            found = f"it raises {type(error).__name__}"
            raise template_fault("one that renders a question and its answer", found) from error
        return rendered


def chosen_template(found: object) -> str:
    """The text of a template as a tokenizer has it: one, or the one called default of several.

    Raises SiloOperatorError when there is none, DataStewardError for several without a default.
    """
    if isinstance(found, list):
        named = [entry for entry in found if isinstance(entry, dict)]
        found = {entry.get("name"): entry.get("template") for entry in named}
    if isinstance(found, Mapping):
        if DEFAULT_NAME not in found:
            names = ", ".join(sorted(str(name) for name in found)) or "none"
            expected = "one template, or several of which one is called default"
            raise template_fault(expected, f"templates called {names}"[:200])
        found = found[DEFAULT_NAME]
    if not isinstance(found, str) or not found:
        raise SiloOperatorError(
            "tokenizer of the base model",
            expected="a chat template",
            found="none",
            action="use an instruction-tuned base model, with its chat_template.jinja",
        )
    return found


def _each_whole(turns: Sequence[Turn]) -> list[Turn]:
    """Turns that go on from one another, each with all that comes before it."""
    whole: list[Turn] = []
    done = ""
    for turn in turns:
        whole.append(Turn(done + turn.before, turn.answer))
        done += turn.before + turn.answer
    return whole


def _no_border() -> DataStewardError:
    return template_fault(
        "one whose prompt part stays the same when the answer follows",
        "a prompt part that changes with the answer, so no border can be found",
        NoBorderError,
    )


def _too_long_apart(most: int) -> DataStewardError:
    return template_fault(
        f"one that keeps earlier turns, or conversations of at most {most:,} letters when each "
        "answer is told behind all that comes before it",
        "more letters",
        TooLongApartError,
    )


def template_fault(
    expected: str, found: str, kind: type[DataStewardError] = DataStewardError
) -> DataStewardError:
    """The one message for a template that cannot be trained with.

    Nobody at the silo can mend it, so it is a reason to refuse rounds and none to end the agent.
    """
    return kind(
        "chat template of the base model",
        expected=expected,
        found=found,
        action="ask the federation operator for a base model with another chat template, or leave "
        "this run",
    )


def _compiled(text: str, strftime: Strftime) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _refuse, "strftime_now": strftime}
    try:
        return environment.from_string(text)
    except TemplateSyntaxError as error:
        found = f"a syntax error in line {error.lineno}: {error.message}"[:200]
        raise template_fault("a Jinja template", found) from None
    except _FAULTS as error:
        raise template_fault("a Jinja template", type(error).__name__) from None


class _Generation(Extension):
    """`generation` blocks mark what the assistant says and render as what is in them."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The statements inside of the block."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
