"""Folders of images with one metadata file, in LAION's columns or those that the contract names.

The metadata is `metadata.parquet`, `metadata.csv` or `metadata.jsonl` (Hugging Face's ImageFolder
convention); exactly one must be there. An image lies inside the folder after every link has been
followed; one that does not, or is not there, makes its row unreadable.
"""

from data_contracts.dataset.sources.data_source import DataUnavailableError, SourceFormat
from data_contracts.dataset.sources.places import DataRoot, file_below, folder_below

_METADATA_FORMATS: tuple[SourceFormat, ...] = ("parquet", "csv", "jsonl")


def metadata_of(root: DataRoot, relative: str) -> tuple[str, SourceFormat]:
    """Name below the data root, and format, of the folder's metadata file."""
    folder = folder_below(root, relative)
    found = [kind for kind in _METADATA_FORMATS if (folder / f"metadata.{kind}").exists()]
    if len(found) != 1:
        raise DataUnavailableError(relative, f"{len(found)} metadata files, where one is expected")
    name = f"{relative}/metadata.{found[0]}"
    file_below(root, name)
    return name, found[0]
