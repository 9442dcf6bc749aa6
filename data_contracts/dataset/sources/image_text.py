"""Folders of images with one metadata file, in LAION's columns or those that the contract names.

The metadata is `metadata.parquet`, `metadata.csv` or `metadata.jsonl` (Hugging Face's ImageFolder
convention); exactly one must be there. An image lies inside the folder after every link has been
followed; one that does not, or is not there, makes its row unreadable. What lies beside the images
and may say under which licence they are is part of the set: README, LICENSE and the like in the
folder or in one that it is in, up to the data root.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from data_contracts.dataset.sources.data_source import DataUnavailableError, SourceFormat
from data_contracts.dataset.sources.places import DataRoot, file_below, folder_below
from data_contracts.licences.stated_of_pictures import StatedOfPictures, stated_of_pictures

_METADATA_FORMATS: tuple[SourceFormat, ...] = ("parquet", "csv", "jsonl")
_SAYS_LICENCE = re.compile(
    r"(?:readme|licen[cs]es?|copying|copyright|notice|credits|attributions?)(?:[-_.][a-z0-9]+){0,4}",
    re.IGNORECASE,
)
_PACKAGE = "package.json"
MAX_FILES, MAX_BYTES = 50, 1024 * 1024


def metadata_of(root: DataRoot, relative: str) -> tuple[str, SourceFormat]:
    """Name below the data root, and format, of the folder's metadata file."""
    folder = folder_below(root, relative)
    found = [kind for kind in _METADATA_FORMATS if (folder / f"metadata.{kind}").exists()]
    if len(found) != 1:
        names = ", ".join(f"metadata.{kind}" for kind in _METADATA_FORMATS)
        reason = f"{len(found)} metadata files, where one is expected of {names}"
        raise DataUnavailableError(relative, reason)
    name = f"{relative}/metadata.{found[0]}"
    file_below(root, name)
    return name, found[0]


def files_beside(root: DataRoot, relative: str) -> tuple[Path, ...]:
    """The files that may say of which licence the images are, and what the package is called."""
    folder, top = folder_below(root, relative), root.path.resolve()
    folders = [each for each in (folder, *folder.parents) if each.is_relative_to(top)]
    return tuple(path for each in folders for path in _saying(each, root))[:MAX_FILES]


def stated_beside(root: DataRoot, relative: str) -> StatedOfPictures:
    """What these files say of the images' licence."""
    top, texts = root.path.resolve(), dict[str, str]()
    names = [relative]
    for path in files_beside(root, relative):
        with path.open("rb") as file:
            text = file.read(MAX_BYTES).decode("utf-8", "replace")
        if path.name == _PACKAGE:
            names.append(_package_name(text))
        else:
            texts[_shown(path.relative_to(top))] = text
    return stated_of_pictures(texts, names)


def _saying(folder: Path, root: DataRoot) -> Iterator[Path]:
    named = (path for path in folder.iterdir() if _says_something(path.name))
    for path in sorted(named):
        try:
            yield file_below(root, path.relative_to(root.path.resolve()).as_posix())
        except DataUnavailableError:
            continue  # a folder, or a file that is not the set's


def _says_something(name: str) -> bool:
    return name == _PACKAGE or _SAYS_LICENCE.fullmatch(name) is not None


def _shown(path: Path) -> str:
    """In printable ASCII: it stands in messages."""
    return ascii(path.as_posix())[1:-1][:200]


def _package_name(text: str) -> str:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    name = document.get("name") if isinstance(document, dict) else None
    return name if isinstance(name, str) else ""
