"""Which class of transformers a task is done with; only processes that load models import it."""

from typing import Any

from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
)

from data_contracts.protocol.records.model_family import FamilyTask, ModelFamily

_CLASSES: dict[ModelFamily, Any] = {
    "causal-lm": AutoModelForCausalLM,
    "masked-lm": AutoModelForMaskedLM,
    "sequence-classification": AutoModelForSequenceClassification,
    "dual-encoder": AutoModel,
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


def misfit(model: Any, task: FamilyTask) -> str | None:
    """Why a model that could be loaded is none of its family; None where it is one."""
    if task.family != "dual-encoder":
        return None
    has_features = all(hasattr(model, f"get_{kind}_features") for kind in ("image", "text"))
    if not has_features or not hasattr(model, "logit_scale"):
        return f"{type(model).__name__} gives no embeddings of pictures and of text, as CLIP does"
    if hasattr(model, "logit_bias"):
        return f"{type(model).__name__} has another loss than CLIP, with a bias"
    return None


def text_embeddings(model: Any) -> Any:
    """The module with a row for each token; of a dual encoder that of its text side."""
    side = getattr(model, "text_model", model)
    return side.get_input_embeddings()
