"""The page in an exported folder: how the adapter is loaded, and for `dual` how the gate is asked.

The code in it is run by a test.
"""

from data_contracts.protocol.records.model_family import CAUSAL, FamilyTask, ModelFamily
from data_contracts.protocol.records.round_plan import ANY_DAY
from silo_agent.personal.kept import PersonalAdapter, PersonalFacts
from silo_agent.personal.own_factors import OwnAdapter
from silo_agent.personal.told import losses_words, made_for_words

_PAGE = """\
# A personal adapter

Made by one institution for itself, from its own records. It was never part of what the federation
exchanges. Whoever has it can learn something of those records: keep it where they may be.

Made in {made}: {words}.
Trained on and measured with {base_model} in {precision}, files with digest
`{digest}`. What it was made of is in `provenance.json`.

## Loading

{loading}

`folder` is this folder, `base_folder` that of the base model{asked}.
"""

_GATE = """
## Which prompts it is for

On text like this institution's it is better, on other text the federation's adapter may be. The
gate tells them apart by the prompt alone: where its last hidden state is like those of the prompts
that were trained on, this adapter acts; elsewhere {other} does.

```python
import json
from pathlib import Path

import torch

gate = json.loads((Path(folder) / "gate.json").read_text())
threshold, centre = gate["threshold"], torch.tensor(gate["centre"])
{load}

def likeness(ids):
    \"\"\"Of a prompt's token ids, 1 x tokens.\"\"\"
{without}
    state = found.hidden_states[-1][0, -1].float().cpu()
    return torch.cosine_similarity(state, centre, dim=0).item()


def is_own(ids):
    \"\"\"Whether the personal adapter is the one to answer this prompt.\"\"\"
    return threshold is not None and likeness(ids) >= threshold
```

Then {then}.
"""

_WITH_GLOBAL = """\
    model.set_adapter("global")
    with torch.no_grad():
        found = model(input_ids=ids, output_hidden_states=True)"""
_WITH_BASE = """\
    with torch.no_grad(), model.disable_adapter():
        found = model(input_ids=ids, output_hidden_states=True)"""


_OWN_PAGE = """\
# This institution's own adapter

Made in a federation whose institutions share the factor A of an adapter and keep their factor B
(FedSA-LoRA, Guo et al. 2024). A is the one of all after round {shared_round} of {run}; B is this
institution's, trained on its own records in round {round}, and was never part of what the
federation exchanges. Nobody else can put this adapter together. Whoever has it can learn something
of those records: keep it where they may be.

The base model is {base_model}, files with digest
`{digest}`. What it was made of is in `provenance.json`. It acts on every prompt; there is no gate.
How well it does is in the agent's log of round {shared_round}, as the loss of the candidate.

## Loading

{loading}

`folder` is this folder, `base_folder` that of the base model{asked}.
"""

_LOADING = """\
```python
from peft import PeftModel
from transformers import {loader}, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(base_folder)
base = {loader}.from_pretrained(base_folder{more})
model = PeftModel.from_pretrained(base, folder).eval()
```"""
_LOADING_A_PIPELINE = """\
```python
from diffusers import DiffusionPipeline
from peft import PeftModel

pipe = DiffusionPipeline.from_pretrained(base_folder)
pipe.unet = PeftModel.from_pretrained(pipe.unet, folder).eval()
```"""
_LOADERS: dict[ModelFamily, str] = {
    "causal-lm": "AutoModelForCausalLM",
    "masked-lm": "AutoModelForMaskedLM",
    "sequence-classification": "AutoModelForSequenceClassification",
    "dual-encoder": "AutoModel",
}
"""Of families whose models transformers loads; pictures are made by a pipeline of diffusers."""


def own_readme(adapter: OwnAdapter) -> str:
    """The page of A of all with this silo's own B."""
    facts = adapter.facts
    dated = "" if facts.prompt_date == ANY_DAY else f", on the day {facts.prompt_date}"
    return _OWN_PAGE.format(
        shared_round=adapter.round,
        run=facts.run,
        round=facts.round,
        base_model=facts.base_model.name,
        digest=facts.base_model.digest,
        loading=_loading(facts.task),
        asked=_asked(facts.task, dated),
    )


def readme(adapter: PersonalAdapter) -> str:
    """The page of an exported adapter."""
    facts = adapter.facts
    dated = (
        "" if facts.prompt_date == ANY_DAY else f", on the day {facts.prompt_date} where it asks"
    )
    page = _PAGE.format(
        made=made_for_words(facts),
        words=losses_words(facts),
        base_model=facts.base_model.name,
        digest=facts.base_model.digest,
        precision=facts.precision,
        loading=_loading(facts.task, facts.precision),
        asked=_asked(facts.task, dated),
    )
    return page + (_gate(facts) if facts.measures.gate is not None else "")


def _loading(task: FamilyTask, precision: str | None = None) -> str:
    """The code that loads base model and adapter."""
    if task.family == "denoising":
        return _LOADING_A_PIPELINE
    more = "" if task.classes is None else f", num_labels={len(task.classes)}"
    more += "" if precision is None else f', dtype="{precision}"'
    return _LOADING.format(loader=_LOADERS[task.family], more=more)


def _asked(task: FamilyTask, dated: str) -> str:
    """How the model is asked, where that has to be said."""
    if task.classes is not None:
        return f". Its classes, in the order of the head: {', '.join(task.classes)}"
    if task.family != CAUSAL:
        return ""
    turn = ". Ask in one turn of the model's chat\ntemplate, with `add_generation_prompt=True`"
    return turn + dated


def _gate(facts: PersonalFacts) -> str:
    if facts.beside_layout is None:
        return _GATE.format(
            other="the base model",
            load="",
            without=_WITH_BASE,
            then="generate as usual where `is_own`, and within `model.disable_adapter()` elsewhere",
        )
    return _GATE.format(
        other="the adapter in `global/`",
        load='model.load_adapter(str(Path(folder) / "global"), adapter_name="global")\n',
        without=_WITH_GLOBAL,
        then='`model.set_adapter("default")` where `is_own`, `model.set_adapter("global")` '
        "elsewhere, and generate",
    )
