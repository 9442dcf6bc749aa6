"""A start that is read once for many local adapters: the same values, and the same verdicts."""

import pickle
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from data_contracts.adapters.adapter_format import MAX_ABSOLUTE_VALUE
from data_contracts.adapters.block_quantisation import Scheme
from data_contracts.adapters.quantised_format import (
    check_quantised,
    codes_name,
    open_quantised,
    scales_name,
)
from data_contracts.adapters.remembered_start import RememberedStart
from data_contracts.adapters.starting_adapter import AdapterSource, Float32Array, tensors_of
from data_contracts.adapters.submission_gate import check_submission
from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget
from data_contracts.protocol.records.training_recipe import TrainedFactors
from tests.data_contracts.quantised_samples import (
    BOTH,
    INT4,
    INT8,
    LAYOUT,
    NAMES,
    START,
    Constant,
    Tensors,
    content,
    rule_of,
)
from tests.data_contracts.test_submission_gate import recipe

LAST_A, LAST_B = NAMES[2:]
"""The second module's: after the first it is known that the file changes and contributes."""


@dataclass
class Counted:
    """A source that notes which modules are read."""

    source: AdapterSource
    read: list[str] = field(default_factory=list)

    @property
    def layout(self) -> AdapterLayout:
        return self.source.layout

    def module(self, target: AdapterTarget) -> tuple[Float32Array, Float32Array]:
        self.read.append(target.module)
        return self.source.module(target)


def damaged(scheme: Scheme, what: str) -> Tensors:
    entries = content(scheme)
    codes, scales = entries[codes_name(LAST_A)], entries[scales_name(LAST_B)]
    if what == "bad_code":
        codes[3] = -128 if scheme is INT8 else 0x08
    elif what == "bad_padding":
        codes[-1] |= 0x10
    else:
        scales[-1] = {"not_finite": np.nan, "bad_scale": 1e-40, "value_too_large": 1e4}[what]
    return entries


@BOTH
@pytest.mark.parametrize(
    "what", ["not_finite", "bad_scale", "value_too_large", "bad_code", "bad_padding"]
)
def test_what_is_refused_decoded_is_refused_undecoded(
    tmp_path: Path, scheme: Scheme, what: str
) -> None:
    if what == "bad_padding" and scheme is INT8:
        return
    raw = save(damaged(scheme, what))
    assert rule_of(tmp_path / "file", raw, scheme, START) == what
    assert rule_of(tmp_path / "file", raw, scheme, RememberedStart(START, 1)) == what
    source = open_quantised(tmp_path / "file", LAYOUT, scheme, RememberedStart(START, 1))
    with pytest.raises(UntrustedInputError) as caught:
        check_submission(source, START, recipe("both"))
    assert caught.value.rule == f"adapter.{what}"


@BOTH
@pytest.mark.parametrize("sign", [1, -1])
def test_a_sum_that_may_reach_too_far_is_decoded(tmp_path: Path, scheme: Scheme, sign: int) -> None:
    """Just within the bounds passes, just beyond does not, whatever could be said undecoded."""
    entries = content(scheme)
    step = float(entries[scales_name(LAST_B)].max()) * scheme.levels
    for start, is_refused in ((MAX_ABSOLUTE_VALUE, True), (MAX_ABSOLUTE_VALUE - 2 * step, False)):
        constant = RememberedStart(Constant(sign * start), 1)
        if is_refused:
            assert rule_of(tmp_path / "x", save(entries), scheme, constant) == "value_too_large"
        else:
            (tmp_path / "x").write_bytes(save(entries))
            assert check_quantised(tmp_path / "x", LAYOUT, scheme, constant)


@BOTH
@pytest.mark.parametrize(("trained", "frozen"), [("b", LAST_A), ("a", LAST_B)])
def test_a_frozen_factor_that_moved_is_seen_undecoded(
    tmp_path: Path, scheme: Scheme, trained: TrainedFactors, frozen: str
) -> None:
    entries = content(scheme)
    letter = "lora_A" if trained == "b" else "lora_B"
    for name in NAMES:
        if letter in name:
            entries[codes_name(name)][:] = 0
    start = RememberedStart(Constant(0.5), 1)
    (tmp_path / "file").write_bytes(save(entries))
    check_submission(
        open_quantised(tmp_path / "file", LAYOUT, scheme, start), start, recipe(trained)
    )
    entries[codes_name(frozen)][0] = 1
    (tmp_path / "file").write_bytes(save(entries))
    with pytest.raises(UntrustedInputError, match="which the plan does not train"):
        check_submission(
            open_quantised(tmp_path / "file", LAYOUT, scheme, start), start, recipe(trained)
        )


def test_the_start_is_read_once_for_many_adapters(tmp_path: Path) -> None:
    counted = Counted(START)
    start = RememberedStart(counted, kept=1)
    modules = [target.module for target in LAYOUT.targets]
    for number in range(5):
        path = tmp_path / f"{number}"
        path.write_bytes(save(content(INT4, scale=0.01 + number)))
        source = open_quantised(path, LAYOUT, INT4, start)
        check_submission(source, START, recipe("both"))
    assert counted.read.count(modules[1]) == 1
    counted.read.clear()
    start = RememberedStart(counted, kept=1)
    for target in LAYOUT.targets:
        for number in range(5):
            open_quantised(tmp_path / f"{number}", LAYOUT, INT4, start).module(target)
    assert counted.read == modules


def test_values_are_those_of_the_source_and_cannot_be_changed() -> None:
    start = RememberedStart(Constant(2), kept=1)
    for again in (start, pickle.loads(pickle.dumps(start))):  # noqa: S301
        for name, value in tensors_of(Constant(2)).items():
            np.testing.assert_array_equal(tensors_of(again)[name], value)
        assert again.largest(LAYOUT.targets[0]) == (2.0, 2.0)
        with pytest.raises(ValueError, match="read-only"):
            again.module(LAYOUT.targets[0])[0][0] = 1
