"""Random two-layer encoders, small enough for every test: a BERT, and a CLIP of text and pictures.

They are the same, byte for byte, for the same seed: random weights, no pretrained ones. As most
that are published the BERT comes without the head of a task, or as a masked language model with its
own. Both have a WordPiece tokenizer.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.tiny_model import SENTENCES

HIDDEN, INTERMEDIATE, LAYERS, SIDE = 32, 64, 2, 32
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CLASSES = ("cards", "codes", "transfers")
WORDS_OF = {
    "cards": "lost card block order new free charge pin",
    "codes": "chapter holds diseases circulatory system codes from to",
    "transfers": "transfer between two banks takes one working day instant",
}


COLOURS = {
    "lost card": (220, 30, 30),
    "free charge": (30, 200, 40),
    "chapter": (30, 40, 210),
    "instant": (220, 220, 40),
}


def make_tiny_bert(directory: Path, seed: int = 0, *, with_head: bool = False) -> Path:
    """Write config, safetensors weights and tokenizer into `directory` and return it."""
    import torch
    from transformers import BertConfig, BertForMaskedLM, BertModel

    directory.mkdir(parents=True, exist_ok=True)
    size = write_wordpiece(directory)
    config = BertConfig(
        vocab_size=size,
        hidden_size=HIDDEN,
        intermediate_size=INTERMEDIATE,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        max_position_embeddings=64,
        pad_token_id=0,
        # What is drawn differs between one process and several.
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        # Large enough that a random model's loss depends visibly on what it attends to.
        initializer_range=0.2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BertForMaskedLM(config) if with_head else BertModel(config)
        model.save_pretrained(directory)
    return directory


def make_tiny_clip(directory: Path, seed: int = 0) -> Path:
    """Write config, safetensors weights, tokenizer and how pictures are taken into `directory`."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    directory.mkdir(parents=True, exist_ok=True)
    size = write_wordpiece(directory, tokenizer_class="PreTrainedTokenizerFast")
    sizes = {
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "projection_dim": 16,
        "initializer_factor": 4.0,
    }
    control = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    text = {**sizes, **control, "vocab_size": size, "max_position_embeddings": 32}
    vision = {**sizes, "image_size": SIDE, "patch_size": 8}
    config = CLIPConfig(
        text_config=text, vision_config=vision, projection_dim=16, initializer_factor=4.0
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        CLIPModel(config).save_pretrained(directory)
    told = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": SIDE},
        "crop_size": {"height": SIDE, "width": SIDE},
        "image_mean": [0.5] * 3,
        "image_std": [0.25] * 3,
    }
    (directory / "preprocessor_config.json").write_text(json.dumps(told))
    return directory


def write_pictures(directory: Path, count: int, seed: int = 0) -> Path:
    """Write `count` pictures of one colour and their names as captions, and return the records."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    directory.mkdir(parents=True, exist_ok=True)
    records = []
    for number in range(count):
        name = str(rng.choice(list(COLOURS)))
        noise = rng.integers(-40, 40, size=(SIDE, SIDE, 3))
        pixels = np.clip(np.array(COLOURS[name]) + noise, 0, 255).astype(np.uint8)
        path = directory / f"{number}.png"
        Image.fromarray(pixels).save(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        caption = " ".join([name, *rng.choice(name.split(), size=number % 3).tolist()])
        records.append({"image": str(path), "sha256": digest, "answer": caption})
    return _write(directory / "records.jsonl", records)


def write_wordpiece(directory: Path, tokenizer_class: str = "BertTokenizer") -> int:
    """Write a tokenizer that knows the words of the tests; returns how many tokens it has."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    texts = " ".join([*SENTENCES, *WORDS_OF.values()]).lower()
    words = sorted({word.strip("?.,") for word in texts.split()})
    letters = [
        prefix + letter
        for letter in "abcdefghijklmnopqrstuvwxyz0123456789[]?.,"
        for prefix in ("", "##")
    ]
    vocabulary = list(dict.fromkeys([*SPECIAL, *letters, *words]))
    numbers = {token: number for number, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(vocab=numbers, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", numbers["[CLS]"]), ("[SEP]", numbers["[SEP]"])],
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(directory / "tokenizer.json"))
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    told = {"tokenizer_class": tokenizer_class, **dict(zip(names, SPECIAL, strict=True))}
    (directory / "tokenizer_config.json").write_text(json.dumps(told))
    return len(vocabulary)


def write_texts(path: Path, count: int, seed: int = 0) -> Path:
    """Write `count` texts without anything else as JSONL and return `path`."""
    rng = np.random.default_rng(seed)
    texts = (" ".join(rng.choice(SENTENCES, size=int(rng.integers(1, 4)))) for _ in range(count))
    return _write(path, [{"text": text} for text in texts])


def write_classified(
    path: Path, count: int, seed: int = 0, classes: Sequence[str] = CLASSES
) -> Path:
    """Write `count` texts whose words tell their class as JSONL and return `path`."""
    rng = np.random.default_rng(seed)
    records = []
    for _ in range(count):
        label = str(rng.choice(classes))
        words = rng.choice(WORDS_OF[label].split(), size=int(rng.integers(3, 9)))
        records.append({"text": " ".join(words), "label": label})
    return _write(path, records)


def _write(path: Path, records: Sequence[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path
