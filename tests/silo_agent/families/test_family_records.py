"""From records to what a model of a family is shown and asked, and from what it says to losses."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_contracts.errors import DataStewardError, FederationOperatorError, SiloOperatorError
from data_contracts.protocol.records.model_family import FORMS_OF, FamilyTask
from silo_agent.training.ranks.base_model import load_tokenizer
from silo_agent.training.ranks.conversation import IGNORED
from silo_agent.training.ranks.families.dual_encoder import BLOCK, DualEncoder, Pair, pair_losses
from silo_agent.training.ranks.families.masked_lm import ASKED, MaskedLm, hidden
from silo_agent.training.ranks.families.registry import FAMILIES, family_of
from silo_agent.training.ranks.families.sequence_classification import SequenceClassification
from silo_agent.training.ranks.packed_sequence import Origin, PackedSequence
from tests.silo_agent.families.told_samples import told, whole
from tests.tiny_encoders import CLASSES, SIDE, make_tiny_bert, make_tiny_clip, write_pictures

CLASSIFYING = FamilyTask(family="sequence-classification", classes=CLASSES)
TEXT = "Block the card at once and order a new one, free of charge."


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bert(tmp_path_factory.mktemp("families") / "bert", with_head=True)


@pytest.fixture(scope="module")
def tokenizer(bert: Path) -> Any:
    return load_tokenizer(bert)


def origin(index: int = 0, *, seed: int = 5, round_number: int = 1) -> Origin:
    return Origin(Path("/data/train.jsonl"), (index,), (seed, round_number, index))


def test_a_long_text_is_masked_in_pieces_that_each_begin_and_end(
    tokenizer: Any, bert: Path
) -> None:
    pieces = told(MaskedLm(FamilyTask(family="masked-lm")), tokenizer, bert, "text", TEXT, room=8)
    assert [piece.continues for piece in pieces] == [False, *[True] * (len(pieces) - 1)]
    begin, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    inside: list[int] = []
    for piece in pieces:
        assert (piece.token_ids[0], piece.token_ids[-1]) == (begin, end)
        assert piece.labels == [IGNORED, *piece.token_ids[1:-1], IGNORED]
        assert len(piece.token_ids) <= 8
        inside += piece.token_ids[1:-1]
    assert inside == tokenizer(TEXT, add_special_tokens=False)["input_ids"]


def test_a_text_that_spells_a_mask_is_text(tokenizer: Any, bert: Path) -> None:
    family = MaskedLm(FamilyTask(family="masked-lm"))
    (piece,) = told(family, tokenizer, bert, "text", "a [MASK] in [SEP] a text", room=99)
    assert piece.spells_controls
    assert tokenizer.mask_token_id not in piece.token_ids
    assert piece.token_ids.count(tokenizer.sep_token_id) == 1


def test_what_is_hidden_follows_from_seed_round_and_number_alone(tokenizer: Any) -> None:
    sequence = whole(list(range(40, 240)))
    masked = [hidden(sequence, origin(n), mask=4, vocabulary=300) for n in range(40)]
    again = hidden(sequence, origin(7), mask=4, vocabulary=300)
    assert again == masked[7] != masked[8]
    others = (origin(7, seed=6), origin(7, round_number=2))
    assert all(hidden(sequence, o, mask=4, vocabulary=300) != masked[7] for o in others)
    asked = [n for one in masked for n in np.flatnonzero(np.array(one.labels) != IGNORED)]
    assert len(asked) == 40 * round(200 * ASKED)
    kinds = {"hidden": 0, "same": 0, "other": 0}
    for one in masked:
        for place, label in enumerate(one.labels):
            shown = one.token_ids[place]
            if label == IGNORED:
                assert shown == sequence.token_ids[place]
                continue
            assert label == sequence.token_ids[place]
            kinds["hidden" if shown == 4 else "same" if shown == label else "other"] += 1
    shares = {kind: count / len(asked) for kind, count in kinds.items()}
    assert shares == pytest.approx({"hidden": 0.8, "same": 0.1, "other": 0.1}, abs=0.03)


def test_of_a_short_text_one_token_is_asked() -> None:
    one = hidden(whole([9]), origin(), mask=4, vocabulary=10)
    assert one.labels == [9]


def test_a_class_is_a_number_before_its_text(tokenizer: Any, bert: Path) -> None:
    family = SequenceClassification(CLASSIFYING)
    record = (TEXT, CLASSES[2])
    (piece,) = told(family, tokenizer, bert, "classification", record, room=99)
    assert (piece.token_ids[0], piece.labels[0]) == (2, 2)
    assert piece.token_ids[1:] == tokenizer(TEXT)["input_ids"]
    assert set(piece.labels[1:]) == {IGNORED}
    shown = family.shown(lambda: tokenizer, bert)
    assert shown is not None
    cut = PackedSequence(piece.token_ids[:6], piece.labels[:6], list(range(6)))
    asked = shown(cut, origin())
    assert asked.token_ids == [*tokenizer(TEXT)["input_ids"][:4], tokenizer.sep_token_id]
    assert asked.labels == [2, *[IGNORED] * 4] and asked.record_answer_tokens == [1]


def test_a_class_that_the_plan_does_not_name_is_one_message(tokenizer: Any, bert: Path) -> None:
    with pytest.raises(DataStewardError) as caught:
        told(
            SequenceClassification(CLASSIFYING), tokenizer, bert, "classification", (TEXT, "loans")
        )
    assert "expected one of the 3 classes that the plan names; found another class" in str(
        caught.value
    )
    assert "loans" not in str(caught.value), "nothing of a record is quoted"


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_records_of_another_form_are_refused_by_name(
    family: Any, tokenizer: Any, bert: Path
) -> None:
    samples = {
        "instruction": ("question", "answer"),
        "text": TEXT,
        "image-text": Pictured(TEXT),
    }
    task = CLASSIFYING if family == "sequence-classification" else FamilyTask(family=family)
    for form, record in samples.items():
        if form in FORMS_OF[family] or (form, family) == ("instruction", CLASSIFYING.family):
            continue
        with pytest.raises(DataStewardError, match=FORMS_OF[family][0]):
            told(family_of(task), tokenizer, bert, form, record)


class Pictured:
    """A record of a picture, of which an encoder sees the caption."""

    def __init__(self, caption: str) -> None:
        self.caption = caption


def test_a_tokenizer_without_a_mask_is_refused(tokenizer: Any, bert: Path) -> None:
    without = load_tokenizer(bert)
    without.mask_token = None  # type: ignore[attr-defined]
    with pytest.raises(FederationOperatorError, match="a tokenizer with a mask token"):
        MaskedLm(FamilyTask(family="masked-lm")).shown(lambda: without, bert)


def test_a_pair_is_a_caption_with_the_picture_that_was_checked(tmp_path: Path) -> None:
    model = make_tiny_clip(tmp_path / "clip")
    records = write_pictures(tmp_path / "set", 3)
    tokenizer = load_tokenizer(model)
    family = DualEncoder(FamilyTask(family="dual-encoder"))
    shown = family.shown(lambda: tokenizer, model)
    assert shown is not None
    ids = tokenizer("lost card", add_special_tokens=True)["input_ids"]
    place = Origin(records, (1,), (1, 1, 0))
    pair = shown(PackedSequence(ids, ids, list(range(len(ids)))), place)
    assert isinstance(pair, Pair)
    assert pair.pixels.shape == (1, 3, SIDE, SIDE) and pair.record_answer_tokens == [1]
    assert -2 <= pair.pixels.min() < pair.pixels.max() <= 2
    (tmp_path / "set" / "1.png").write_bytes((tmp_path / "set" / "2.png").read_bytes())
    changed = shown(PackedSequence(ids, ids, list(range(len(ids)))), place)
    assert isinstance(changed, Pair), "no picture is opened before somebody embeds it"
    with pytest.raises(SiloOperatorError, match="expected the bytes that were checked"):
        _ = changed.pixels


def test_held_out_pairs_are_told_apart_in_blocks_whatever_the_ranks() -> None:
    rng = torch.Generator().manual_seed(3)
    embedded = torch.nn.functional.normalize(torch.randn(100, 2, 8, generator=rng), dim=-1)
    measured = torch.cat([embedded.flatten(1), torch.full((100, 1), 7.0)], dim=1).double()
    scores = DualEncoder(FamilyTask(family="dual-encoder")).scores(measured)
    sizes = [34, 33, 33]
    assert all(size >= BLOCK for size in sizes)
    expected = [
        pair_losses(block.double(), torch.tensor(7.0)) for block in torch.split(embedded, sizes)
    ]
    assert torch.allclose(scores.losses, torch.cat(expected))
    block = embedded[:34].double()
    logits = 7 * block[:, 0] @ block[:, 1].T
    own = torch.arange(34)
    plain = [torch.nn.functional.cross_entropy(each, own) for each in (logits, logits.T)]
    assert scores.losses[:34].mean().item() == pytest.approx(sum(plain).item() / 2)  # type: ignore[union-attr]
    assert scores.right is not None
    assert scores.right[:34].tolist() == (logits.argmax(1) == own).double().tolist()
