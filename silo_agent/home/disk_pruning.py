"""Removes from a silo's home directory what no round needs any more, by `disk_rule`.

Guaranteed: only names that this program gives are removed, below directories that are no links;
never keys, marks, feed, contracts, policy, gate outcomes or what a person put there. Killed
anywhere it leaves whole rounds or none of them, records of the outbox go before the adapters they
name, and the next time it goes on. For one process at a time: whoever holds the agent's lock.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.bucket_layout import blob_key, run_round_prefix
from data_contracts.protocol.envelope import unverified_record
from data_contracts.protocol.records import Submission
from infra.disk.own_files import (
    Removed,
    is_own_directory,
    is_own_file,
    leads_through_no_link,
    leftovers,
    own_entries,
    remove_all,
)
from silo_agent.compression.sent_adapter import STATE_DIRECTORY
from silo_agent.config import DiskSection
from silo_agent.contribution.coalition_measuring import DIRECTORY as COALITIONS
from silo_agent.federation.global_adapters import GLOBAL_ADAPTERS
from silo_agent.gate.contract_gate import SPLITS_DIRECTORY
from silo_agent.gate.splits import SHARDS
from silo_agent.home.disk_rule import SeenRounds, is_over, kept_rounds
from silo_agent.masking.kept_secrets import MASKING
from silo_agent.personal.job import DIRECTORY as PERSONAL_WORK
from silo_agent.personal.kept import PERSONAL
from silo_agent.personal.own_factors import OWN_FACTORS
from silo_agent.release.outbox import OUTBOX, SEALED_NOTE
from silo_agent.release.sealing import read_note
from silo_agent.training.jobs import SILO_ONLY, WORK
from silo_agent.training.run_files import RunFiles

_WORK_ROUND = re.compile(r"round-(?P<round>\d{4,9})")
_OUTBOX_ROUND = re.compile(r"(?P<round>\d{4,9})")
_SILO_ONLY_ROUND = re.compile(r"round-(?P<round>\d{4,9})\.safetensors")
_PERSONAL_ROUND = re.compile(r"round-(?P<round>\d{4,9})(\.json|(\.beside)?\.safetensors)")
_OWN_ROUND = re.compile(r"round-(?P<round>\d{4,9})(\.json|\.b\.safetensors)")
_SHARED_ROUND = re.compile(r"round-(?P<round>\d{4,9})\.a\.safetensors")
_RESIDUAL = re.compile(r"(?P<round>\d{4,9})\.(json|residual\.safetensors|factors\.safetensors)")
_GLOBAL_ADAPTER = re.compile(r"(?P<digest>[0-9a-f]{64})\.safetensors")
_BLOB = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class SiloDisk:
    """A silo's home directory, what its agent has seen, and the rule; `now` in UTC."""

    home: Path
    seen: SeenRounds
    rule: DiskSection
    now: datetime


def prune_home(disk: SiloDisk) -> Removed:
    """Remove what no round needs; returns what that freed and what the system refused."""
    return remove_all(surplus(disk))


def surplus(disk: SiloDisk) -> list[Path]:
    """What would be removed, in the order in which it may be: what names something goes first."""
    rounds = [path for run in sorted(disk.seen.plans) for path in _of_run(disk, run)]
    outbox = disk.home / OUTBOX
    found = [
        *rounds,
        *_unnamed_blobs(outbox, set(rounds)),
        *_global_adapters(disk),
        *_coalitions(disk),
        *_mask_secrets(disk),
        *_leftovers(disk),
    ]
    return [path for path in found if leads_through_no_link(disk.home, path)]


def _of_run(disk: SiloDisk, run: str) -> Iterator[Path]:
    """Whole rounds of a run, outbox first; then the checkpoints of what is trained."""
    ended = is_over(run, disk.seen, disk.rule, disk.now)
    newest, keep = disk.seen.plans[run].round, disk.rule.keep_rounds
    for directory, named in _round_directories(disk.home, run):
        found = dict(_rounds(directory, named))
        kept = set() if ended else kept_rounds(set(found.values()), newest, keep)
        yield from (path for path, number in found.items() if number not in kept)
        if named is _WORK_ROUND:
            yield from _checkpoints(disk, run, {p: n for p, n in found.items() if n in kept})
    if ended:
        yield from (path for path, _ in _rounds(disk.home / STATE_DIRECTORY / run, _RESIDUAL))


def _round_directories(home: Path, run: str) -> tuple[tuple[Path, re.Pattern[str]], ...]:
    return (
        (home / OUTBOX / Path(run_round_prefix(run, 1)).parent, _OUTBOX_ROUND),
        (home / WORK / run, _WORK_ROUND),
        (home / SILO_ONLY / run, _SILO_ONLY_ROUND),
        (home / PERSONAL / run, _PERSONAL_ROUND),
        # Apart: A of a round in which this silo did not train must not push out its last B.
        (home / OWN_FACTORS / run, _OWN_ROUND),
        (home / OWN_FACTORS / run, _SHARED_ROUND),
    )


