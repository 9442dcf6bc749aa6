"""Files written piece by piece: whole or absent, with the digest of what lies on disk."""

import errno
from pathlib import Path

import numpy as np
import pytest

from data_contracts.adapters.block_quantisation import SCHEMES, Blocks, quantise
from data_contracts.adapters.quantised_format import check_quantised
from data_contracts.adapters.starting_adapter import InitialAdapter
from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.artifact import artifact_of_file
from silo_agent.compression.streamed_file import streamed_file, write_quantised
from tests.silo_agent.compression.adapter_samples import LAYOUT, random_adapter


def modules() -> list[tuple[Blocks, ...]]:
    adapter, scheme = random_adapter(1), SCHEMES["int8"]
    return [
        tuple(quantise(factor, scheme) for factor in adapter.module(target))
        for target in LAYOUT.targets
    ]


def test_a_written_file_passes_the_gate_and_is_what_its_reference_says(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "sent.safetensors"
    reference = write_quantised(path, LAYOUT, SCHEMES["int8"], iter(modules()))
    assert reference == artifact_of_file(path)
    assert check_quantised(path, LAYOUT, SCHEMES["int8"], InitialAdapter(LAYOUT))
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "sent"
    path.write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt), streamed_file(path) as file:
        file.write(b"half", np.arange(3))
        raise KeyboardInterrupt
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_module_too_few_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shorter"):
        write_quantised(tmp_path / "sent", LAYOUT, SCHEMES["int8"], modules()[:1])
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(SiloOperatorError, match=r"writing .*free space or correct") as caught,
        streamed_file(tmp_path / "file" / "sent"),
    ):
        raise AssertionError("never reached")
    cause = caught.value.__cause__
    assert isinstance(cause, OSError)
    assert cause.errno in {errno.EEXIST, errno.ENOTDIR}
