"""The families of base models: what a model is asked to predict, and of which records.

A plan names its family; a plan of earlier releases, which names none, is of causal models. What a
family does in training is a module of the silo's training room; here is what both sides and the
policy judge by.
"""

from typing import Literal

from pydantic import Field

from data_contracts.protocol.wire_types import Part, Text

ModelFamily = Literal[
    "causal-lm", "masked-lm", "sequence-classification", "dual-encoder", "denoising"
]

FORMS_OF: dict[ModelFamily, tuple[str, ...]] = {
    "causal-lm": ("instruction", "chat", "text", "classification"),
    "masked-lm": ("text",),
    "sequence-classification": ("classification",),
    "dual-encoder": ("image-text",),
    "denoising": ("image-text",),
}
"""The forms of records that a family is trained on."""


class FamilyTask(Part):
    """What is learned: the family, and for classification the classes in the order of the head."""

    family: ModelFamily
    classes: tuple[Text, ...] | None = Field(default=None, exclude_if=lambda value: value is None)
