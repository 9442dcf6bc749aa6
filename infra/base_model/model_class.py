"""Which class of transformers a task is done with; only processes that load models import it."""

from typing import Any

from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
)

from data_contracts.protocol.records.model_family import FamilyTask, ModelFamily

_CLASSES: dict[ModelFamily, Any] = {
    "causal-lm": AutoModelForCausalLM,
    "masked-lm": AutoModelForMaskedLM,
    "sequence-classification": AutoModelForSequenceClassification,
}


def model_class(task: FamilyTask) -> Any:
    """The factory with `from_config` and `from_pretrained`."""
    return _CLASSES[task.family]


def model_options(task: FamilyTask) -> dict[str, Any]:
    """What of the task its model is made with: the classes of its head."""
    if task.classes is None:
        return {}
    names = dict(enumerate(task.classes))
    return {
        "num_labels": len(names),
        "id2label": names,
        "label2id": {name: number for number, name in names.items()},
        "problem_type": "single_label_classification",
    }
