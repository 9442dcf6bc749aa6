"""Which modules carry LoRA is what the model and PEFT say, and what the ranks then build."""

from pathlib import Path

import pytest

from benchmarks.base_models import tiny_model as tiny
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget
from infra.base_model.linear_modules import NoSuchModelError, linear_modules
from infra.base_model.linear_modules_child import takes_lora
from silo_agent.readiness.base_model import judged_model
from silo_agent.training.ranks.lora_model import adapter_parameters, load_lora_model
from tests.model_folders import write_tokenizer
from tests.tiny_model import make_tiny_model, tiny_adapter_layout

ENDS = {
    "llama": ({"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}, set()),
    "gpt2": ({"c_attn", "c_proj", "c_fc"}, set()),
    "mamba": ({"in_proj", "x_proj", "dt_proj"}, {"out_proj"}),
    "mixtral": ({"q_proj", "k_proj", "v_proj", "o_proj"}, set()),
}


@pytest.mark.parametrize("architecture", ENDS)
def test_what_is_said_of_a_model_is_what_a_rank_builds(architecture: str, tmp_path: Path) -> None:
    model = tiny(architecture, 0)
    model.save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    modules, left_out = takes_lora(tiny(architecture, 0).to("meta"))
    ends, without = ENDS[architecture]
    assert {name.rpartition(".")[2] for name, *_ in modules} == ends
    assert set(left_out) == without
    targets = tuple(AdapterTarget(module=n, in_features=i, out_features=o) for n, i, o in modules)
    layout = AdapterLayout(rank=2, alpha=4, seed=1, targets=targets)
    adapted = adapter_parameters(load_lora_model(tmp_path, layout, "cpu"))
    assert len(adapted) == 2 * len(targets)


def test_linear_layers_that_share_a_name_with_fused_experts_are_left_out() -> None:
    modules, left_out = takes_lora(tiny("qwen3_next", 0).to("meta"))
    assert {"gate_proj", "up_proj", "down_proj"} <= set(left_out)
    ends = {name.rpartition(".")[2] for name, *_ in modules}
    assert {"q_proj", "k_proj", "v_proj", "o_proj"} <= ends
    assert not ends & set(left_out)


def test_the_same_is_said_from_a_process_apart(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model")
    digest, words = judged_model(model)
    assert len(digest) == 64
    assert words.startswith("LoRA on 14 modules, with ")
    found = linear_modules(model)
    assert found.modules == tiny_adapter_layout().targets
    assert linear_modules(model) is found, "it is asked once"


def test_a_folder_without_a_model_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(NoSuchModelError, match=r"config\.json"):
        linear_modules(tmp_path)
