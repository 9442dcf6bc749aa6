"""A silo's data set as its contract names it: what is in it, and the records one by one.

The content digest names every byte that a reader can see. Files that look unchanged are not read
again for it; a table of a database has no such shortcut and is read as a stream.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import rfc8785

from data_contracts.dataset.examples import Example, UnreadableRow
from data_contracts.dataset.sources.data_source import DataSource, DataUnavailableError
from data_contracts.dataset.sources.places import DataRoot
from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.artifact import digest_of_bytes
from infra.disk.file_digests import FileDigests

if TYPE_CHECKING:
    from data_contracts.licences.stated_of_pictures import StatedOfPictures

MAX_URL_BYTES = 4096


@dataclass(frozen=True)
class SiloData:
    """Data below `root`, or a table of the database whose URL stands in the file `database`."""

    source: DataSource
    root: DataRoot
    database: Path | None
    digests: FileDigests

    def records(self) -> Iterator[Example | UnreadableRow]:
        """Every record in order; raises DataUnavailableError when they cannot be read."""
        # Imported here because pyarrow takes long to load and an unchanged set is not read.
        from data_contracts.dataset.sources.reading import read_source

        return read_source(self.source, self.root, self._connection())

    def stated_licence(self) -> "StatedOfPictures":
        """What lies beside pictures and says their licence."""
        from data_contracts.dataset.sources.reading import stated_licence

        return stated_licence(self.source, self.root)

    def expected_records(self) -> int | None:
        """About how many records there are; None when that is unknown."""
        from data_contracts.dataset.sources.reading import count_hint

        return count_hint(self.source, self.root, self._connection())

    def content_digest(self) -> str:
        """SHA-256 over names and bytes of the files, or over the rows of the table."""
        if self.source.format == "sql":
            from data_contracts.dataset.sources.sql import sql_content_digest

            return sql_content_digest(self.source, self._connection() or "")
        from data_contracts.dataset.sources.reading import source_files

        root = self.root.path.resolve()
        try:
            files = {
                path.relative_to(root).as_posix(): self.digests.artifact(path).digest
                for path in source_files(self.source, self.root)
            }
        except OSError as error:
            reason = error.strerror or "it cannot be read"
            raise DataUnavailableError(self.source.path, reason) from None
        except SiloOperatorError as error:
            raise DataUnavailableError(self.source.path, error.found) from None
        self.digests.save()
        return digest_of_bytes(rfc8785.dumps(files))

    def _connection(self) -> str | None:
        if self.source.format != "sql":
            return None
        try:
            url = self.database.read_text(encoding="utf-8").strip() if self.database else ""
        except (OSError, UnicodeDecodeError):
            url = ""
        if not url or len(url) > MAX_URL_BYTES:
            raise SiloOperatorError(
                "setting data.database",
                expected="a file with the SQLAlchemy URL of the database, mode 0600",
                found="none" if self.database is None else f"nothing usable in {self.database}",
                action="write the URL into a file and name it in silo-agent.toml",
            )
        return url
