"""How the base model's chat template renders a record, read from the model's files alone.

The tokenizer itself would load PyTorch. It is the rendering that is trained with; a template that
fails here gives no sample, and the model card then describes the format in words.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data_contracts.errors import ConsortiaError, SiloOperatorError
from data_contracts.protocol.artifact import ArtifactRef
from infra.base_model.chat_template import ANSWER as ANSWER
from infra.base_model.chat_template import PROMPT as PROMPT
from infra.base_model.chat_template import Turn
from infra.base_model.tokenizer_files import TEMPLATE_NAME, chat_template
from infra.disk.file_digests import FileDigests
from infra.disk.model_files import model_digest, model_files

TODAY = "TODAY"
MAX_SAMPLE_CHARACTERS = 8000

_TOKENIZER_NAMES = {
    *("added_tokens.json", "merges.txt", "special_tokens_map.json", "tokenizer.json"),
    *("tokenizer_config.json", "vocab.json", "vocab.txt", TEMPLATE_NAME),
}


@dataclass(frozen=True)
class PromptFormat:
    """`sample` is None where the template cannot be rendered here; `files` make the tokenizer."""

    sample: Turn | None
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


def render_sample(model_dir: Path) -> Turn | None:
    """One turn as training renders it, in the place of whose texts two placeholders stand, and
    where a template writes the date a third."""
    try:
        turn = chat_template(model_dir, lambda _format: TODAY).turn(PROMPT, ANSWER)
    except (OSError, ConsortiaError):
        return None
    return turn if len(turn.before) + len(turn.answer) <= MAX_SAMPLE_CHARACTERS else None


def _is_of_tokenizer(name: str) -> bool:
    path = PurePosixPath(name)
    return path.name in _TOKENIZER_NAMES or path.suffix in {".jinja", ".model"}
