"""What the files of a tokenizer say of it, without loading it: that would load PyTorch."""

import json
from pathlib import Path
from typing import Any

from data_contracts.errors import DataStewardError, SiloOperatorError
from infra.base_model.chat_template import (
    ANSWER,
    MAX_TEMPLATE_BYTES,
    PROMPT,
    ChatTemplate,
    Strftime,
    chosen_template,
)
from infra.base_model.template_sample import sample_told, shape_of

TEMPLATE_NAME = "chat_template.jinja"
TOKENIZER_NAME = "tokenizer.json"
_CONFIG_NAMES = ("special_tokens_map.json", "tokenizer_config.json")
_EOS_NAMES = ("generation_config.json", "config.json")
DATE = "THE DATE"
MAX_TOKENIZER_BYTES = 256 * 1024 * 1024


def chat_template(model_dir: Path, strftime: Strftime) -> ChatTemplate:
    """The template that is trained with, of a file of its own or of the tokenizer's configuration
    as older models have it.

    Raises SiloOperatorError when there is none that can be read, DataStewardError when it is one
    that cannot be compiled, or one of several without a default.
    """
    return ChatTemplate(_template_text(model_dir), special_tokens(model_dir), strftime)


def has_template(model_dir: Path) -> bool:
    """Whether there is a chat template, of whatever kind; raises SiloOperatorError for files that
    cannot be read."""
    if (model_dir / TEMPLATE_NAME).exists():
        return True
    return bool(json_object(model_dir / "tokenizer_config.json").get("chat_template"))


def template_notes(model_dir: Path) -> list[str]:
    """What conversations of several turns are to the template, where it is not what one expects;
    raises as `chat_template` does."""
    if not has_template(model_dir):
        return ["no chat template: for contracts of plain text alone (form text)"]
    template = chat_template(model_dir, lambda _format: DATE)
    exchange = ("user", "assistant")
    notes: list[str] = []
    try:
        if sample_told(template, shape_of(*exchange, *exchange)).apart:
            notes.append(
                "its chat template changes earlier turns when later ones follow: answers of a "
                "conversation are told one by one, each behind what comes before it"
            )
    except DataStewardError:
        notes.append(
            "its chat template refuses several turns, or does not render all of them: such "
            "conversations are left out"
        )
    try:
        sample_told(template, shape_of("system", *exchange))
    except DataStewardError:
        notes.append(
            "its chat template refuses a system message, or does not render it: such "
            "conversations are left out"
        )
    return notes


def writes_date(model_dir: Path) -> bool:
    """Whether the template writes a date into a turn; raises as `chat_template` and `turn` do."""
    turn = chat_template(model_dir, lambda _format: DATE).turn(PROMPT, ANSWER)
    return DATE in turn.before + turn.answer


def special_tokens(model_dir: Path) -> dict[str, str]:
    """What a template calls `bos_token`, `eos_token` and the like."""
    found: dict[str, str] = {}
    for name in _CONFIG_NAMES:
        for key, value in json_object(model_dir / name).items():
            text = value.get("content") if isinstance(value, dict) else value
            if key.endswith("_token") and isinstance(text, str):
                found[key] = text
    return found


def has_end(model_dir: Path) -> bool:
    """Whether anything names the token at which the model's answers end."""
    return "eos_token" in special_tokens(model_dir) or named_end(model_dir) is not None


def named_end(model_dir: Path) -> int | None:
    """The id of the token that ends what the model writes, as its configurations name it; of
    several the first, which is that of a text before those of turns."""
    for name in _EOS_NAMES:
        found = json_object(model_dir / name).get("eos_token_id")
        ends = found if isinstance(found, list) else [found]
        if ends and type(ends[0]) is int and ends[0] >= 0:
            return ends[0]
    return None


def highest_token(model_dir: Path) -> int | None:
    """The highest id that the tokenizer can give; None where its vocabulary is in no
    tokenizer.json."""
    path = model_dir / TOKENIZER_NAME
    if not path.exists() or path.stat().st_size > MAX_TOKENIZER_BYTES:
        return None
    tokenizer = json_object(path)
    model = tokenizer.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    ids: list[int] = []
    if isinstance(vocabulary, dict):
        ids += [number for number in vocabulary.values() if isinstance(number, int)]
    elif isinstance(vocabulary, list):
        ids.append(len(vocabulary) - 1)
    added = tokenizer.get("added_tokens")
    for token in added if isinstance(added, list) else []:
        if isinstance(token, dict) and isinstance(token.get("id"), int):
            ids.append(token["id"])
    return max(ids, default=None)


def json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file, empty where there is no file; raises SiloOperatorError when it is
    something else."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise SiloOperatorError(
            f"file of a base model, {path}",
            expected="a JSON object",
            found="something else",
            action="copy it again and compare its size and digest with where it came from",
        )
    return found


def _template_text(model_dir: Path) -> str:
    path = model_dir / TEMPLATE_NAME
    if not path.exists():
        return chosen_template(
            json_object(model_dir / "tokenizer_config.json").get("chat_template")
        )
    try:
        if path.stat().st_size <= MAX_TEMPLATE_BYTES:
            return chosen_template(path.read_text("utf-8"))
        found = f"{path.stat().st_size:,} bytes"
    except (OSError, UnicodeDecodeError) as error:
        found = type(error).__name__
    raise SiloOperatorError(
        f"chat template {path}",
        expected=f"a text of at most {MAX_TEMPLATE_BYTES:,} bytes",
        found=found,
        action="copy it again and compare its size and digest with where it came from",
    )
