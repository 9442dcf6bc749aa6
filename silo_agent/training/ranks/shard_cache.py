"""Records become tokens once: later rounds, evaluations and other ranks map the file that holds
them.

A file is made for the very bytes of the records and their form, the files of the tokenizer and its
template, the day that the template is told, and the libraries; of documents, which are cut into
pieces, also for the length of a sequence. When one of them changes it is made anew and the
older one goes. The first process that needs it makes it, others wait; a lock that the kernel gives
back sees to that. What a killed one has left is removed by the next. These files are the records in
another form, and as private.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import rfc8785

from data_contracts.dataset.forms.form import Form
from data_contracts.dataset.forms.lines import form_of_file, read_lines
from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.artifact import artifact_of_file, digest_of_bytes
from data_contracts.protocol.records.model_family import CAUSAL
from infra.disk.durable_files import aside
from infra.disk.file_lock import in_turn
from infra.disk.model_files import model_files
from silo_agent.training.ranks.conversation import ChatTokenizer, Conversation
from silo_agent.training.ranks.families.family import Family, Telling, Told
from silo_agent.training.ranks.token_shard import TokenShard, open_shard, write_shard

OLDEST_FORM = "instruction"
FORMAT, FORMAT_OF_OTHERS = 1, 2
"""Raised whenever the same records would become other tokens: of any form, or of newer ones."""

BYTES_AT_A_TIME = 2**18
"""Of records that are tokenised together: enough for all cores, and little memory."""

LOCK, SUFFIX = ".lock", ".tokens"
_LIBRARIES = ("transformers", "tokenizers", "jinja2")


class ShardCache:
    """The tokens of records in `directory`, by a family of models, as `telling` says.

    `say` is told when records are tokenised, which can take minutes.
    """

    def __init__(
        self,
        directory: Path,
        family: Family,
        telling: Telling,
        tokenizer: Callable[[Path], ChatTokenizer],
        say: Callable[[str], None] = lambda phase: None,
    ) -> None:
        self._directory, self._family, self._telling = directory, family, telling
        self._tokenizer, self._say = tokenizer, say

    def of(self, records: Path) -> TokenShard:
        """The tokens of a records file.

        Raises DataStewardError for records that cannot be trained with, and SiloOperatorError
        where the disk refuses.
        """
        form = form_of_file(records)
        key = self._key(records, form)
        path = self._directory / f"{records.stem}-{key.hex()[:32]}{SUFFIX}"
        found = open_shard(path, key, records)
        if found is not None:
            return found
        self._say("tokenising the records")
        with _disk_faults(self._directory, records):
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            with in_turn(self._directory / LOCK):
                # Another process may have made it meanwhile.
                return open_shard(path, key, records) or self._made(records, form, path, key)

    def _made(self, records: Path, form: Form, path: Path, key: bytes) -> TokenShard:
        for pattern in (f"{records.stem}-*{SUFFIX}", ".*.part"):
            for older in self._directory.glob(pattern):
                older.unlink()
        with aside(path, 0) as temporary, _disk_faults(self._directory, records):
            write_shard(temporary, key, self._conversations(records, form))
        made = open_shard(path, key, records)
        if made is None:
            raise _refused(self._directory, records, "a file that is not what was written")
        return made

    def _conversations(self, records: Path, form: Form) -> Iterator[Conversation | None]:
        tokenizer = self._tokenizer(self._telling.model_dir)
        encoder = self._family.encoder(tokenizer, self._telling)
        for some in _some_at_a_time(read_lines(records, form)):
            pieces: list[Told] = form.told(some, encoder)
            for told in pieces:
                yield from told

    def _key(self, records: Path, form: Form) -> bytes:
        files = {
            name: artifact_of_file(path).digest
            for name, path in model_files(self._telling.model_dir).items()
            if path.suffix != ".safetensors"
        }
        libraries = [version(name) for name in _LIBRARIES]
        of_records = artifact_of_file(records).digest
        # The oldest form is described as it was before there were others.
        is_oldest = form.name == OLDEST_FORM
        of_form: list[str | int] = [] if is_oldest else [form.name, FORMAT_OF_OTHERS]
        of_form += [] if form.needs_template else [self._telling.room]
        task = self._family.task
        # The oldest family as well.
        of_form += [] if task.family == CAUSAL else [FORMAT_OF_OTHERS, task.model_dump_json()]
        day = self._telling.day
        described = rfc8785.dumps([FORMAT, of_records, files, day, libraries, *of_form])
        return bytes.fromhex(digest_of_bytes(described))


def _some_at_a_time(records: Iterator[tuple[Any, int]]) -> Iterator[list[Any]]:
    some: list[Any] = []
    total = 0
    for record, size in records:
        some.append(record)
        total += size
        if total > BYTES_AT_A_TIME:
            yield some
            some, total = [], 0
    if some:
        yield some


@contextmanager
def _disk_faults(directory: Path, records: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _refused(directory, records, error.strerror or type(error).__name__) from error


def _refused(directory: Path, records: Path, found: str) -> SiloOperatorError:
    size = records.stat().st_size
    return SiloOperatorError(
        f"tokenised records in {directory}",
        expected=f"permission to write them and room for two bytes for each of {records.name}'s "
        f"{size:,}",
        found=found,
        action="free disk space or correct the permissions, then start the agent again",
    )
