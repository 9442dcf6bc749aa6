"""What cannot be trained is refused by its name, before anything heavy is loaded."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from data_contracts.errors import ConsortiaError, DataStewardError, SiloOperatorError
from data_contracts.protocol.records.adapter_layout import AdapterTarget
from infra.base_model.coverage import coverage_words
from infra.base_model.folder_check import require_sound
from infra.base_model.tokenizer_files import writes_date
from infra.base_model.weight_files import TensorHeader, read_header
from tests.model_folders import tensors_of_llama, write_json, write_model_folder
from tests.tiny_model import CHAT_TEMPLATE

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 12\n"
Damage = Callable[[Path], object]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model_folder(tmp_path / "model")


def refused(model: Path) -> str:
    with pytest.raises(ConsortiaError) as caught:
        require_sound(model)
    assert caught.value.action
    return str(caught.value)


def cut(name: str, bytes_left: int) -> Damage:
    def damage(model: Path) -> None:
        data = (model / name).read_bytes()
        (model / name).write_bytes(data[:bytes_left])

    return damage


def written(name: str, content: bytes) -> Damage:
    return lambda model: (model / name).write_bytes(content)


def without(part: str) -> Damage:
    kept = {name: value for name, value in tensors_of_llama().items() if part not in name}
    return lambda model: save_file(kept, model / "model.safetensors")


def with_tensor(name: str, value: np.ndarray) -> Damage:
    tensors = tensors_of_llama() | {name: value}
    return lambda model: save_file(tensors, model / "model.safetensors")


def configured(**changes: object) -> Damage:
    return lambda model: write_model_folder(model, config=changes)


def sharded(model: Path, *, absent: str = "", missing: str = "") -> None:
    """The same weights in two files with an index, of which something may be missing."""
    tensors, halves = tensors_of_llama(), (dict[str, np.ndarray](), dict[str, np.ndarray]())
    for place, (name, value) in enumerate(tensors.items()):
        halves[place % 2][name] = value
    (model / "model.safetensors").unlink()
    index: dict[str, str] = {}
    for number, half in enumerate(halves):
        file = f"model-0000{number + 1}-of-00002.safetensors"
        index |= dict.fromkeys(half, file)
        half.pop(missing, None)
        if file != absent:
            save_file(half, model / file)
    write_json(model / "model.safetensors.index.json", {"weight_map": index})


def without_end(model: Path) -> None:
    """Nowhere, neither in the tokenizer's configuration nor in the model's."""
    write_model_folder(model, config={"eos_token_id": None})
    write_json(model / "tokenizer_config.json", {})


def named_templates(*names: str) -> Damage:
    """Templates of a tokenizer's configuration, as older models have them."""
    named = [{"name": name, "template": CHAT_TEMPLATE} for name in names]

    def damage(model: Path) -> None:
        (model / "chat_template.jinja").unlink()
        write_json(model / "tokenizer_config.json", {"eos_token": "a", "chat_template": named})

    return damage


