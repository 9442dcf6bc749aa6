"""How many tokens a base model can take at most, as its configuration says it."""

from pathlib import Path
from typing import Any

from infra.base_model.tokenizer_files import json_object
from infra.disk.model_parts import parts_of

_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "context_length")
LEAST = 16
"""Less than the shortest sequence of a plan is no length of a context, but says "none"."""


def context_tokens(model_dir: Path) -> int | None:
    """As `stated_context` of the model in a folder."""
    return stated_context(json_object(parts_of(model_dir).text_config))


def stated_context(config: dict[str, Any]) -> int | None:
    """None where the model is made for any length, or does not say.

    A model with learned positions fails beyond it, one with others has never been trained there.
    """
    text = config.get("text_config")
    parts: tuple[dict[str, Any], ...] = (text if isinstance(text, dict) else {}, config)
    found = (part.get(name) for part in parts for name in _NAMES)
    return next((size for size in found if type(size) is int and size >= LEAST), None)
