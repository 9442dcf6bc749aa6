"""Where in a base model's folder what lies: the model that is trained, and what goes with it.

Most folders are one model with its tokenizer beside it. A pipeline of diffusers is several models,
each in a folder of its own that `model_index.json` names. Whoever reads a file of a base model asks
here in which folder it is.
"""

from dataclasses import dataclass
from pathlib import Path

CONFIG_FILE = "config.json"
PIPELINE_FILE = "model_index.json"


@dataclass(frozen=True)
class ModelParts:
    """Folders: `trained` with the configuration and the weights of the model that adapters sit on,
    `text` with those of the model that reads the tokens of `tokenizer`."""

    trained: Path
    text: Path
    tokenizer: Path

    @property
    def config(self) -> Path:
        """The configuration of the model that is trained."""
        return self.trained / CONFIG_FILE

    @property
    def text_config(self) -> Path:
        """The configuration of the model that reads tokens."""
        return self.text / CONFIG_FILE


def is_pipeline(model_dir: Path) -> bool:
    """Whether the folder is a pipeline of several models."""
    return (model_dir / PIPELINE_FILE).is_file()


def parts_of(model_dir: Path) -> ModelParts:
    """Of a folder, whose files need not be there."""
    if is_pipeline(model_dir):
        return ModelParts(model_dir / "unet", model_dir / "text_encoder", model_dir / "tokenizer")
    return ModelParts(model_dir, model_dir, model_dir)
