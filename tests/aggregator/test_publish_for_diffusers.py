"""Of a pipeline's UNet a folder is published that diffusers and PEFT load: both predict what was
measured."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregator.publishing.publish import PeftAdapter, write_published
from data_contracts.adapters.adapter_format import expected_shapes, open_adapter
from data_contracts.adapters.diffusers_file import DIFFUSERS_NAME, write_for_diffusers
from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.base_model_ref import BaseModelRef
from data_contracts.protocol.records.model_family import FamilyTask
from infra.base_model.linear_modules import linear_modules
from tests.aggregator.adapter_samples import write_adapter, write_tensors
from tests.tiny_pipelines import CHANNELS, LATENT_SIDE, make_tiny_pipeline

pytestmark = pytest.mark.long

TASK = FamilyTask(family="denoising")
BASE = BaseModelRef(name="tiny-pipeline", digest="0" * 64, licence="MIT")


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_pipeline(tmp_path_factory.mktemp("model") / "pipeline")


@pytest.fixture(scope="module")
def layout(model_dir: Path) -> AdapterLayout:
    """Its scaling, 5 / sqrt(3), is no power of two."""
    targets = linear_modules(model_dir, TASK).modules
    return AdapterLayout(rank=3, alpha=5, seed=1, use_rslora=True, targets=targets)


def published(into: Path, layout: AdapterLayout, *, residual: bool = False) -> Path:
    adapter = write_small(into.with_suffix(".a"), layout, 1)
    second = None
    if residual:
        file = write_small(into.with_suffix(".r"), layout, 2)
        second = PeftAdapter(file, layout, BASE, "denoising")
    write_published(into, PeftAdapter(adapter, layout, BASE, "denoising"), b"# A card\n", second)
    return into


def write_small(path: Path, layout: AdapterLayout, seed: int) -> Path:
    """Random factors, such that the UNet does not overflow."""
    rng = np.random.default_rng(seed)
    shapes = expected_shapes(layout)
    tensors = {n: rng.normal(0, 0.1, shape).astype(np.float32) for n, shape in shapes.items()}
    return write_tensors(path, layout, tensors).path


def asked() -> dict[str, Any]:
    import torch

    generator = torch.Generator().manual_seed(5)
    side = LATENT_SIDE
    return {
        "sample": torch.randn(2, CHANNELS, side, side, generator=generator),
        "timestep": torch.tensor([17, 801]),
        "encoder_hidden_states": torch.randn(2, 24, 16, generator=generator),
    }


def predicted(unet: Any) -> Any:
    import torch

    with torch.no_grad():
        return unet(**asked()).sample


def our_prediction(model_dir: Path, folder: Path, layout: AdapterLayout, *names: str) -> Any:
    """By the model that evaluates adapters."""
    from silo_agent.training.ranks.lora_model import RESIDUAL_NAME, load_lora_model, set_adapter
    from silo_agent.training.ranks.starting_tensors import starting_tensors

    residual = layout if names else None
    model = load_lora_model(model_dir, layout, "cpu", residual=residual, task=TASK).eval()
    set_adapter(model, starting_tensors(layout, folder / "adapter_model.safetensors"))
    for name in names:
        path = folder / name / "adapter_model.safetensors"
        set_adapter(model, starting_tensors(layout, path), RESIDUAL_NAME)
    return predicted(model)


def test_diffusers_and_peft_predict_what_is_measured(
    tmp_path: Path, model_dir: Path, layout: AdapterLayout
) -> None:
    import torch
    from diffusers import StableDiffusionPipeline
    from peft import PeftModel

    folder = published(tmp_path / "published", layout, residual=True)
    assert (folder / DIFFUSERS_NAME).stat().st_mode & 0o777 == 0o644
    pipe: Any = StableDiffusionPipeline.from_pretrained(model_dir)
    plain = predicted(pipe.unet)
    pipe.load_lora_weights(str(folder))
    ours = our_prediction(model_dir, folder, layout)
    assert (ours - plain).abs().max() > 0.01, "the adapter changes something"
    torch.testing.assert_close(predicted(pipe.unet), ours, rtol=0, atol=1e-5)
    pipe.load_lora_weights(str(folder / "residual"), adapter_name="residual")
    pipe.set_adapters(["default_0", "residual"])
    both = our_prediction(model_dir, folder, layout, "residual")
    assert (both - ours).abs().max() > 0.01, "and so does the residual"
    torch.testing.assert_close(predicted(pipe.unet), both, rtol=0, atol=1e-5)

    other: Any = StableDiffusionPipeline.from_pretrained(model_dir)
    other.unet = PeftModel.from_pretrained(other.unet, folder).eval()
    torch.testing.assert_close(predicted(other.unet), ours, rtol=0, atol=1e-5)


def test_the_bytes_follow_from_the_adapter(tmp_path: Path, layout: AdapterLayout) -> None:
    one, other = (published(tmp_path / name, layout) for name in ("one", "other"))
    assert (one / DIFFUSERS_NAME).read_bytes() == (other / DIFFUSERS_NAME).read_bytes()
    assert sorted(path.name for path in one.iterdir()) == sorted(
        ["README.md", "adapter_config.json", "adapter_model.safetensors", DIFFUSERS_NAME]
    )


def test_other_families_get_no_such_file(tmp_path: Path) -> None:
    from tests.aggregator.adapter_samples import layout_with

    layout = layout_with()
    adapter = write_adapter(tmp_path / "a", layout)
    write_published(tmp_path / "published", PeftAdapter(adapter.path, layout, BASE), b"# A card\n")
    assert not (tmp_path / "published" / DIFFUSERS_NAME).exists()


def test_a_number_that_is_none_is_not_published(tmp_path: Path, layout: AdapterLayout) -> None:
    shapes = expected_shapes(layout)
    tensors = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    next(iter(tensors.values()))[0, 0] = np.nan
    path = write_tensors(tmp_path / "a", layout, tensors).path
    with pytest.raises(UntrustedInputError, match="NaN or infinity"):
        write_for_diffusers(tmp_path / "b", open_adapter(path, layout))
