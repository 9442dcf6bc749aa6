"""What is drawn for pictures and told of captions, and the loss that comes of it."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_contracts.adapters.adapter_format import check_adapter
from data_contracts.errors import FederationOperatorError, SiloOperatorError, UntrustedInputError
from infra.base_model.pipeline_check import PipelineShape, pipeline_shape
from silo_agent.training.ranks.base_model import load_tokenizer
from silo_agent.training.ranks.conversation import IGNORED
from silo_agent.training.ranks.families.denoising import Denoising, drawn, noised
from silo_agent.training.ranks.lora_model import (
    load_lora_model,
    set_adapter,
    trained_parameters,
)
from silo_agent.training.ranks.packed_sequence import Origin, PackedSequence
from silo_agent.training.ranks.starting_tensors import starting_tensors
from silo_agent.training.ranks.unet_model import load_beside, load_unet
from tests.aggregator.adapter_samples import layout_with, write_adapter
from tests.silo_agent.families.tiny_denoising import (
    TASK,
    OwnParts,
    PictureSilo,
    heldout_of,
    make_picture_silo,
    sequences_of,
)
from tests.silo_agent.families.told_samples import told
from tests.tiny_pipelines import PLACES

pytestmark = pytest.mark.long

CPU = torch.device("cpu")
DIGEST = "a" * 64
SHAPE = PipelineShape(channels=4, latent_side=8, side=16, tokens=PLACES, timesteps=1000)


@pytest.fixture(scope="module")
def silo(tmp_path_factory: pytest.TempPathFactory) -> PictureSilo:
    return make_picture_silo(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def family(silo: PictureSilo) -> Denoising:
    made = Denoising(TASK)
    made.load_beside(silo.model_dir, CPU)
    return made


def model_of(silo: PictureSilo) -> Any:
    model = load_lora_model(silo.model_dir, silo.layout, "cpu", task=TASK)
    tensors = dict(starting_tensors(silo.layout, None))
    rng = np.random.default_rng(2)
    for name, tensor in tensors.items():
        tensors[name] = rng.normal(0, 0.1, tensor.shape).astype(np.float32)
    set_adapter(model, tensors.items())
    return model.train()


def test_what_is_drawn_follows_from_its_numbers_alone() -> None:
    draw = (2**40 + 3, 5, 7)
    first, again = drawn(SHAPE, draw, DIGEST), drawn(SHAPE, draw, DIGEST)
    assert np.array_equal(first.noise, again.noise)
    assert first.timesteps == again.timesteps and first.noise.shape == (1, 4, 8, 8)
    others = [(3, 5, 7), (2**40 + 3, 6, 7), (2**40 + 3, 5, 8)]
    found = [drawn(SHAPE, other, DIGEST) for other in others]
    found += [drawn(SHAPE, draw, DIGEST, place=1), drawn(SHAPE, draw, "b" * 64)]
    assert all(not np.array_equal(first.noise, other.noise) for other in found)
    many = np.concatenate([drawn(SHAPE, (1, 1, index), DIGEST).timesteps for index in range(2000)])
    assert many.min() < 5 and many.max() > 994 and many.max() < 1000
    assert abs(many.mean() - 499.5) < 4 * 288.7 / 2000**0.5, "all timesteps alike"


def test_held_out_pictures_have_a_timestep_from_each_part_of_the_schedule() -> None:
    for index in range(50):
        steps = drawn(SHAPE, (9, 0, index), DIGEST).timesteps
        assert [int(step) // 250 for step in steps] == [0, 1, 2, 3]
    few = drawn(replace(SHAPE, timesteps=2), (9, 0, 0), DIGEST).timesteps
    assert few.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    "caption", ["a picture of the red square", "Blue, 12!", "x", "a <|endoftext|> b"]
)
def test_captions_are_the_ids_of_the_pipeline(silo: PictureSilo, caption: str) -> None:
    tokenizer: Any = load_tokenizer(silo.model_dir)

    class Record:
        pass

    record: Any = Record()
    record.caption = caption
    (piece,) = told(Denoising(TASK), tokenizer, silo.model_dir, "image-text", record)
    own = tokenizer(caption, padding="max_length", max_length=PLACES, truncation=True)["input_ids"]
    if "<|" in caption:
        assert piece.spells_controls and piece.token_ids.count(tokenizer.eos_token_id) == 1
        return
    made = noised(
        PackedSequence(piece.token_ids, piece.labels, list(range(len(piece.token_ids)))),
        Origin(Path("records"), (0,), (1, 1, 0)),
        shape=SHAPE,
        end=[tokenizer.eos_token_id],
        padding=tokenizer.pad_token_id,
    )
    assert list(made.padded_ids) == own
    assert made.record_answer_tokens == [1] and made.labels[1:] == [IGNORED] * (
        len(made.labels) - 1
    )


def test_a_caption_that_is_too_long_keeps_its_end(silo: PictureSilo) -> None:
    tokenizer: Any = load_tokenizer(silo.model_dir)
    own = tokenizer("a red " * 20, padding="max_length", max_length=PLACES, truncation=True)
    ids = tokenizer("a red " * 20)["input_ids"]
    cut = PackedSequence(ids[:PLACES], ids[:PLACES], list(range(PLACES)))
    origin = Origin(Path("records"), (0,), (1, 1, 0))
    end = [tokenizer.eos_token_id]
    made = noised(cut, origin, shape=SHAPE, end=end, padding=tokenizer.pad_token_id)
    assert list(made.padded_ids) == own["input_ids"]
    shorter = PackedSequence(ids[:10], ids[:10], list(range(10)))
    made = noised(shorter, origin, shape=SHAPE, end=end, padding=tokenizer.pad_token_id)
    assert made.token_ids == [*ids[:9], *end] and len(made.padded_ids) == PLACES


def test_a_tokenizer_without_padding_is_refused(silo: PictureSilo) -> None:
    without: Any = load_tokenizer(silo.model_dir)
    without.pad_token = None
    with pytest.raises(FederationOperatorError, match="a tokenizer with a padding token"):
        Denoising(TASK).shown(lambda: without, silo.model_dir)


def test_loss_and_gradients_are_those_of_diffusers_own_parts(
    silo: PictureSilo, family: Denoising
) -> None:
    model, sequences = model_of(silo), sequences_of(silo)[:3]
    own = OwnParts(silo)
    parameters = trained_parameters(model)
    with torch.no_grad():
        for name, parameter in parameters.items():
            own.parameters[name].copy_(parameter)
    loss = family.batch_loss(model, sequences, CPU)
    expected = own.errors(sequences).sum()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.autograd.backward([loss, expected])
    for name, parameter in parameters.items():
        assert parameter.grad is not None and own.parameters[name].grad is not None
        torch.testing.assert_close(parameter.grad, own.parameters[name].grad, rtol=1e-3, atol=1e-6)
    held = heldout_of(silo)[0]
    measured = family.measured(model.eval(), held, CPU)
    assert measured.shape == (1, 1) and measured.dtype == torch.float64
    assert measured.item() == pytest.approx(own.errors([held]).item(), rel=1e-5)


@pytest.mark.parametrize("scheduler", ["PNDMScheduler", "DDIMScheduler", "EulerDiscreteScheduler"])
def test_noise_is_added_by_the_schedule_that_the_pipeline_samples_with(
    silo: PictureSilo, tmp_path: Path, scheduler: str
) -> None:
    import diffusers

    schedule = getattr(diffusers, scheduler)(
        beta_schedule="scaled_linear", beta_start=0.001, beta_end=0.013
    )
    pipeline = shutil.copytree(silo.model_dir, tmp_path / "pipeline")
    schedule.save_pretrained(pipeline / "scheduler")
    assert pipeline_shape(pipeline).timesteps == 1000
    found = load_beside(pipeline, CPU).alphas_cumprod
    torch.testing.assert_close(found, schedule.alphas_cumprod, rtol=1e-6, atol=0)


@pytest.mark.parametrize("partitioned", [False, True])
def test_activations_that_are_computed_again_give_the_same_gradients(
    silo: PictureSilo, family: Denoising, *, partitioned: bool
) -> None:
    sequences, found = sequences_of(silo)[:2], []
    for saves in (False, True):
        model = model_of(silo)
        if saves:
            family.recompute(model, partitioned=partitioned)
            assert model.get_base_model().is_gradient_checkpointing
        torch.autograd.backward(family.batch_loss(model, sequences, CPU))
        found.append({n: p.grad for n, p in trained_parameters(model).items()})
    for name, gradient in found[0].items():
        assert found[1][name] is not None, name
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-7)


def test_a_unet_that_mixes_the_pictures_of_a_batch_takes_one_at_a_time(
    silo: PictureSilo, family: Denoising
) -> None:
    model = model_of(silo).eval()
    assert family.may_batch(model, CPU, together=False)
    mixing = model.get_base_model().conv_in.register_forward_hook(
        lambda _module, _inputs, found: found + 0.1 * found.mean(dim=0, keepdim=True)
    )
    assert not family.may_batch(model, CPU, together=False)
    mixing.remove()
    assert family.may_batch(model, CPU, together=False)


def test_a_picture_that_was_exchanged_is_not_trained_on(
    silo: PictureSilo, family: Denoising, tmp_path: Path
) -> None:
    copy = make_picture_silo(tmp_path)
    sequence = sequences_of(copy)[0]
    assert sequence.picture.shape == (16, 16, 3)
    for each in (tmp_path / "train-pictures").glob("*.png"):
        each.write_bytes(each.read_bytes() + b"\0")
    with pytest.raises(SiloOperatorError, match="the bytes that were checked"):
        family.batch_loss(model_of(silo), [sequence], CPU)
    shutil.rmtree(tmp_path / "train-pictures")
    with pytest.raises(SiloOperatorError, match="no such picture"):
        family.batch_loss(model_of(silo), [sequence], CPU)


def test_an_adapter_of_another_family_is_rejected(silo: PictureSilo, tmp_path: Path) -> None:
    other = write_adapter(tmp_path / "causal.safetensors", layout_with())
    with pytest.raises(UntrustedInputError, match="those of the plan"):
        check_adapter(other.path, silo.layout)


def test_quantised_weights_are_refused_by_name(silo: PictureSilo) -> None:
    options = {"dtype": torch.float32, "quantization_config": None, "device_map": None}
    with pytest.raises(SiloOperatorError, match='"full", for the family denoising'):
        load_unet(silo.model_dir, **options)
