"""A merge that was killed continues, and neither order nor the number of workers shows."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregator.merge.adapter_merge import merge_adapters, merge_on_threads
from aggregator.merge.defence import defended
from aggregator.merge.merge_inputs import MergeInputs
from aggregator.merge.rules import MergedModule
from aggregator.merge.step_size import stepped
from data_contracts.adapters.adapter_format import open_adapter
from data_contracts.protocol.records.adapter_layout import AdapterTarget
from data_contracts.protocol.records.merge_spec import FedExP
from tests.aggregator.adapter_samples import dense, inputs_of, layout_with, write_adapter

TARGETS = tuple(
    AdapterTarget(module=f"layers.{n}.up", in_features=160, out_features=200) for n in range(12)
)
LAYOUT = layout_with(rank=8, alpha=8, targets=TARGETS)


def inputs(directory: Path, rule: str = "stack_truncate") -> MergeInputs:
    files = [directory / f"{seed}.safetensors" for seed in range(8)]
    adapters = [(write_adapter(path, LAYOUT, seed), 10 + seed) for seed, path in enumerate(files)]
    return inputs_of(adapters, LAYOUT, rule=rule)


def stepped_inputs(directory: Path) -> MergeInputs:
    """Of silos with ranks 8, 4 and 2, whose deltas agree so little that the step is the longest."""
    ranks = [LAYOUT.model_copy(update={"rank": rank, "alpha": rank}) for rank in (8, 4, 2)]
    files = [directory / f"{seed}.safetensors" for seed in range(6)]
    adapters = [
        (write_adapter(path, ranks[seed % 3], seed), 10 + seed) for seed, path in enumerate(files)
    ]
    optimizer = FedExP(max_step=Decimal("1.75"))
    merge: dict[str, Any] = {"optimizer": optimizer, "rank_weights": "trained"}
    return stepped(defended(inputs_of(adapters, LAYOUT, **merge)).inputs)


class KilledError(Exception):
    pass


@pytest.mark.parametrize("made", [inputs, stepped_inputs])
def test_modules_that_were_finished_are_not_merged_again(
    tmp_path: Path, made: Callable[[Path], MergeInputs]
) -> None:
    value = made(tmp_path)
    whole = merge_adapters(value, tmp_path / "whole.safetensors")
    asked: list[list[int]] = []

    def interrupted(value: MergeInputs, missing: list[int]) -> Iterator[tuple[int, MergedModule]]:
        asked.append(missing)
        for done, pair in enumerate(merge_on_threads(value, missing)):
            if done == 5:
                raise KilledError
            yield pair

    into = tmp_path / "again.safetensors"
    for _ in range(2):
        with pytest.raises(KilledError):
            merge_adapters(value, into, merge_modules=interrupted)
        assert not into.exists()
    value = made(tmp_path)  # as a coordinator that was started again draws them up
    assert merge_adapters(value, into, merge_modules=interrupted).adapter == whole.adapter
    assert asked == [list(range(12)), list(range(5, 12)), [10, 11]]
    assert into.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_a_journal_of_other_inputs_or_of_damaged_bytes_does_not_count(tmp_path: Path) -> None:
    value = inputs(tmp_path)
    into = tmp_path / "merged.safetensors"
    asked: list[int] = []

    def counted(value: MergeInputs, missing: list[int]) -> Iterator[tuple[int, MergedModule]]:
        asked.append(len(missing))
        return merge_on_threads(value, missing)

    first = merge_adapters(value, into, merge_modules=counted)
    data = bytearray(into.read_bytes())
    data[-10] ^= 1
    into.write_bytes(data)
    assert merge_adapters(value, into, merge_modules=counted) == first
    other = inputs(tmp_path, rule="average")
    assert merge_adapters(other, into, merge_modules=counted).adapter != first.adapter
    assert asked == [12, 1, 12]


@pytest.mark.long
def test_a_process_killed_in_the_middle_leaves_what_it_finished(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from aggregator.merge.adapter_merge import merge_adapters\n"
        "from tests.aggregator.merge.test_merge_resume import inputs\n"
        "where = Path(sys.argv[1])\n"
        "def slow(done, total):\n"
        "    print(done, flush=True)\n"
        "    time.sleep(60 if done == 4 else 0)\n"
        "merge_adapters(inputs(where), where / 'merged.safetensors', on_progress=slow)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    deadline = time.monotonic() + 60
    while process.stdout.readline().strip() != "4":
        assert time.monotonic() < deadline
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    asked: list[int] = []

    def counted(value: MergeInputs, missing: list[int]) -> Iterator[tuple[int, MergedModule]]:
        asked.extend(missing)
        return merge_on_threads(value, missing)

    into = tmp_path / "merged.safetensors"
    assert not into.exists()
    merge = merge_adapters(inputs(tmp_path), into, merge_modules=counted)
    assert asked == list(range(4, 12))
    assert merge.adapter == merge_adapters(inputs(tmp_path), tmp_path / "fresh").adapter


@pytest.mark.parametrize("made", [inputs, stepped_inputs])
def test_the_number_of_workers_never_changes_the_bytes(
    tmp_path: Path, made: Callable[[Path], MergeInputs]
) -> None:
    value = made(tmp_path)
    digests = set()
    for workers in (1, 2, 5):
        on_workers = partial(merge_on_threads, workers=workers)
        into = tmp_path / str(workers)
        digests.add(merge_adapters(value, into, merge_modules=on_workers).adapter.digest)
    assert len(digests) == 1


@pytest.mark.long
def test_another_kind_of_cpu_gives_the_same_product(tmp_path: Path) -> None:
    """The instruction sets of an older CPU, by the switches that PyTorch and MKL have for it."""
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from aggregator.merge.adapter_merge import merge_adapters\n"
        "from tests.aggregator.merge.test_merge_resume import inputs\n"
        "where = Path(sys.argv[1])\n"
        "merge_adapters(inputs(where), where / 'older.safetensors')\n"
    )
    older = {"ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}
    command = [sys.executable, "-c", script, str(tmp_path)]
    subprocess.run(command, env={**os.environ, **older}, check=True, timeout=120)
    merge_adapters(inputs(tmp_path), tmp_path / "newer.safetensors")
    one, other = (open_adapter(tmp_path / f"{n}.safetensors", LAYOUT) for n in ("older", "newer"))
    for target in TARGETS:
        expected = dense(other, target)
        difference = float(np.linalg.norm(dense(one, target) - expected))
        assert difference < 1e-5 * float(np.linalg.norm(expected))


def test_one_silo_alone_merges_to_itself(tmp_path: Path) -> None:
    only = write_adapter(tmp_path / "only", LAYOUT, seed=3)
    merge_adapters(inputs_of([(only, 7)], LAYOUT), tmp_path / "merged")
    merged = open_adapter(tmp_path / "merged", LAYOUT)
    for target in TARGETS:
        np.testing.assert_allclose(dense(merged, target), dense(only, target), atol=1e-4)