FAULTS: dict[str, tuple[Damage, str]] = {
    "weights that are a pointer": (written("model.safetensors", POINTER), "git-lfs pointer"),
    "a tokenizer that is a pointer": (written("tokenizer.json", POINTER), "git-lfs pointer"),
    "weights cut in their tensors": (cut("model.safetensors", -100), "cut off or damaged"),
    "weights cut in their header": (cut("model.safetensors", 100), "cut off or damaged"),
    "weights of no bytes": (cut("model.safetensors", 0), "cut off or damaged"),
    "weights with more than they name": (
        lambda m: (m / "model.safetensors").open("ab").write(b"more"),
        "cut off or damaged",
    ),
    "weights that are something else": (written("model.safetensors", b"\0" * 64), "damaged"),
    "weights under another name": (
        lambda m: (m / "model.safetensors").rename(m / "consolidated.safetensors"),
        "model.safetensors.index.json",
    ),
    "pickles": (written("pytorch_model.bin", b"x"), "pytorch_model.bin"),
    "an adapter": (written("adapter_config.json", b"{}"), "adapter_config.json"),
    "GGUF alone": (
        lambda m: (m / "model.safetensors").rename(m / "model-q4.gguf"),
        "model-q4.gguf, weights in another format",
    ),
    "an index and one file less": (
        lambda m: sharded(m, absent="model-00002-of-00002.safetensors"),
        "no model-00002-of-00002.safetensors",
    ),
    "an index and one tensor less": (
        lambda m: sharded(m, missing="model.norm.weight"),
        "no model.norm.weight in model-0000",
    ),
    "the first layer missing": (without("layers.0."), "no tensor of model.layers.0"),
    "the last layer missing": (without("layers.1."), "1 layers, and 2 in config.json"),
    "a configuration of more layers": (configured(num_hidden_layers=3), "2 layers, and 3"),
    "GPTQ": (configured(quantization_config={"quant_method": "gptq", "bits": 4}), "gptq"),
    "AWQ": (configured(quantization_config={"quant_method": "awq"}), "awq"),
    "fp8": (configured(quantization_config={"quant_method": "fp8"}), "fp8"),
    "compressed tensors in a part": (
        configured(text_config={"quantization_config": {"quant_method": "compressed-tensors"}}),
        "compressed-tensors",
    ),
    "bitsandbytes of before it had a name": (
        configured(quantization_config={"load_in_4bit": True}),
        "bitsandbytes",
    ),
    "GPTQ in a file of its own": (written("quantize_config.json", b"{}"), "GPTQ"),
    "quantised tensors": (
        with_tensor("model.layers.0.mlp.up_proj.qweight", np.zeros((4, 4), np.int32)),
        "up_proj.qweight",
    ),
    "weights of eight bits": (
        with_tensor("model.layers.0.mlp.up_proj.weight", np.zeros((64, 32), np.int8)),
        "of type I8",
    ),
    "a tokenizer of another model": (
        written("tokenizer.json", b'{"model": {"vocab": {"a": 0, "b": 28}}, "added_tokens": []}'),
        "the id 28",
    ),
    "no end": (without_end, "an eos_token"),
    "no template": (lambda m: (m / "chat_template.jinja").unlink(), "a chat template"),
    "a template with a syntax error": (
        written("chat_template.jinja", b"{% for m in messages %}\n{{ m.content }"),
        "a syntax error in line 2",
    ),
    "a template that raises": (
        written("chat_template.jinja", b"{{ raise_exception('SECRET') }}"),
        "it raises TemplateError",
    ),
    "a template that asks for what is not there": (
        written("chat_template.jinja", b"{{ messages[7].content }}"),
        "it raises UndefinedError",
    ),
    "a template that forgets the question": (
        written(
            "chat_template.jinja",
            b"{% for m in messages %}{% if m.role == 'assistant' %}{{ m.content }}{% endif %}"
            b"{% endfor %}",
        ),
        "at other places, or nowhere",
    ),
    "several templates without a default": (
        named_templates("rag", "tool_use"),
        "templates called rag, tool_use",
    ),
    "a configuration that is none": (written("config.json", b"[]"), "something else"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_trained_is_refused_by_its_name(model: Path, fault: str) -> None:
    damage, named = FAULTS[fault]
    damage(model)
    message = refused(model)
    assert named in message
    assert "SECRET" not in message


def test_a_sound_folder_gives_its_tensors(model: Path) -> None:
    weights = require_sound(model)
    assert weights["model.norm.weight"] == TensorHeader("F32", (32,))
    assert len(weights) == len(tensors_of_llama())
    sharded(model)
    assert require_sound(model) == weights


def test_a_template_is_the_silos_reason_to_refuse_and_not_to_end(model: Path) -> None:
    (model / "chat_template.jinja").write_text("{{ raise_exception('no') }}")
    with pytest.raises(DataStewardError, match="chat template"):
        require_sound(model)


def test_a_default_among_several_templates_counts(model: Path) -> None:
    (model / "chat_template.jinja").unlink()
    named = [{"name": "default", "template": CHAT_TEMPLATE}, {"name": "rag", "template": "{{"}]
    write_json(model / "tokenizer_config.json", {"eos_token": "a", "chat_template": named})
    assert require_sound(model)


def test_plain_text_needs_no_template(model: Path) -> None:
    (model / "chat_template.jinja").unlink()
    with pytest.raises(SiloOperatorError, match="expected a chat template"):
        require_sound(model)
    assert require_sound(model, needs_template=False)
    (model / "chat_template.jinja").write_text("{% if")
    with pytest.raises(DataStewardError, match="a syntax error"):
        require_sound(model, needs_template=False)


def test_an_end_that_only_the_configuration_names_is_one(model: Path) -> None:
    write_json(model / "tokenizer_config.json", {})
    assert require_sound(model)


def test_a_template_that_writes_a_date_is_known(model: Path) -> None:
    assert not writes_date(model)
    dated = "{{ strftime_now('%d %B %Y') }}" + CHAT_TEMPLATE
    (model / "chat_template.jinja").write_text(dated)
    assert writes_date(model)


@pytest.mark.parametrize("seed", range(20))
def test_no_damage_of_the_header_ends_in_anything_but_a_refusal(model: Path, seed: int) -> None:
    path = model / "model.safetensors"
    data, rng = bytearray(path.read_bytes()), np.random.default_rng(seed)
    length = int.from_bytes(data[:8], "little")
    for place in rng.integers(8 + length, size=3):
        data[place] ^= int(rng.integers(1, 256))
    path.write_bytes(bytes(data))
    try:
        read_header(path)
    except SiloOperatorError as error:
        assert str(path) in str(error)


def test_coverage_says_what_of_a_mixture_is_left_out() -> None:
    weights = {
        "model.layers.0.mlp.experts.gate_up_proj": TensorHeader("BF16", (8, 20, 10)),
        "model.layers.0.mlp.shared_experts.up_proj.weight": TensorHeader("BF16", (10, 10)),
        "model.layers.0.self_attn.q_proj.weight": TensorHeader("BF16", (30, 10)),
    }
    query = AdapterTarget(module="model.layers.0.self_attn.q_proj", in_features=10, out_features=30)
    words = coverage_words(weights, [query])
    assert words == (
        "LoRA on 1 modules, with 15.0 % of the model's weights; without experts, which have 80.0 % "
        "of them and stay as they are"
    )
    whole = {"model.layers.0.self_attn.q_proj.weight": TensorHeader("F32", (30, 10))}
    assert (
        coverage_words(whole, [query]) == "LoRA on 1 modules, with 100.0 % of the model's weights"
    )


def test_no_torch_is_loaded(model: Path) -> None:
    code = (
        "import sys; from pathlib import Path;"
        "from infra.base_model.folder_check import require_sound; require_sound(Path(sys.argv[1]));"
        "from infra.base_model import linear_modules, coverage;"
        "assert not {'torch', 'transformers', 'peft'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(model)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_headers_are_json_objects(model: Path) -> None:
    path = model / "model.safetensors"
    for header in (b"[]", b'{"a": 1}', b'{"a": {"dtype": "F32", "shape": [1]}}', b"\xff"):
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        assert "cut off or damaged" in refused(model)
    assert json.loads((model / "config.json").read_text())
