"""Error feedback: nothing that was not sent is ever lost, whatever the scheme and the recipe."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.adapters.adapter_format import open_adapter
from data_contracts.adapters.block_quantisation import SCHEMES, Scheme, SchemeName
from data_contracts.adapters.quantised_format import check_quantised
from data_contracts.adapters.starting_adapter import Float32Array, tensors_of
from data_contracts.errors import SiloOperatorError, UntrustedInputError
from data_contracts.protocol.records.training_recipe import TrainedFactors
from silo_agent.compression.error_feedback import (
    CarriedError,
    Compressed,
    LocalRound,
    RoundFiles,
    compress,
    feed,
)
from tests.silo_agent.compression.adapter_samples import (
    FIRST,
    LAYOUT,
    InMemory,
    compressed,
    files_in,
    moved,
    random_adapter,
    residual_of,
)

BOTH = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES.keys())
START = random_adapter(0)


def exact(values: Float32Array) -> list[Fraction]:
    return [Fraction(float(value)) for value in values.ravel()]


def added(left: list[Fraction], right: list[Fraction]) -> list[Fraction]:
    return [one + other for one, other in zip(left, right, strict=True)]


@BOTH
def test_sent_plus_last_error_is_the_sum_of_differences_bit_for_bit(scheme: Scheme) -> None:
    """Differences that are whole multiples of 2^-20, of one size, leave errors float32 can hold."""
    rng = np.random.default_rng(3)
    count, e = 300, None
    differences = sent = [Fraction(0)] * count
    for _ in range(12):
        d = (rng.integers(-900, 901, count) * 2.0**-20).astype(np.float32)
        d[:: scheme.block] = np.float32(scheme.levels * 2.0**-16)
        fed = feed(d, e, scheme)
        e = fed.error
        differences, sent = added(differences, exact(d)), added(sent, exact(fed.sent))
        assert added(sent, exact(e)) == differences


@BOTH
@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32), small=st.floats(1e-6, 1), count=st.integers(1, 150))
def test_the_new_error_is_the_float32_nearest_to_the_true_one(
    scheme: Scheme, seed: int, small: float, count: int
) -> None:
    """In exact fractions: off by half a unit in the last place of the error itself at most."""
    rng = np.random.default_rng(seed)
    d = rng.standard_normal(count).astype(np.float32)
    e = (rng.standard_normal(count) * small).astype(np.float32)
    fed = feed(d, e, scheme)
    wanted = zip(exact(d), exact(e), exact(fed.sent), strict=True)
    for (one, other, sent), error in zip(wanted, fed.error.ravel(), strict=True):
        true = one + other - sent
        assert abs(true - Fraction(float(error))) <= Fraction(float(np.spacing(abs(error)))) / 2


@BOTH
def test_twenty_rounds_drift_by_less_than_one_unit_of_float32(scheme: Scheme) -> None:
    rng = np.random.default_rng(5)
    e, differences, sent = None, np.zeros(2000), np.zeros(2000)
    for _ in range(20):
        d = (rng.standard_normal(2000) * 10.0 ** rng.uniform(-4, -1)).astype(np.float32)
        fed = feed(d, e, scheme)
        e = fed.error
        differences += d
        sent += fed.sent
    assert e is not None
    assert np.abs(sent + e - differences).max() <= 20 * float(np.spacing(np.abs(e).max())) / 2


def test_the_mean_of_what_is_sent_converges_to_the_mean_of_the_differences() -> None:
    """Four silos with fixed differences at int4: the error falls as 1/T, without feedback not."""
    rng = np.random.default_rng(6)
    ds = [rng.standard_normal(640).astype(np.float32) for _ in range(4)]
    scheme, mean = SCHEMES["int4"], np.mean(ds, axis=0, dtype=np.float64)

    def distance(rounds: int, with_feedback: bool) -> float:
        errors: list[Float32Array | None] = [None] * 4
        total = np.zeros(640)
        for _ in range(rounds):
            for silo, d in enumerate(ds):
                fed = feed(d, errors[silo], scheme)
                errors[silo] = fed.error if with_feedback else None
                total += fed.sent
        return float(np.linalg.norm(total / (4 * rounds) - mean) / np.linalg.norm(mean))

    plain = distance(100, with_feedback=False)
    assert plain > 0.05
    assert distance(10, with_feedback=True) < plain / 5
    assert distance(100, with_feedback=True) < plain / 50
    assert distance(100, with_feedback=True) < distance(10, with_feedback=True) / 5


@BOTH
def test_the_files_of_a_round(tmp_path: Path, scheme: Scheme) -> None:
    local, files = moved(START, 1), files_in(tmp_path)
    result = compressed(LocalRound(local, START, scheme, "both"), tmp_path)
    sent = check_quantised(files.sent, LAYOUT, scheme, START)
    residual, whole = tensors_of(residual_of(files)), tensors_of(local)
    for name, decoded in tensors_of(sent).items():
        np.testing.assert_allclose(decoded + residual[name], whole[name], atol=1e-7)
    assert result.sent.size == files.sent.stat().st_size
    assert (result.factors, result.lost_share) == (None, 0.0)
    assert files.residual.stat().st_mode & 0o077 == 0
    assert sorted(tmp_path.iterdir()) == sorted([files.sent, files.residual])


@BOTH
def test_a_second_round_sends_what_the_first_left(tmp_path: Path, scheme: Scheme) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    local = moved(START, 1)
    compressed(LocalRound(local, START, scheme, "both"), first)
    carried = CarriedError(residual_of(files_in(first)), None)
    compress(LocalRound(local, START, scheme, "both"), carried, files_in(second))
    sent = [check_quantised(files_in(d).sent, LAYOUT, scheme, START) for d in (first, second)]
    start, last = START.module(FIRST), residual_of(files_in(second)).module(FIRST)
    for factor in (0, 1):
        total = sum(one.difference(FIRST)[factor].astype(np.float64) for one in sent)
        difference = local.module(FIRST)[factor] - start[factor]
        np.testing.assert_allclose(total + last[factor], 2.0 * difference, atol=1e-9)


def test_a_retry_writes_the_same_bytes(tmp_path: Path) -> None:
    round_ = LocalRound(moved(START, 1), START, SCHEMES["int4"], "both")
    compressed(LocalRound(moved(START, 2), START, SCHEMES["int4"], "both"), tmp_path / "0")
    carried = CarriedError(residual_of(files_in(tmp_path / "0")), None)
    once = compress(round_, carried, files_in(tmp_path / "1", is_rebasing=True))
    assert once == compress(round_, carried, files_in(tmp_path / "1", is_rebasing=True))
    assert once == compress(round_, carried, files_in(tmp_path / "2", is_rebasing=True))


@BOTH
@pytest.mark.parametrize(("trained", "frozen"), [("b", 0), ("a", 1)])
def test_a_frozen_factor_is_sent_as_zeros_and_its_error_waits(
    tmp_path: Path, scheme: Scheme, trained: TrainedFactors, frozen: int
) -> None:
    """As under alternating factors: the error of A passes through a round that trains B alone."""
    compressed(LocalRound(moved(START, 1), START, scheme, "both"), tmp_path / "1")
    before = residual_of(files_in(tmp_path / "1"))
    local = moved(START, 2, only="A" if trained == "a" else "B")
    round_, files = LocalRound(local, START, scheme, trained), files_in(tmp_path / "2")
    compress(round_, CarriedError(before, None), files)
    sent = check_quantised(files.sent, LAYOUT, scheme, START)
    assert not sent.difference(FIRST)[frozen].any()
    np.testing.assert_array_equal(sent.module(FIRST)[frozen], START.module(FIRST)[frozen])
    found, expected = residual_of(files).module(FIRST), before.module(FIRST)
    np.testing.assert_array_equal(found[frozen], expected[frozen])
    assert not np.array_equal(found[1 - frozen], expected[1 - frozen])


def test_a_factor_that_is_always_frozen_never_has_an_error(tmp_path: Path) -> None:
    files, carried = files_in(tmp_path), None
    for seed in range(3):
        round_ = LocalRound(moved(START, seed, only="B"), START, SCHEMES["int4"], "b")
        compress(round_, carried, files)
        carried = CarriedError(residual_of(files), None)
        assert not residual_of(files).module(FIRST)[0].any()


def test_a_frozen_factor_that_moved_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SiloOperatorError, match=r"factor a of .*left frozen; found one that moved"):
        compressed(LocalRound(moved(START, 1), START, SCHEMES["int8"], "b"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_that_adds_nothing_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    tensors = {name: t * np.float32("lora_A" in name) for name, t in START.tensors.items()}
    with pytest.raises(UntrustedInputError, match="every B is zero"):
        compressed(LocalRound(InMemory(LAYOUT, tensors), START, SCHEMES["int8"], "both"), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("scheme", "sent", "kept"),
    [
        ("int8", "3d7dbdf62afefe7f", "31040828a3a0ade0"),
        ("int4", "4d0dfecb0a9bb324", "b6f9c0abe7b4c4cb"),
    ],
)
def test_the_bytes_of_a_second_round_are_what_they_have_always_been(
    tmp_path: Path, scheme: SchemeName, sent: str, kept: str
) -> None:
    """A silo that is upgraded between two attempts of a round sends the same again."""
    compressed(LocalRound(moved(START, 1), START, SCHEMES[scheme], "both"), tmp_path / "1")
    carried = CarriedError(residual_of(files_in(tmp_path / "1")), None)
    round_ = LocalRound(moved(START, 2), START, SCHEMES[scheme], "both")
    result = compress(round_, carried, files_in(tmp_path / "2"))
    assert (result.sent.digest[:16], result.residual.digest[:16]) == (sent, kept)


def test_an_absurd_difference_is_refused(tmp_path: Path) -> None:
    local = InMemory(LAYOUT, {name: t + np.float32(2e4) for name, t in START.tensors.items()})
    with pytest.raises(SiloOperatorError, match="within 10000; found a larger one"):
        compressed(LocalRound(local, START, SCHEMES["int8"], "both"), tmp_path)


def rebased_once(directory: Path, scheme: Scheme) -> tuple[Compressed, RoundFiles]:
    first, second = directory / "1", directory / "2"
    compress(LocalRound(moved(START, 1), START, scheme, "both"), None, files_in(first, True))
    files = files_in(first, True)
    assert files.factors
    carried = CarriedError(residual_of(files), open_adapter(files.factors, LAYOUT))
    new_start = moved(START, 9, 0.002)
    round_ = LocalRound(moved(new_start, 2), new_start, scheme, "both")
    return compress(round_, carried, files_in(second, True)), files


def test_after_rebasing_the_product_of_the_error_is_carried(tmp_path: Path) -> None:
    """The factors kept are the true A and the sent B, and the share that was lost is reported."""
    result, files = rebased_once(tmp_path, SCHEMES["int4"])
    assert files.factors
    true_a, sent_b = open_adapter(files.factors, LAYOUT).module(FIRST)
    np.testing.assert_allclose(true_a, moved(START, 1).module(FIRST)[0], atol=1e-7)
    sent = check_quantised(files.sent, LAYOUT, SCHEMES["int4"], START)
    np.testing.assert_array_equal(sent_b, sent.module(FIRST)[1])
    assert 0 < result.lost_share < 0.5
    assert result.factors is not None