def _rounds(directory: Path, named: re.Pattern[str]) -> Iterator[tuple[Path, int]]:
    """What lies in a directory under the name of a round, and its number."""
    for path in own_entries(directory):
        match = named.fullmatch(path.name)
        if match is not None and not path.is_symlink():
            yield path, int(match["round"])


def _checkpoints(disk: SiloDisk, run: str, kept: dict[Path, int]) -> Iterator[Path]:
    """Of rounds in which nothing is trained any more: their result has been used, or a later round
    is planned. The result itself stays, for another attempt at the same round."""
    followed, newest = disk.seen.newest, disk.seen.plans[run].round
    has_evaluated = followed is not None and followed.run == run and disk.seen.has_evaluated
    for path, number in kept.items():
        is_trained = number < newest or (number == newest and has_evaluated)
        # A personal adapter may still be trained after the evaluation.
        done = [path] * is_trained + [path / PERSONAL_WORK] * (number < newest)
        found = (RunFiles(directory).checkpoints for directory in done)
        yield from (checkpoints for checkpoints in found if is_own_directory(checkpoints))


def _unnamed_blobs(outbox: Path, going: set[Path]) -> list[Path]:
    """Adapters that no submission in the outbox names, made or about to be; all stay where one
    cannot be read."""
    named: set[str] = set()
    for attempt in _attempts(outbox, going):
        if (note := read_note(attempt / SEALED_NOTE)) is not None:
            named |= {note.adapter.digest, note.adapter.stored.digest}
        path = attempt / f"{Submission.kind}.json"
        if not path.exists():
            continue
        try:
            adapter = unverified_record(path.read_bytes(), Submission).adapter
            named |= {adapter.digest, adapter.stored.digest}
        except (OSError, UntrustedInputError):
            return []
    blobs = (outbox / blob_key("0" * 64)).parent
    found = (path for path in own_entries(blobs) if _BLOB.fullmatch(path.name))
    return [path for path in found if path.name not in named and is_own_file(path)]


def _attempts(outbox: Path, going: set[Path]) -> Iterator[Path]:
    """Every attempt of the outbox but for those of rounds that go: run, round, attempt."""
    runs = own_entries(outbox / "rounds")
    rounds = (each for run in runs for each in own_entries(run) if each not in going)
    yield from (a for round_ in rounds for a in own_entries(round_) if is_own_directory(a))


def _global_adapters(disk: SiloDisk) -> Iterator[Path]:
    """Adapters of the federation that the newest plans do not start from.

    A candidate stays from its evaluation on, since the next round most likely starts from it.
    """
    if disk.seen.has_submitted:
        return
    wanted = disk.seen.starting_digests()
    for path in own_entries(disk.home / GLOBAL_ADAPTERS):
        match = _GLOBAL_ADAPTER.fullmatch(path.name)
        if match is not None and match["digest"] not in wanted and is_own_file(path):
            yield path


def _coalitions(disk: SiloDisk) -> list[Path]:
    """Adapters of coalitions, which are there only while they are measured."""
    path = disk.home / COALITIONS
    return [path] if not disk.seen.may_be_asked and is_own_directory(path) else []


def _mask_secrets(disk: SiloDisk) -> Iterator[Path]:
    """Of every attempt but the newest of the newest plan: nothing follows from them any more."""
    newest, wanted = disk.seen.newest, ("", "", "")
    if newest is not None:
        wanted = (newest.run, f"{newest.round:04d}", f"{newest.attempt:02d}")
    for run in own_entries(disk.home / MASKING):
        for round_ in own_entries(run):
            for attempt in own_entries(round_):
                found = (run.name, round_.name, attempt.name.split("-")[0])
                if is_own_directory(attempt) and found != wanted:
                    yield attempt


def _leftovers(disk: SiloDisk) -> Iterator[Path]:
    """What a killed write or removal left, in each directory where that happens."""
    now = disk.now.timestamp()
    for directory in _written(disk):
        yield from leftovers(directory, now)


def _written(disk: SiloDisk) -> Iterable[Path]:
    home = disk.home
    yield from (home, home / OUTBOX / "blobs", home / GLOBAL_ADAPTERS)
    yield home / SPLITS_DIRECTORY / SHARDS
    for run in sorted(disk.seen.plans):
        yield home / STATE_DIRECTORY / run
        yield from (directory for directory, _ in _round_directories(home, run))
        yield from (path for path, _ in _rounds(home / WORK / run, _WORK_ROUND))
