"""The noise of a step, in one process and added up over real ranks."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from data_contracts.errors import SiloOperatorError
from silo_agent.training.ranks.private.noise import AT_A_TIME, add_noise, normals
from silo_agent.training.ranks.private.secret_numbers import SecretNumbers
from tests.silo_agent.training.private.record_samples import CPU, drawn_secret
from tests.silo_agent.training.shared_ranks import ROOT

COUNT, DEVIATION = 300_001, 2.5
RANK = """
import sys
import numpy as np, torch, torch.distributed as dist
from pathlib import Path
from silo_agent.training.ranks.private.noise import add_noise
from silo_agent.training.ranks.private.secret_numbers import SecretNumbers
folder, rank, ranks, count, deviation = Path(sys.argv[1]), *map(float, sys.argv[2:])
rank, ranks = int(rank), int(ranks)
store = dist.FileStore(str(folder / "store"), ranks)
dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks)
sums = torch.zeros(int(count))
key = SecretNumbers(folder / "secret", "a job").key("noise", 4)
add_noise(sums, deviation, key, rank, ranks)
dist.all_reduce(sums)
np.save(folder / f"found-{rank}.npy", sums.numpy())
"""


def key_of(secret: Path, fingerprint: str = "a job", step: int = 4) -> bytes:
    """Of the noise of a step."""
    return SecretNumbers(secret, fingerprint).key("noise", step)


def alone(secret: Path) -> np.ndarray:
    """The noise of the one rank there is."""
    sums = torch.zeros(COUNT)
    add_noise(sums, DEVIATION, key_of(secret), 0, 1)
    found: np.ndarray = sums.numpy()
    return found


def test_two_ranks_hold_the_same_noise_and_each_number_has_it_once(tmp_path: Path) -> None:
    secret = drawn_secret(tmp_path / "secret")
    numbers = [str(number) for number in (2, COUNT, DEVIATION)]
    started = [
        subprocess.Popen([sys.executable, "-c", RANK, str(tmp_path), str(rank), *numbers], cwd=ROOT)
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    first, second = (np.load(tmp_path / f"found-{rank}.npy") for rank in range(2))
    assert (first == second).all()
    assert (first == alone(secret)).all(), "whatever the number of ranks"
    assert first.std() == pytest.approx(DEVIATION, rel=0.01)
    assert abs(first.mean()) < 5 * DEVIATION / COUNT**0.5


def test_noise_is_normal(tmp_path: Path) -> None:
    found = np.sort(alone(drawn_secret(tmp_path / "secret")) / DEVIATION)
    assert found.std() == pytest.approx(1, rel=0.01)
    # Kolmogorov and Smirnov: the distance from a normal distribution is below 1.95 / sqrt(n) with a
    # probability of 0.999.
    expected = torch.special.ndtr(torch.from_numpy(found).double()).numpy()
    assert np.abs(expected - np.arange(COUNT) / COUNT).max() < 1.95 / COUNT**0.5
    assert np.abs(found).max() < 7


def test_neighbours_have_nothing_to_do_with_each_other(tmp_path: Path) -> None:
    found = alone(drawn_secret(tmp_path / "secret"))
    for apart in (1, 2, 3, 8):
        of_values = np.corrcoef(found[:-apart], found[apart:])[0, 1]
        of_sizes = np.corrcoef(found[:-apart] ** 2, found[apart:] ** 2)[0, 1]
        assert max(abs(of_values), abs(of_sizes)) < 5 / COUNT**0.5


def test_a_part_is_that_of_the_whole(tmp_path: Path) -> None:
    key = key_of(drawn_secret(tmp_path / "secret"))
    whole = normals(key, 0, 1000, CPU)
    assert torch.equal(normals(key, 400, 31, CPU), whole[400:431])
    assert AT_A_TIME % 2 == 0


def test_every_step_secret_and_job_has_noise_of_its_own(tmp_path: Path) -> None:
    secret, other = drawn_secret(tmp_path / "a"), drawn_secret(tmp_path / "b", byte=8)
    keys = [key_of(secret), key_of(other), key_of(secret, "another"), key_of(secret, step=5)]
    noises = [normals(key, 0, 5000, CPU).numpy() for key in keys]
    assert np.abs(np.corrcoef(noises) - np.eye(4)).max() < 0.07
    again = normals(key_of(secret), 0, 5000, CPU).numpy()
    assert (again == noises[0]).all(), "and a step done again the same"


@pytest.mark.parametrize("size", [None, 0, 31, 33])
def test_a_secret_that_is_missing_or_of_another_size_is_refused(
    size: int | None, tmp_path: Path
) -> None:
    path = tmp_path / "secret"
    if size is not None:
        path.write_bytes(b"x" * size)
    with pytest.raises(SiloOperatorError, match="32 random bytes") as refused:
        SecretNumbers(path, "a job")
    assert "xx" not in str(refused.value)
