"""The families of base models: what a model is asked to predict, and of which records.

A plan names its family; one that names none, as those of earlier releases, is of causal models.
What a family does in training is a module of the silo's training room; here is what both sides and
the policy judge by.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from data_contracts.protocol.wire_types import Part, Text

ModelFamily = Literal[
    "causal-lm", "masked-lm", "sequence-classification", "dual-encoder", "denoising"
]
CAUSAL: ModelFamily = "causal-lm"
DENOISING: ModelFamily = "denoising"
MAX_CLASSES = 10_000

FORMS_OF: dict[ModelFamily, tuple[str, ...]] = {
    "causal-lm": ("instruction", "chat", "text", "classification"),
    "masked-lm": ("text",),
    "sequence-classification": ("classification",),
    "dual-encoder": ("image-text",),
    "denoising": ("image-text",),
}
"""The forms of records that a family is trained on."""


@dataclass(frozen=True)
class LossWords:
    """How the loss of a family is told: what is `asked` of the model, its `unit`, and what a first
    guess that is right is called, where there is such a thing."""

    asked: str
    unit: str
    right: str | None = None


LOSS_WORDS: dict[ModelFamily, LossWords] = {
    "causal-lm": LossWords("answer tokens", "nats per answer token"),
    "masked-lm": LossWords("hidden tokens", "nats per hidden token", "hidden tokens found"),
    "sequence-classification": LossWords("texts", "nats per text", "accuracy"),
    "dual-encoder": LossWords("pairs", "nats per pair", "recall@1"),
    "denoising": LossWords("pictures", "squared error of the noise"),
}


class FamilyTask(Part):
    """What is learned: the family, and for classification the classes in the order of the head."""

    family: ModelFamily
    classes: Annotated[
        tuple[Text, ...] | None,
        Field(min_length=2, max_length=MAX_CLASSES, exclude_if=lambda value: value is None),
    ] = None

    @model_validator(mode="after")
    def _classes_are_of_a_classification(self) -> "FamilyTask":
        if (self.family == "sequence-classification") != (self.classes is not None):
            raise ValueError("classes go with the family sequence-classification, which needs them")
        if len(set(self.classes or ())) != len(self.classes or ()):
            raise ValueError("expected each class once")
        return self

    @property
    def loss(self) -> LossWords:
        """How its loss is told."""
        return LOSS_WORDS[self.family]


CAUSAL_TASK = FamilyTask(family=CAUSAL)
"""That of a plan which names none."""
