"""Tokens of records in mapped files: the same sequences as ever, and no file that is trusted."""

import json
import stat
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import numpy as np
import pytest

from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.records.model_family import CAUSAL_TASK
from silo_agent.training.ranks.base_model import load_tokenizer
from silo_agent.training.ranks.conversation import IGNORED, Conversation
from silo_agent.training.ranks.families.causal_lm import CausalLm
from silo_agent.training.ranks.families.family import Telling
from silo_agent.training.ranks.packed_sequence import PackedSequence
from silo_agent.training.ranks.packing import (
    OPEN_SEQUENCES,
    PackingRule,
    pack_heldout,
    pack_training,
)
from silo_agent.training.ranks.shard_cache import SUFFIX, ShardCache
from silo_agent.training.ranks.token_shard import TokenShard, open_shard, write_shard
from silo_agent.training.results import PackingCounts
from tests.full_disk import files_of_at_most
from tests.silo_agent.training.tiny_jobs import TinySilo, conversations
from tests.tiny_model import write_records

KEY, DAY = b"k" * 32, "2026-11-29"


def drawn(count: int, seed: int) -> list[Conversation | None]:
    """Short and long ones, some that fill any sequence with their prompt, some that are none."""
    rng = np.random.default_rng(seed)
    found: list[Conversation | None] = []
    for _ in range(count):
        asked, answered = (int(rng.integers(1, high)) for high in rng.choice([[9, 6], [70, 40]]))
        ids = rng.integers(2**17, size=asked + answered).tolist()
        spells = bool(rng.random() < 0.2)
        made = Conversation(ids, [IGNORED] * asked + ids[asked:], spells)
        found.append(None if rng.random() < 0.1 else made)
    return found


def shard_with(path: Path, content: list[Conversation | None]) -> TokenShard:
    write_shard(path, KEY, content)
    shard = open_shard(path, KEY, Path("records.jsonl"))
    assert shard is not None
    return shard


class ListPacking:
    """First-fit packing as a list of conversations in memory has it, written down once more."""

    def __init__(self, content: list[Conversation | None], rule: PackingRule) -> None:
        self.content, self.rule = content, rule
        self.used = self.truncated = self.skipped = self.spelling = self.passes = 0
        self.untellable = 0

    def sequences(self, seed: int, round_number: int, *, wrap: bool) -> Iterator[PackedSequence]:
        open_ones: list[PackedSequence] = []
        for made in self._in_order(seed, round_number, wrap=wrap):
            ids, labels = made.token_ids, made.labels
            fitting = (s for s in open_ones if len(s.labels) + len(ids) <= self.rule.length)
            sequence = next(fitting, None)
            if sequence is None:
                if len(open_ones) == OPEN_SEQUENCES:
                    yield open_ones.pop(0)
                sequence = PackedSequence()
                open_ones.append(sequence)
            sequence.append(ids, labels)
            if not self.rule.together:
                yield open_ones.pop()
        yield from open_ones

    def _in_order(self, seed: int, round_number: int, *, wrap: bool) -> Iterator[Conversation]:
        room = self.rule.length
        while wrap or not self.passes:
            words = [seed & 0xFFFFFFFF, seed >> 32, round_number, self.passes]
            self.passes += 1
            for index in np.random.Generator(np.random.PCG64(words)).permutation(len(self.content)):
                made = self.content[int(index)]
                if made is None or made.labels[:room][-1] == IGNORED:
                    self.skipped += 1
                    self.untellable += made is None
                    continue
                self.used += 1
                self.truncated += len(made.labels) > room
                self.spelling += made.spells_controls
                yield Conversation(made.token_ids[:room], made.labels[:room])

    def counts(self) -> PackingCounts:
        return PackingCounts(
            conversations=self.used,
            truncated=self.truncated,
            skipped=self.skipped,
            passes=self.passes,
            spell_controls=self.spelling,
            untellable=self.untellable,
            together=self.rule.together,
        )


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(("length", "records", "count"), [(16, 40, 60), (64, 9, 25), (96, 300, 7)])
def test_sequences_and_counts_are_those_of_a_list_in_memory(
    tmp_path: Path, together: bool, length: int, records: int, count: int
) -> None:
    for seed in range(4):
        content = drawn(records, seed)
        shard = shard_with(tmp_path / f"{seed}", content)
        rule = PackingRule(length, together)
        expected = ListPacking(content, rule)
        wanted = list(islice(expected.sequences(2**40 + seed, 3, wrap=True), count))
        found, counts = pack_training(shard, rule, count=count, seed=2**40 + seed, round_number=3)
        assert list(found) == wanted
        assert counts == expected.counts()
        assert found[2:5] == wanted[2:5] and found[-1] == wanted[-1]
        once = ListPacking(content, PackingRule(length)).sequences(seed, 0, wrap=False)
        held_out = list(islice(once, count))
        alone = held_out if together else [one for each in held_out for one in each.apart()]
        assert list(pack_heldout(shard, rule, limit=count, seed=seed)) == alone


def test_a_sequence_that_is_not_there_is_an_index_error(tmp_path: Path) -> None:
    shard = shard_with(tmp_path / "shard", drawn(20, 0))
    sequences, _ = pack_training(shard, PackingRule(64), count=3, seed=1, round_number=1)
    with pytest.raises(IndexError):
        sequences[3]


class Tokenizer:
    """Loads the tokenizer of a folder and counts how often that was asked for."""

    def __init__(self) -> None:
        self.loaded = 0

    def __call__(self, model_dir: Path) -> Any:
        self.loaded += 1
        return load_tokenizer(model_dir)


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer()


