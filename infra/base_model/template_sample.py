"""What a chat template makes of a conversation with words of its own in every turn: a template that
leaves any of them out would have a model learn answers without what they rest on.

A turn that says nothing, as an empty system message, has none.
"""

import re
from collections.abc import Sequence

from infra.base_model.chat_template import ChatTemplate, Told, template_fault

Shape = tuple[tuple[str, bool], ...]
"""Of every turn its role, and whether it says anything."""

_WORDS = re.compile(r"THE WORDS OF ([0-9]+) TURN")


def sample_told(template: ChatTemplate, shape: Shape) -> Told:
    """As the template renders such a conversation; raises as `ChatTemplate.told`, and
    DataStewardError when it leaves a turn out."""
    told = template.told(
        [
            {"role": role, "content": f"THE WORDS OF {place} TURN" if speaks else ""}
            for place, (role, speaks) in enumerate(shape)
        ]
    )
    if _loses_words(told, shape):
        raise template_fault("one that renders all turns", "turns that it leaves out")
    return told


def shape_of(*roles: str) -> Shape:
    """Turns that all say something."""
    return tuple((role, True) for role in roles)


def _loses_words(told: Told, shape: Shape) -> bool:
    """Answers are looked for in their turns, all else in what comes before the next answer."""
    answers = [place for place, (role, _) in enumerate(shape) if role == "assistant"]
    begin = 0
    for place, turn in zip(answers[-len(told.turns) :], told.turns, strict=True):
        asked, answered = (_speaking(shape, span) for span in (range(begin, place), [place]))
        if not (asked <= _places(turn.before) and answered <= _places(turn.answer)):
            return True
        begin = begin if told.apart else place + 1
    return False


def _speaking(shape: Shape, places: Sequence[int]) -> set[int]:
    return {place for place in places if shape[place][1]}


def _places(text: str) -> set[int]:
    return {int(place) for place in _WORDS.findall(text)}
