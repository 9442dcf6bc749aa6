"""Whether a base model's folder can be trained with, judged before anything heavy is loaded.

It reads configurations, headers of weights and the tokenizer's files, and needs no torch: so both
sides ask the same, the coordinator when it makes a plan, a silo in `silo-agent check` and before
its ranks start. In order: the files themselves, weights that are whole and in a precision that can
be trained on, all layers that the configuration speaks of, a tokenizer that fits, its template.
What only loading can show, single tensors that are missing, the ranks look at again.
"""

from pathlib import Path

from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.records.model_family import CAUSAL, DENOISING, ModelFamily
from data_contracts.protocol.records.round_plan import ANY_DAY
from infra.base_model.chat_template import ANSWER, PROMPT, on_day, template_fault
from infra.base_model.pipeline_check import require_sound_pipeline
from infra.base_model.tokenizer_files import (
    chat_template,
    has_end,
    has_template,
    json_object,
)
from infra.base_model.weight_files import Weights, is_pointer, pointer, read_weights
from infra.base_model.weights_check import (
    require_fitting_tokenizer,
    require_full_precision,
    require_full_tensors,
    require_layers,
)
from infra.disk.model_files import model_files
from infra.disk.model_parts import CONFIG_FILE, PIPELINE_FILE, is_pipeline


def require_sound(
    model_dir: Path, *, needs_template: bool = True, family: ModelFamily = CAUSAL
) -> Weights:
    """Tensors of the model that is trained; raises SiloOperatorError for what cannot be trained, by
    its name, and DataStewardError for a chat template that cannot be trained with.

    A model that has none is sound where nobody `needs_template`, as plain text does not, nor any
    family but causal models.
    """
    files = model_files(model_dir)
    for path in files.values():
        if is_pointer(path):
            raise pointer(path)
    _require_kind(model_dir, family)
    if family == DENOISING:
        return require_sound_pipeline(model_dir)
    config = json_object(model_dir / CONFIG_FILE)
    require_full_precision(model_dir, config)
    weights = read_weights(model_dir)
    require_full_tensors(model_dir, weights)
    require_layers(model_dir, config, weights)
    require_fitting_tokenizer(model_dir, weights)
    if family == CAUSAL:
        _require_end(model_dir)
    if family == CAUSAL and (needs_template or has_template(model_dir)):
        _require_template(model_dir)
    return weights


def likely_family(model_dir: Path) -> ModelFamily:
    """What a folder is looked at for where no plan says it: a model that ends what it writes is a
    causal one, and one that never ends anything fills in what is hidden."""
    if is_pipeline(model_dir):
        return DENOISING
    return CAUSAL if has_end(model_dir) else "masked-lm"


def elements(weights: Weights) -> int:
    """Numbers in all tensors."""
    return sum(tensor.elements for tensor in weights.values())


def expert_elements(weights: Weights) -> int:
    """Numbers in the experts of a mixture, of which a token uses a few; shared ones not counted."""
    return sum(tensor.elements for name, tensor in weights.items() if ".experts." in name)


def _require_kind(model_dir: Path, family: ModelFamily) -> None:
    """A pipeline is of the family denoising, and a single model of any other."""
    if is_pipeline(model_dir) == (family == DENOISING):
        return
    kinds = (f"a single model, with {CONFIG_FILE}", f"a pipeline, with {PIPELINE_FILE}")
    expected, found = kinds if family != DENOISING else reversed(kinds)
    raise SiloOperatorError(
        f"base model {model_dir}",
        expected=f"{expected}, for the family {family}",
        found=found,
        action="name a base model of that family, or another family for this one",
    )


def _require_end(model_dir: Path) -> None:
    if not has_end(model_dir):
        raise SiloOperatorError(
            f"tokenizer in {model_dir}",
            expected="an eos_token, at which an answer ends",
            found="none in tokenizer_config.json, special_tokens_map.json, generation_config.json "
            "or config.json",
            action="use an instruction-tuned base model, with all files of its tokenizer",
        )


def _require_template(model_dir: Path) -> None:
    turn = chat_template(model_dir, on_day(ANY_DAY)).turn(PROMPT, ANSWER)
    if PROMPT not in turn.before or ANSWER not in turn.answer:
        found = "the texts of a record at other places, or nowhere"
        raise template_fault("one that writes the question, and after it the answer", found)
