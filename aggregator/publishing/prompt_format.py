"""How the base model's chat template renders a record, read from the model's files alone.

The tokenizer itself would load PyTorch. A template is a program in somebody else's file, so it
runs in Jinja's sandbox, as it does in transformers; one that fails here gives no sample, and the
model card then describes the format in words.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.artifact import ArtifactRef
from infra.disk.file_digests import FileDigests
from infra.disk.model_files import model_digest, model_files

PROMPT, ANSWER = "THE PROMPT", "THE ANSWER"
TODAY = "TODAY"
MAX_SAMPLE_CHARACTERS = 8000
MAX_TEMPLATE_BYTES = 1024 * 1024

_TEMPLATE_NAME = "chat_template.jinja"
_CONFIG_NAMES = ("special_tokens_map.json", "tokenizer_config.json")
_TOKENIZER_NAMES = {
    *("added_tokens.json", "merges.txt", "special_tokens_map.json", "tokenizer.json"),
    *("tokenizer_config.json", "vocab.json", "vocab.txt", _TEMPLATE_NAME),
}
# A template can do what any small program can; none of it is a reason to publish no adapter.
_TEMPLATE_FAULTS = (
    *(TemplateError, ArithmeticError, AttributeError, LookupError),
    *(RecursionError, TypeError, ValueError),
)


@dataclass(frozen=True)
class PromptSample:
    """A record as training rendered it: what comes before the answer, and the answer to its end."""

    before: str
    answer: str


@dataclass(frozen=True)
class PromptFormat:
    """`sample` is None where the template cannot be rendered here; `files` make the tokenizer."""

    sample: PromptSample | None
    files: tuple[tuple[str, ArtifactRef], ...]


def prompt_format(model_dir: Path, digest: str, cache_file: Path) -> PromptFormat | None:
    """Of the model in `model_dir`, or None where it is not the one with this digest."""
    try:
        if model_digest(model_dir, cache_file) != digest:
            return None
        files = model_files(model_dir)
    except (SiloOperatorError, OSError):
        return None
    digests = FileDigests(cache_file)
    tokenizer = {name: path for name, path in files.items() if _is_of_tokenizer(name)}
    listed = tuple((name, digests.artifact(path)) for name, path in tokenizer.items())
    return PromptFormat(render_sample(model_dir), listed)


def render_sample(model_dir: Path) -> PromptSample | None:
    """One turn as training renders it, in the place of whose texts two placeholders stand."""
    try:
        tokens, template = _special_tokens(model_dir), _chat_template(model_dir)
        if template is None:
            return None
        asked = [{"role": "user", "content": PROMPT}]
        answered = [*asked, {"role": "assistant", "content": ANSWER}]
        before = _render(template, asked, tokens, for_answer=True)
        whole = _render(template, answered, tokens, for_answer=False)
    except (OSError, *_TEMPLATE_FAULTS):
        return None
    answer = whole.removeprefix(before)
    is_usable = whole.startswith(before) and len(answer) > 0 and len(whole) <= MAX_SAMPLE_CHARACTERS
    return PromptSample(before, answer) if is_usable else None


def _is_of_tokenizer(name: str) -> bool:
    path = PurePosixPath(name)
    return path.name in _TOKENIZER_NAMES or path.suffix in {".jinja", ".model"}


def _chat_template(model_dir: Path) -> str | None:
    """Of a file of its own, or of the tokenizer's configuration as older models have it."""
    path = model_dir / _TEMPLATE_NAME
    if path.exists():
        return path.read_text("utf-8") if path.stat().st_size <= MAX_TEMPLATE_BYTES else None
    found = _json_object(model_dir / "tokenizer_config.json").get("chat_template")
    if isinstance(found, list):
        named = {entry["name"]: entry["template"] for entry in found}
        found = named.get("default")
    return found if isinstance(found, str) else None


def _special_tokens(model_dir: Path) -> dict[str, str]:
    """What a template calls `bos_token`, `eos_token` and the like."""
    found: dict[str, str] = {}
    for name in _CONFIG_NAMES:
        for key, value in _json_object(model_dir / name).items():
            text = value.get("content") if isinstance(value, dict) else value
            if key.endswith("_token") and isinstance(text, str):
                found[key] = text
    return found


def _json_object(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return content if isinstance(content, dict) else {}


def _render(
    template: str, messages: Sequence[dict[str, str]], tokens: dict[str, str], *, for_answer: bool
) -> str:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _refuse, "strftime_now": lambda _format: TODAY}
    rendered: str = environment.from_string(template).render(
        messages=list(messages),
        tools=None,
        documents=None,
        add_generation_prompt=for_answer,
        **tokens,
    )
    return rendered


class _Generation(Extension):
    """`generation` blocks mark what the assistant says and render as what is in them."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The statements inside of the block."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
