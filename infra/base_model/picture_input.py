"""How a model takes pictures: how wide and high, and what is a mean and a deviation of a colour.

From `preprocessor_config.json` beside the model, where most have it; CLIP's own numbers else.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_contracts.errors import SiloOperatorError
from infra.base_model.tokenizer_files import json_object
from infra.disk.model_parts import CONFIG_FILE

PREPROCESSOR_FILE = "preprocessor_config.json"
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
"""Of the pictures that CLIP was trained on (openai/CLIP, clip.py)."""
MOST_SIDE = 4096

Colours = tuple[float, float, float]


@dataclass(frozen=True)
class PictureInput:
    """`side` in pixels; `mean` and `deviation` of red, green and blue, from 0 to 1."""

    side: int
    mean: Colours = CLIP_MEAN
    deviation: Colours = CLIP_DEVIATION


def picture_input(model_dir: Path) -> PictureInput:
    """Raises SiloOperatorError where the model does not say how large its pictures are."""
    vision = json_object(model_dir / CONFIG_FILE).get("vision_config")
    side = vision.get("image_size") if isinstance(vision, dict) else None
    if type(side) is not int or not 1 <= side <= MOST_SIDE:
        raise SiloOperatorError(
            f"{CONFIG_FILE} of the base model {model_dir}",
            expected=f"vision_config.image_size, the side of a picture in pixels, at most "
            f"{MOST_SIDE}",
            found="none" if side is None else repr(side)[:40],
            action="use a dual encoder such as CLIP, with all of its files",
        )
    told = json_object(model_dir / PREPROCESSOR_FILE)
    return PictureInput(
        side,
        _colours(told.get("image_mean"), CLIP_MEAN),
        _colours(told.get("image_std"), CLIP_DEVIATION),
    )


def _colours(stated: Any, usual: Colours) -> Colours:
    is_list = isinstance(stated, list) and len(stated) == len(usual)
    if not is_list or not all(isinstance(each, int | float) and each > 0 for each in stated):
        return usual
    red, green, blue = stated
    return float(red), float(green), float(blue)
