"""The state survives a restart between rounds and a kill while it is written, for any shape."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.merge.adapter_merge import merge_adapters, merge_on_threads
from aggregator.merge.merge_inputs import MergeInputs
from aggregator.merge.merged_file import MergedFile
from aggregator.merge.rules import MergedModule
from aggregator.merge.server_optimizer import State, server_step, state_names
from aggregator.merge.server_state import open_server_state, state_entries
from data_contracts.protocol.records.adapter_layout import AdapterTarget
from data_contracts.protocol.records.merge_spec import DiLoCo, FedAdam, FedAvgM, StatefulOptimizer
from tests.aggregator.adapter_samples import inputs_of, layout_with, write_adapter

TARGETS = tuple(
    AdapterTarget(module=f"layers.{n}.up", in_features=40, out_features=24) for n in range(8)
)
LAYOUT = layout_with(rank=4, alpha=4, targets=TARGETS)
OPTIMIZERS = st.sampled_from([DiLoCo(), FedAvgM(), FedAdam()])


def through_a_file(path: Path, target: AdapterTarget, kept: State, by: StatefulOptimizer) -> State:
    file = MergedFile(path, [state_entries(target, by)])
    file.write(0, [part.numpy() for part in kept])
    file.finish()
    file.close()
    return open_server_state(path, layout_with(targets=(target,)), by).module(target)


@settings(max_examples=40, deadline=None)
@given(optimizer=OPTIMIZERS, out=st.integers(1, 17), inner=st.integers(1, 17), seed=st.integers(0))
def test_a_restart_between_all_rounds_changes_no_bit(
    optimizer: StatefulOptimizer, out: int, inner: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed % 2**63)
    start, *deltas = (torch.randn(out, inner, generator=generator) for _ in range(5))
    target = AdapterTarget(module="layers.0.up", in_features=inner, out_features=out)
    product, kept, again, state = start, State(), start, State()
    with TemporaryDirectory() as directory:
        for number, delta in enumerate(deltas):
            product, kept = server_step(optimizer, product, delta, kept)
            again, state = server_step(optimizer, again, delta, state)
            state = through_a_file(Path(directory) / str(number), target, state, optimizer)
            assert len(state) == len(state_names(optimizer))
            assert all(torch.equal(a, b) for a, b in zip(state, kept, strict=True))
    assert torch.equal(product, again)


@settings(max_examples=40, deadline=None)
@given(optimizer=OPTIMIZERS, out=st.integers(1, 9), seed=st.integers(0))
def test_what_is_given_to_a_step_is_not_changed(
    optimizer: StatefulOptimizer, out: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed % 2**63)
    start, first, second = (torch.randn(out, 3, generator=generator) for _ in range(3))
    _, state = server_step(optimizer, start, first, ())
    given_before = [part.clone() for part in (start, second, *state)]
    server_step(optimizer, start, second, state)
    for part, before in zip((start, second, *state), given_before, strict=True):
        assert torch.equal(part, before)


def test_the_first_step_of_adam_is_known() -> None:
    """v starts at tau squared: 0.01 x 0.2 / (sqrt(0.99e-6 + 0.01 x 4) + 0.001) for a delta of 2."""
    product, _ = server_step(FedAdam(), torch.zeros(1, 2), torch.tensor([[2.0, 0.0]]), ())
    expected = 0.01 * 0.2 / (np.sqrt(0.99e-6 + 0.04) + 0.001)
    np.testing.assert_allclose(product.numpy(), [[expected, 0.0]], rtol=1e-6)


def second_round(directory: Path) -> MergeInputs:
    """Of a run whose first round left its state in the file `first`."""
    adapters = [(write_adapter(directory / f"{seed}", LAYOUT, seed), 5 + seed) for seed in range(3)]
    inputs = inputs_of(adapters, LAYOUT, optimizer=DiLoCo())
    if not (directory / "first").exists():
        merge_adapters(inputs, directory / "adapter", directory / "first")
    state = open_server_state(directory / "first", LAYOUT, DiLoCo())
    return replace(inputs, server_state=state, server_state_digest="0" * 64)


def killed_at(directory: Path, module: int) -> None:
    """Merge the second round in this process, and kill it when `module` modules are written."""

    def dies(done: int, total: int) -> None:
        if done == module:
            os.kill(os.getpid(), signal.SIGKILL)

    merge_adapters(second_round(directory), directory / "new", directory / "state", dies)


@pytest.mark.long
@pytest.mark.parametrize("module", [1, 5])
def test_a_kill_leaves_the_old_state_whole_and_no_new_one(tmp_path: Path, module: int) -> None:
    inputs = second_round(tmp_path)
    old = (tmp_path / "first").read_bytes()
    script = (
        "import sys; from pathlib import Path\n"
        "from tests.aggregator.merge.test_server_state_files import killed_at\n"
        f"killed_at(Path(sys.argv[1]), {module})\n"
    )
    process = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "state").exists()
    assert (tmp_path / "first").read_bytes() == old
    asked: list[int] = []

    def counted(value: MergeInputs, missing: list[int]) -> Iterator[tuple[int, MergedModule]]:
        asked.extend(missing)
        return merge_on_threads(value, missing)

    merge_adapters(inputs, tmp_path / "new", tmp_path / "state", merge_modules=counted)
    assert asked == list(range(module, len(TARGETS)))
    merge_adapters(inputs, tmp_path / "other", tmp_path / "whole")
    assert (tmp_path / "state").read_bytes() == (tmp_path / "whole").read_bytes()