def cache(silo: TinySilo, tmp_path: Path, tokenizer: Tokenizer, **changes: Any) -> ShardCache:
    model_dir = changes.pop("model_dir", silo.model_dir)
    telling = Telling(model_dir, changes.pop("day", DAY), changes.pop("room", 96))
    options = {"directory": tmp_path / "shards", "family": CausalLm(CAUSAL_TASK), **changes}
    options["telling"] = telling
    return ShardCache(tokenizer=tokenizer, **options)


def shards(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "shards").iterdir()} - {".lock"}


def test_records_are_tokenised_once_and_then_mapped(
    silo: TinySilo, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    said: list[str] = []
    for _ in range(2):
        shard = cache(silo, tmp_path, tokenizer, say=said.append).of(silo.train_records)
        made = conversations(silo.model_dir)
        lines = silo.train_records.read_text().splitlines()
        for place, line in enumerate(lines):
            whole = made.of(**json.loads(line))
            assert shard.cut(place, 1000) == (whole.token_ids, whole.labels)
            assert shard.cut(place, 9) == (whole.token_ids[:9], whole.labels[:9])
        assert len(shard) == len(lines)
    assert tokenizer.loaded == 1 and said == ["tokenising the records"]
    (name,) = shards(tmp_path)
    assert stat.S_IMODE((tmp_path / "shards" / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "shards").stat().st_mode) == 0o700


def test_other_records_another_day_or_tokenizer_are_other_tokens_and_the_old_ones_go(
    silo: TinySilo, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    train = write_records(tmp_path / "train.jsonl", 4)
    cache(silo, tmp_path, tokenizer).of(write_records(tmp_path / "heldout.jsonl", 3))
    (heldout,) = shards(tmp_path)
    seen = [heldout]

    def made(**changes: Any) -> None:
        cache(silo, tmp_path, tokenizer, **changes).of(train)
        (name,) = shards(tmp_path) - {heldout}
        assert name.startswith("train-")
        seen.append(name)

    made()
    made(day="2026-11-30")
    write_records(train, 5)
    made()
    model = tmp_path / "model"
    model.mkdir()
    for path in silo.model_dir.iterdir():
        (model / path.name).write_bytes(path.read_bytes())
    settings = model / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"model_max_length": 9}))
    made(model_dir=model)
    assert len(set(seen)) == 5 == tokenizer.loaded


def test_of_two_processes_one_tokenises_and_the_other_waits(
    silo: TinySilo, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    found: list[TokenShard] = []
    ready = Barrier(2)

    def look() -> None:
        own = cache(silo, tmp_path, tokenizer, say=lambda phase: void(ready.wait(20)))
        found.append(own.of(silo.train_records))

    threads = [Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(shard) for shard in found] == [30, 30]
    assert tokenizer.loaded == 1, "both had found none"


def void(value: object) -> None:
    """Nothing is done with a value."""


def test_what_a_killed_process_left_is_removed(
    silo: TinySilo, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    (tmp_path / "shards").mkdir()
    left = tmp_path / "shards" / f".train-0{SUFFIX}.123-456.part"
    left.write_bytes(b"half of it")
    cache(silo, tmp_path, tokenizer).of(silo.train_records)
    assert not left.exists()


def flipped(place: int) -> Callable[[bytes], bytes]:
    """One bit changed, counted from the end where `place` is negative."""

    def flip(content: bytes) -> bytes:
        changed = bytearray(content)
        changed[place] ^= 4
        return bytes(changed)

    return flip


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "a part of the header": lambda content: content[:50],
    "cut": lambda content: content[:-1],
    "longer": lambda content: content + b"\0",
    "zeros": lambda content: bytes(len(content)),
    "another form": flipped(7),
    "another key": flipped(20),
    "another number of records": flipped(72),
    "another number of tokens": flipped(80),
    "another index": flipped(-3),
    "a number beyond any file": lambda content: content[:72] + b"\xff" * 16 + content[88:],
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_written_anew(
    silo: TinySilo, tmp_path: Path, tokenizer: Tokenizer, name: str
) -> None:
    own = cache(silo, tmp_path, tokenizer)
    path = own.of(silo.heldout_records).path
    whole = path.read_bytes()
    path.write_bytes(DAMAGE[name](whole))
    own.of(silo.heldout_records)
    assert path.read_bytes() == whole
    assert tokenizer.loaded == 2


def test_tokens_that_changed_are_refused_when_they_are_used_and_written_anew(
    silo: TinySilo, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    own = cache(silo, tmp_path, tokenizer)
    path = own.of(silo.heldout_records).path
    whole = path.read_bytes()
    path.write_bytes(flipped(100)(whole))
    shard = own.of(silo.heldout_records)
    with pytest.raises(SiloOperatorError, match="others in record 1; the file was removed"):
        shard.cut(0, 96)
    assert own.of(silo.heldout_records).path.read_bytes() == whole


@pytest.mark.parametrize("room", [0, 50, 1000, 5000])
def test_a_full_disk_is_one_message_and_leaves_nothing(
    silo: TinySilo, tmp_path: Path, tokenizer: Tokenizer, room: int
) -> None:
    own = cache(silo, tmp_path, tokenizer)
    with files_of_at_most(room), pytest.raises(SiloOperatorError) as raised:
        own.of(silo.train_records)
    size = silo.train_records.stat().st_size
    said = str(raised.value)
    assert f"bytes for each of train.jsonl's {size:,}" in said
    assert "File too large" in said and "free disk space" in said
    assert shards(tmp_path) == set()
    assert len(own.of(silo.train_records)) == 30


def test_a_directory_that_cannot_be_made_is_named(
    silo: TinySilo, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    (tmp_path / "taken").write_text("a file")
    own = cache(silo, tmp_path, tokenizer, directory=tmp_path / "taken" / "shards")
    with pytest.raises(SiloOperatorError, match=r"taken/shards.*Not a directory"):
        own.of(silo.train_records)
