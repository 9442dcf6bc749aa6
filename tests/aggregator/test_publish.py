"""Plain PEFT loads what is published; a directory is replaced as a whole."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import LlamaConfig, LlamaForCausalLM

from aggregator.merge.adapter_merge import merge_adapters
from aggregator.publishing.publish import PeftAdapter, write_published
from data_contracts.adapters.adapter_format import AdapterFile, open_adapter
from data_contracts.adapters.peft_config import peft_config
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget
from data_contracts.protocol.records.base_model_ref import BaseModelRef
from tests.aggregator.adapter_samples import dense, inputs_of, layout_with, write_adapter

BASE = BaseModelRef(name="tiny-llama", digest="0" * 64, licence="Apache-2.0")
CARD = b"# A card\n"
TARGETS = tuple(
    AdapterTarget(module=f"model.layers.{layer}.{name}", in_features=16, out_features=out)
    for layer in (0, 1)
    for name, out in (("self_attn.q_proj", 16), ("mlp.up_proj", 24))
)


@pytest.fixture
def layout() -> AdapterLayout:
    return layout_with(rank=4, alpha=8, targets=TARGETS)


@pytest.fixture
def merged(tmp_path: Path, layout: AdapterLayout) -> AdapterFile:
    adapters = [(write_adapter(tmp_path / f"{n}.safetensors", layout, seed=n), 1) for n in (1, 2)]
    into = tmp_path / "merged.safetensors"
    merge_adapters(inputs_of(adapters, layout), into)
    return open_adapter(into, layout)


def tiny_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    return LlamaForCausalLM(config).eval()


def test_plain_peft_loads_the_published_directory(
    tmp_path: Path, layout: AdapterLayout, merged: AdapterFile
) -> None:
    write_published(tmp_path / "published", PeftAdapter(merged.path, layout, BASE), CARD)
    model = PeftModel.from_pretrained(tiny_llama(), tmp_path / "published").eval()
    for target in layout.targets:
        layer = model.base_model.model.get_submodule(target.module)
        loaded = layer.get_delta_weight("default").detach().double().numpy()
        assert abs(loaded - dense(merged, target)).max() < 1e-5
    plain, tokens = tiny_llama(), torch.arange(8)[None]
    with torch.no_grad():
        changed = model(input_ids=tokens).logits - plain(input_ids=tokens).logits
    assert float(changed.abs().max()) > 1e-4
    adapted = {n.split(".base_layer")[0] for n, _ in model.named_modules() if "base_layer" in n}
    assert adapted == {f"base_model.model.{target.module}" for target in layout.targets}


def test_plain_peft_adds_a_published_residual(tmp_path: Path, layout: AdapterLayout) -> None:
    of_residual = layout.model_copy(update={"rank": 3, "alpha": 3})
    adapter = write_adapter(tmp_path / "a.safetensors", layout, seed=1)
    residual = write_adapter(tmp_path / "r.safetensors", of_residual, seed=2)
    second = PeftAdapter(residual.path, of_residual, BASE)
    write_published(tmp_path / "published", PeftAdapter(adapter.path, layout, BASE), CARD, second)
    model = PeftModel.from_pretrained(tiny_llama(), tmp_path / "published").eval()
    model.load_adapter(tmp_path / "published" / "residual", adapter_name="residual")
    model.base_model.set_adapter(["default", "residual"])
    plain = tiny_llama()
    for target in layout.targets:
        linear = plain.get_submodule(target.module)
        linear.weight.data += torch.from_numpy(
            dense(adapter, target) + dense(residual, target)
        ).float()
    with torch.no_grad():
        tokens = torch.arange(8)[None]
        found, expected = (m(input_ids=tokens).logits for m in (model, plain))
    assert float((found - expected).abs().max()) < 1e-4


def test_the_configuration_comes_from_the_layout(tmp_path: Path, layout: AdapterLayout) -> None:
    adapter = write_adapter(tmp_path / "a.safetensors", layout)
    write_published(tmp_path / "published", PeftAdapter(adapter.path, layout, BASE), CARD)
    config = json.loads((tmp_path / "published" / "adapter_config.json").read_text())
    assert config == peft_config(layout, BASE)
    assert config["target_modules"] == sorted(target.module for target in TARGETS)
    assert (config["r"], config["lora_alpha"], config["inference_mode"]) == (4, 8, True)


def test_a_published_directory_is_replaced_as_a_whole(
    tmp_path: Path, layout: AdapterLayout
) -> None:
    into = tmp_path / "published"
    first = write_adapter(tmp_path / "a.safetensors", layout, seed=1)
    second = write_adapter(tmp_path / "b.safetensors", layout, seed=2)
    write_published(into, PeftAdapter(first.path, layout, BASE), CARD)
    (into / "leftover").write_text("from before")
    write_published(into, PeftAdapter(second.path, layout, BASE), CARD)
    assert sorted(path.name for path in into.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert (into / "adapter_model.safetensors").read_bytes() == second.path.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.safetensors",
        "b.safetensors",
        "published",
    ]


def test_a_failed_write_keeps_the_old_directory(tmp_path: Path, layout: AdapterLayout) -> None:
    into = tmp_path / "published"
    first = write_adapter(tmp_path / "a.safetensors", layout, seed=1)
    write_published(into, PeftAdapter(first.path, layout, BASE), CARD)
    with pytest.raises(FileNotFoundError):
        write_published(into, PeftAdapter(tmp_path / "absent.safetensors", layout, BASE), CARD)
    assert (into / "adapter_model.safetensors").read_bytes() == first.path.read_bytes()
