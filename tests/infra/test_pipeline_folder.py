"""Folders of pipelines: what is sound, and what is refused by its name; nothing is loaded."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from aggregator.planning.base_model_layout import adapter_targets
from data_contracts.errors import FederationOperatorError, SiloOperatorError
from data_contracts.protocol.records.model_family import FamilyTask
from infra.base_model.context import context_tokens
from infra.base_model.folder_check import likely_family, require_sound
from infra.base_model.linear_modules import NoSuchModelError, linear_modules
from infra.base_model.model_shape import model_shape
from infra.base_model.pipeline_check import PipelineShape, pipeline_shape
from infra.command_values import model_directory
from infra.disk.model_files import model_digest, model_files
from silo_agent.readiness.base_model import judged_model
from tests.model_folders import write_model_folder
from tests.tiny_pipelines import make_tiny_pipeline

TASK = FamilyTask(family="denoising")
Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_pipeline(tmp_path_factory.mktemp("model") / "pipeline")


@pytest.fixture
def pipeline(sound: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(sound, tmp_path / "pipeline")


def test_a_pipeline_is_the_same_for_the_same_seed(sound: Path, tmp_path: Path) -> None:
    again, other = (make_tiny_pipeline(tmp_path / str(seed), seed) for seed in (0, 1))
    assert model_digest(again) == model_digest(sound) != model_digest(other)


def test_what_a_sound_one_says(sound: Path) -> None:
    weights = require_sound(sound, family="denoising")
    assert "conv_in.weight" in weights, "those of the UNet, which is trained"
    assert pipeline_shape(sound) == PipelineShape(4, 8, 16, 24, 1000)
    assert (context_tokens(sound), likely_family(sound)) == (24, "denoising")
    assert model_directory(sound) == sound
    assert {"model_index.json", "vae/config.json", "tokenizer/vocab.json"} <= set(
        model_files(sound)
    )


def test_attention_projections_carry_lora(sound: Path) -> None:
    digest, words, family = judged_model(sound)
    assert digest == model_digest(sound)
    assert words.startswith("LoRA on 32 modules, with ")
    assert family == "looked at for the family denoising"
    names = [target.module for target in linear_modules(sound, TASK).modules]
    assert all(name.endswith((".to_q", ".to_k", ".to_v", ".to_out.0")) for name in names)
    keys = adapter_targets(sound, ("to_k", "attn2.to_v"), TASK)
    assert len(keys) == 12 and {t.in_features for t in keys} == {8, 16}


def test_no_plan_of_its_memory_is_made(sound: Path) -> None:
    with pytest.raises(SiloOperatorError, match="set zero_stage, micro_batch"):
        model_shape(sound)


def stated(file: str, **changes: Any) -> Change:
    def change(pipeline: Path) -> None:
        path = pipeline / file
        found = json.loads(path.read_text()) | changes
        path.write_text(json.dumps(found))

    return change


def without(name: str) -> Change:
    def change(pipeline: Path) -> None:
        path = pipeline / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def pickled(pipeline: Path) -> None:
    (pipeline / "unet" / "diffusion_pytorch_model.safetensors").rename(
        pipeline / "unet" / "diffusion_pytorch_model.bin"
    )


def variant(pipeline: Path) -> None:
    path = pipeline / "vae" / "diffusion_pytorch_model.safetensors"
    path.rename(path.with_name("diffusion_pytorch_model.fp16.safetensors"))


def in_int8(pipeline: Path) -> None:
    path = pipeline / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["conv_in.weight"] = tensors["conv_in.weight"].astype(np.int8)
    save_file(tensors, path)


def few_embeddings(pipeline: Path) -> None:
    path = pipeline / "text_encoder" / "model.safetensors"
    tensors = load_file(path)
    (name,) = (each for each in tensors if each.endswith("token_embedding.weight"))
    tensors[name] = tensors[name][:100]
    save_file(tensors, path)


def pointed(pipeline: Path) -> None:
    path = pipeline / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


UNET, SCHEDULE = "unet/config.json", "scheduler/scheduler_config.json"
REFUSED: dict[str, tuple[Change, str]] = {
    "no vae": (without("vae"), "vae/config.json"),
    "no vae in the index": (stated("model_index.json", vae=[None, None]), "a vae, AutoencoderKL"),
    "no scheduler": (without("scheduler"), "scheduler/scheduler_config.json"),
    "no text encoder": (without("text_encoder"), "text_encoder/config.json"),
    "no tokenizer": (without("tokenizer"), "a folder tokenizer"),
    "no weights of the vae": (
        without("vae/diffusion_pytorch_model.safetensors"),
        "diffusion_pytorch_model.safetensors, or",
    ),
    "half precision under another name": (variant, "diffusion_pytorch_model.safetensors, or"),
    "pickled weights": (pickled, "unet/diffusion_pytorch_model.bin"),
    "a pointer of git-lfs": (pointed, "git lfs pull"),
    "quantised": (in_int8, "quantised already: the tensor conv_in.weight"),
    "few embeddings": (few_embeddings, "token ids below 100"),
    "another pipeline": (
        stated("model_index.json", _class_name="StableDiffusionXLPipeline"),
        "StableDiffusionXLPipeline",
    ),
    "another text encoder": (
        stated("model_index.json", text_encoder=["transformers", "T5EncoderModel"]),
        "T5EncoderModel",
    ),
    "a unet with added conditions": (
        stated(UNET, addition_embed_type="text_time"),
        "addition_embed_type text_time",
    ),
    "a unet with classes": (stated(UNET, num_class_embeds=3), "num_class_embeds 3"),
    "a distilled unet": (stated(UNET, time_cond_proj_dim=256), "time_cond_proj_dim 256"),
    "a unet for inpainting": (stated(UNET, in_channels=9), "4 in_channels of its unet"),
    "a unet of another width": (stated(UNET, cross_attention_dim=32), "cross_attention_dim 16"),
    "a unet of no size": (stated(UNET, sample_size=None), "sample_size of its unet"),
    "velocity": (stated(SCHEDULE, prediction_type="v_prediction"), "v_prediction"),
    "samples": (stated(SCHEDULE, prediction_type="sample"), "predicts the noise"),
    "flows": (
        stated(SCHEDULE, _class_name="FlowMatchEulerDiscreteScheduler", beta_schedule=None),
        "FlowMatchEulerDiscreteScheduler",
    ),
    "betas of another number": (stated(SCHEDULE, trained_betas=[0.1, 0.2]), "1000 trained_betas"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_trained_is_named(name: str, pipeline: Path) -> None:
    change, words = REFUSED[name]
    change(pipeline)
    with pytest.raises(SiloOperatorError) as raised:
        require_sound(pipeline, family="denoising")
    assert words in str(raised.value)


def test_a_pipeline_is_of_no_other_family_nor_another_model_of_this(
    sound: Path, tmp_path: Path
) -> None:
    single = write_model_folder(tmp_path / "single")
    with pytest.raises(SiloOperatorError, match=r"a pipeline, with model_index\.json, for the fam"):
        require_sound(single, family="denoising")
    with pytest.raises(SiloOperatorError, match=r"a single model, with config\.json, for the fam"):
        require_sound(sound)
    for folder, task in ((single, TASK), (sound, FamilyTask(family="causal-lm"))):
        with pytest.raises(NoSuchModelError, match=r"model_index\.json is for denoising"):
            linear_modules(folder, task)
        with pytest.raises(FederationOperatorError, match="for denoising"):
            adapter_targets(folder, "all-linear", task)


def test_without_diffusers_every_entry_says_what_to_install(sound: Path, tmp_path: Path) -> None:
    """In an environment of links to all that is installed here but that."""
    installed = Path(next(p for p in sys.path if p.endswith("site-packages")))
    for path in installed.iterdir():
        if not path.name.startswith("diffusers") and path.suffix != ".pth":
            (tmp_path / path.name).symlink_to(path)
    code = (
        "import sys; from pathlib import Path; sys.path = [p for p in sys.path if not p.endswith("
        "'site-packages')] + [sys.argv[2]]\n"
        "from aggregator.planning.base_model_layout import adapter_targets\n"
        "from data_contracts.errors import ConsortiaError\n"
        "from data_contracts.protocol.records.model_family import FamilyTask\n"
        "from infra.base_model.folder_check import require_sound\n"
        "from silo_agent.readiness.base_model import judged_model\n"
        "model, task = Path(sys.argv[1]), FamilyTask(family='denoising')\n"
        "def load():\n"
        "    from silo_agent.training.ranks.families.registry import family_of\n"
        "    import torch\n"
        "    family_of(task).load_beside(model, torch.device('cpu'))\n"
        "for ask in (lambda: require_sound(model, family='denoising'), lambda: judged_model(model),"
        " lambda: adapter_targets(model, 'all-linear', task), load):\n"
        "    try:\n"
        "        ask()\n"
        "    except ConsortiaError as error:\n"
        "        print(type(error).__name__, error.action)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, str(sound), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(root)},
        cwd=tmp_path,
    )
    told = 'pip install "consortia[diffusion]"'
    assert done.stdout.splitlines() == [
        f"SiloOperatorError {told}",
        f"SiloOperatorError {told}",
        f"FederationOperatorError {told}",
        f"SiloOperatorError {told}",
    ], done.stderr[-2000:]
