from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_contracts.errors import SiloOperatorError
from silo_agent.training.private_part import PrivatePart
from silo_agent.training.ranks.packing import PackingRule
from silo_agent.training.ranks.private.draw import Population
from silo_agent.training.ranks.private.micro_batches import micro_batches, shared_out
from silo_agent.training.ranks.private.secret_numbers import SecretNumbers
from tests.silo_agent.training.private.record_samples import drawn_secret
from tests.silo_agent.training.tiny_jobs import shard_of
from tests.tiny_model import make_tiny_model, write_records

RECORDS, ROOM, STEPS, RATE = 40, 96, 4000, "0.05"


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("drawn")
    records = write_records(root / "train.jsonl", RECORDS)
    return shard_of(make_tiny_model(root / "model"), records)


def part(root: Path, rate: str = RATE, **changes: Any) -> PrivatePart:
    """Of records, where nothing else is said."""
    fields: dict[str, Any] = {
        "unit": "record",
        "clipping_norm": Decimal("1"),
        "noise_multiplier": Decimal("1"),
        "sampling_rate": Decimal(rate),
        "expected_units": 2,
        "secret": drawn_secret(root / "secret"),
    }
    return PrivatePart(**{**fields, **changes})


def units_file(path: Path, units: list[int]) -> Path:
    """As the splits write it."""
    np.array(units, "<u4").tofile(path)
    return path


def test_every_unit_is_drawn_by_itself_with_the_same_probability(
    shard: Any, tmp_path: Path
) -> None:
    private = part(tmp_path)
    numbers, population = SecretNumbers(private.secret, "a job"), Population(shard, ROOM, private)
    drawn = np.array([population.is_drawn(numbers, step) for step in range(STEPS)])
    rate = float(RATE)
    sizes = drawn.sum(1)
    expected, variance = RECORDS * rate, RECORDS * rate * (1 - rate)
    assert sizes.mean() == pytest.approx(expected, abs=4 * (variance / STEPS) ** 0.5)
    assert sizes.var() == pytest.approx(variance, rel=0.1), "binomial, not a fixed number"
    assert (sizes == 0).mean() == pytest.approx((1 - rate) ** RECORDS, abs=0.02)
    by_unit = drawn.mean(0)
    assert np.abs(by_unit - rate).max() < 5 * (rate * (1 - rate) / STEPS) ** 0.5
    together = np.corrcoef(drawn.T) - np.eye(RECORDS)
    assert np.abs(together).max() < 5.5 / STEPS**0.5, "units"
    after = np.corrcoef(drawn[1:, 0], drawn[:-1, 0])[0, 1]
    assert abs(after) < 5 / STEPS**0.5, "steps"


@pytest.mark.parametrize(("rate", "share"), [("1", 1.0), ("0.0000000001", 0.0)])
def test_all_units_or_none(rate: str, share: float, shard: Any, tmp_path: Path) -> None:
    private = part(tmp_path, rate)
    numbers, population = SecretNumbers(private.secret, "a job"), Population(shard, ROOM, private)
    assert [population.is_drawn(numbers, step).mean() for step in range(5)] == [share] * 5
    assert len(population.drawn(numbers, 0)) == share * RECORDS


def test_of_a_subject_some_records_are_chosen_and_others_in_another_step(
    shard: Any, tmp_path: Path
) -> None:
    units = [0] * 25 + [1] * 2 + list(range(2, 15))
    private = part(
        tmp_path,
        "1",
        unit="subject",
        records_per_unit=3,
        units=units_file(tmp_path / "units", units),
    )
    numbers, population = SecretNumbers(private.secret, "a job"), Population(shard, ROOM, private)
    assert (population.unit_count, population.record_count) == (15, RECORDS)
    chosen = Counter[int]()
    for step in range(300):
        drawn = population.drawn(numbers, step)
        assert [unit.unit for unit in drawn] == list(range(15))
        assert [len(unit.places) for unit in drawn] == [3, 2] + [1] * 13
        assert all(units[place] == unit.unit for unit in drawn for place in unit.places)
        assert len(set(drawn[0].places)) == 3
        chosen.update(drawn[0].places)
    assert len(chosen) == 25 and min(chosen.values()) > 12, "36 times each on average"


def test_what_is_drawn_for_a_record_does_not_depend_on_the_others(
    shard: Any, tmp_path: Path
) -> None:
    """Else more than one unit would change when one is left out."""
    everybody, some = part(tmp_path, "1"), part(tmp_path, "0.3")
    numbers = SecretNumbers(everybody.secret, "a job")
    whole = {u.unit: u for u in Population(shard, ROOM, everybody).drawn(numbers, 3)}
    drawn = Population(shard, ROOM, some).drawn(numbers, 3)
    assert 3 < len(drawn) < RECORDS
    assert all(whole[unit.unit] == unit for unit in drawn)
    assert len({unit.seeds for unit in whole.values()}) == RECORDS


def test_ranks_share_out_all_units_and_each_goes_to_one(shard: Any, tmp_path: Path) -> None:
    private = part(tmp_path, "1")
    drawn = Population(shard, ROOM, private).drawn(SecretNumbers(private.secret, "a job"), 0)
    shares = shared_out(drawn, 3)
    assert sorted(unit.unit for share in shares for unit in share) == list(range(RECORDS))
    tokens = [sum(unit.tokens for unit in share) for share in shares]
    assert max(tokens) - min(tokens) <= max(unit.tokens for unit in drawn)
    assert shared_out(drawn[:1], 3) == [[drawn[0]], [], []]


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("per_unit", [1, 4])
def test_records_are_all_there_once_and_a_unit_is_done_with_its_last(
    per_unit: int, together: bool, shard: Any, tmp_path: Path
) -> None:
    units = [place // 5 for place in range(RECORDS)]
    path = units_file(tmp_path / "units", units)
    private = part(tmp_path, "1", records_per_unit=per_unit, units=path)
    drawn = Population(shard, ROOM, private).drawn(SecretNumbers(private.secret, "a job"), 0)
    rule = PackingRule(ROOM, together=together)
    found = list(micro_batches(drawn, shard, rule, 3, draw=1))
    parts = [part_ for each in found for part_ in each.parts]
    records = [len(s.record_starts) for each in found for s in each.sequences]
    assert len(parts) == sum(records) == 8 * per_unit
    assert (max(records) > 1) == together
    assert sorted(unit for each in found for unit in each.done) == list(range(8))
    open_: set[int] = set()
    for each in found:
        open_ |= {p.unit for p in each.parts}
        open_ -= each.done
        assert len(open_) <= 1, "of which a rank keeps the gradient"
    asked = [t for each in found for s in each.sequences for t in s.record_answer_tokens]
    shares = [p.weight * t for p, t in zip(parts, asked, strict=True)]
    assert shares == pytest.approx([1 / per_unit] * len(parts))


@pytest.mark.parametrize("size", [None, 4 * RECORDS - 4, 4 * RECORDS + 1])
def test_units_that_are_not_those_of_the_records_are_refused(
    size: int | None, shard: Any, tmp_path: Path
) -> None:
    path = tmp_path / "units"
    if size is not None:
        path.write_bytes(bytes(size))
    with pytest.raises(SiloOperatorError, match="the unit of each of 40 records"):
        Population(shard, ROOM, part(tmp_path, units=path))
