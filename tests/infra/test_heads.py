"""What of a model's tensors is a head that its files lack: asked by names, and of real folders."""

from pathlib import Path

import pytest

from data_contracts.protocol.records.adapter_layout import AdapterTarget
from data_contracts.protocol.records.model_family import FamilyTask
from infra.base_model.heads import NotAHeadError, head_of
from infra.base_model.linear_modules import NoSuchModelError, linear_modules
from tests.tiny_encoders import CLASSES, HIDDEN, make_tiny_bert, make_tiny_clip
from tests.tiny_model import make_tiny_model

SHAPES = {
    "bert.embeddings.weight": (50, 8),
    "bert.layer.0.weight": (8, 8),
    "bert.layer.0.bias": (8,),
    "bert.pooler.dense.weight": (8, 8),
    "bert.pooler.dense.bias": (8,),
    "norm.weight": (8,),
    "norm.bias": (8,),
    "decoder.weight": (50, 8),
    "decoder.bias": (50,),
    "bias": (50,),
    "classifier.weight": (3, 8),
    "classifier.bias": (3,),
}


def matrix(name: str, rows: int, columns: int) -> AdapterTarget:
    return AdapterTarget(
        module=name, in_features=columns, out_features=rows, whole="matrix", initial="normal"
    )


def vector(name: str, size: int, initial: str = "zeros") -> AdapterTarget:
    return AdapterTarget.model_validate(
        {
            "module": name,
            "in_features": 1,
            "out_features": size,
            "whole": "vector",
            "initial": initial,
        }
    )


@pytest.mark.parametrize(
    ("missing", "trained", "zero"),
    [
        ((), (), ()),
        (
            ("classifier.weight", "classifier.bias"),
            (matrix("classifier.weight", 3, 8), vector("classifier.bias", 3)),
            (),
        ),
        (
            ("norm.bias", "norm.weight"),
            (vector("norm.weight", 8, "ones"), vector("norm.bias", 8)),
            (),
        ),
        (
            ("bert.pooler.dense.weight", "bert.pooler.dense.bias"),
            (matrix("bert.pooler.dense.weight", 8, 8), vector("bert.pooler.dense.bias", 8)),
            (),
        ),
        # The weights of an output layer are the embeddings, which are there.
        (("decoder.bias", "bias"), (), ("decoder.bias", "bias")),
    ],
)
def test_modules_that_the_files_lack_are_trained_and_single_biases_are_not(
    missing: tuple[str, ...], trained: tuple[AdapterTarget, ...], zero: tuple[str, ...]
) -> None:
    found = head_of(missing, SHAPES, "bert")
    assert (found.trained, found.zero) == (trained, zero)


@pytest.mark.parametrize(
    "missing",
    [
        ("bert.layer.0.weight", "bert.layer.0.bias"),
        ("bert.embeddings.weight",),
        ("bert.layer.0.bias",),
        ("classifier.weight",),
        ("decoder.weight",),
        ("norm.weight",),
    ],
)
def test_anything_else_that_is_missing_is_named(missing: tuple[str, ...]) -> None:
    with pytest.raises(NotAHeadError, match=missing[0]):
        head_of(missing, SHAPES, "bert")


def test_a_tensor_of_three_dimensions_is_no_head() -> None:
    with pytest.raises(NotAHeadError, match="experts"):
        head_of(["experts.weight"], {"experts.weight": (2, 8, 8)}, "bert")


@pytest.mark.long
def test_a_folder_is_asked_for_a_task(tmp_path: Path) -> None:
    bert = make_tiny_bert(tmp_path / "bert")
    classifying = FamilyTask(family="sequence-classification", classes=CLASSES)
    found = linear_modules(bert, classifying)
    assert found.head == (
        matrix("classifier.weight", len(CLASSES), HIDDEN),
        vector("classifier.bias", len(CLASSES)),
    )
    modules = {target.module for target in found.modules}
    assert "bert.encoder.layer.0.attention.self.query" in modules and "classifier" not in modules
    hidden = linear_modules(bert, FamilyTask(family="masked-lm")).head
    assert {target.module for target in hidden} == {
        f"cls.predictions.transform.{name}"
        for name in ("dense.weight", "dense.bias", "LayerNorm.weight", "LayerNorm.bias")
    }


@pytest.mark.long
@pytest.mark.parametrize(
    ("family", "words"),
    [
        ("masked-lm", "Unrecognized configuration class"),
        ("dual-encoder", "gives no embeddings of pictures and of text"),
    ],
)
def test_a_model_of_another_family_is_none_of_this_one(
    tmp_path: Path, family: str, words: str
) -> None:
    model = make_tiny_model(tmp_path / "llama")
    with pytest.raises(NoSuchModelError, match=words):
        linear_modules(model, FamilyTask.model_validate({"family": family}))


@pytest.mark.long
def test_an_encoder_of_two_sides_is_asked_for_both(tmp_path: Path) -> None:
    found = linear_modules(make_tiny_clip(tmp_path / "clip"), FamilyTask(family="dual-encoder"))
    modules = {target.module for target in found.modules}
    assert {"text_projection", "visual_projection"} <= modules and found.head == ()
