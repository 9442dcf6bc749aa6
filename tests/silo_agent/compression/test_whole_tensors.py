"""Error feedback of tensors that are trained whole: nothing of them is lost, whatever the rule."""

from pathlib import Path

import numpy as np
import pytest

from data_contracts.adapters.adapter_format import expected_shapes, open_adapter
from data_contracts.adapters.block_quantisation import SCHEMES, Scheme
from data_contracts.adapters.quantised_format import check_quantised
from data_contracts.adapters.starting_adapter import NarrowedAdapter, tensors_of
from data_contracts.adapters.submission_gate import check_submission
from data_contracts.errors import SiloOperatorError, UntrustedInputError
from data_contracts.protocol.artifact import artifact_of_file
from data_contracts.protocol.records.training_recipe import TrainedFactors
from silo_agent.compression.error_feedback import CarriedError, LocalRound, compress
from silo_agent.compression.residual_state import ErrorFeedback, RoundBefore
from tests.data_contracts.record_samples import PLAN
from tests.data_contracts.whole_samples import (
    BIAS_NAME,
    LAYOUT,
    NORM_NAME,
    START,
    WEIGHT_NAME,
    InMemory,
    Tensors,
    moved,
)
from tests.silo_agent.compression.adapter_samples import files_in
from tests.silo_agent.compression.test_residual_state import start_of

WHOLES = (WEIGHT_NAME, BIAS_NAME, NORM_NAME)
BOTH = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES.keys())


def stepped(start: InMemory, seed: int, only: str = "") -> InMemory:
    """Local steps of a hundredth from `start`."""
    initial = tensors_of(START)
    steps = {n: t - initial[n] for n, t in moved(seed, 0.01, only=only).items()}
    return InMemory(LAYOUT, {n: t + steps[n] for n, t in start.tensors.items()})


def begun() -> InMemory:
    return InMemory(LAYOUT, moved(99))


@BOTH
@pytest.mark.parametrize("rebases", [False, True])
def test_what_is_sent_over_rounds_is_what_was_trained(
    tmp_path: Path, scheme: Scheme, *, rebases: bool
) -> None:
    """Of each entry the sum of all that was sent, and the last error, is the sum of all steps."""
    sent: dict[str, np.ndarray] = {name: np.zeros(()) for name in WHOLES}
    trained = dict(sent)
    carried, start = None, begun()
    for number in range(6):
        directory = tmp_path / str(number)
        files, local = files_in(directory, rebases), stepped(start, number)
        compressed = compress(LocalRound(local, start, scheme, "both"), carried, files)
        assert compressed.sent == artifact_of_file(files.sent)
        decoded = check_quantised(files.sent, LAYOUT, scheme, start)
        check_submission(decoded, start, PLAN.recipe)
        residual = open_adapter(files.residual, LAYOUT)
        factors = None
        if files.factors is not None:
            factors = open_adapter(files.factors, LAYOUT.without_wholes)
        for target, name in zip(LAYOUT.wholes, WHOLES, strict=True):
            difference = decoded.difference(target)[1].astype(np.float64)
            step = local.module(target)[1].astype(np.float64) - start.module(target)[1]
            sent[name], trained[name] = sent[name] + difference, trained[name] + step
            left = residual.module(target)[1]
            np.testing.assert_allclose(sent[name] + left, trained[name], rtol=0, atol=3e-8)
            assert left.any(), "something is always left of random steps"
        carried = CarriedError(residual, factors)
        start = stepped(start, 50 + number)


@BOTH
@pytest.mark.parametrize("trained", ["a", "b"])
def test_a_whole_tensor_is_sent_in_rounds_that_freeze_a_factor(
    tmp_path: Path, scheme: Scheme, trained: TrainedFactors
) -> None:
    start = begun()
    pairs = stepped(start, 1, only=f"lora_{trained.upper()}").tensors
    heads = stepped(start, 2, only="bias").tensors
    local = InMemory(LAYOUT, pairs | {BIAS_NAME: heads[BIAS_NAME]})
    files = files_in(tmp_path)
    compress(LocalRound(local, start, scheme, trained), None, files)
    recipe = PLAN.recipe.model_copy(update={"trained_factors": trained})
    file = check_quantised(files.sent, LAYOUT, scheme, start)
    check_submission(file, start, recipe)
    found = tensors_of(file)[BIAS_NAME] - start.tensors[BIAS_NAME]
    wanted = local.tensors[BIAS_NAME] - start.tensors[BIAS_NAME]
    assert np.abs(found - wanted).max() <= np.abs(wanted).max() / scheme.levels


def test_the_same_round_gives_the_same_bytes(tmp_path: Path) -> None:
    start = begun()
    round_ = LocalRound(stepped(start, 3), start, SCHEMES["int4"], "both")
    one, other = (compress(round_, None, files_in(tmp_path / n)) for n in ("one", "other"))
    assert one == other


def test_only_heads_are_a_contribution_and_nothing_is_none(tmp_path: Path) -> None:
    start = InMemory(LAYOUT, tensors_of(START))
    head = stepped(start, 3, only="norm")
    files = files_in(tmp_path)
    compress(LocalRound(head, start, SCHEMES["int8"], "both"), None, files)
    check_quantised(files.sent, LAYOUT, SCHEMES["int8"], start)
    with pytest.raises(UntrustedInputError, match="every whole tensor as it starts"):
        compress(LocalRound(start, start, SCHEMES["int8"], "both"), None, files_in(tmp_path / "2"))
    assert not list((tmp_path / "2").glob("*"))


def test_an_absurd_tensor_is_named(tmp_path: Path) -> None:
    start = begun()
    absurd = InMemory(LAYOUT, start.tensors | {NORM_NAME: np.full(6, 3e4, np.float32)})
    with pytest.raises(SiloOperatorError, match=r"tensor of norm\.weight"):
        compress(LocalRound(absurd, start, SCHEMES["int8"], "both"), None, files_in(tmp_path))


def test_the_state_of_a_run_carries_heads_over_rebased_rounds(tmp_path: Path) -> None:
    feedback = ErrorFeedback(tmp_path / "state", "run-a")
    before = RoundBefore(submitted=None, merged=False)
    lefts: list[np.ndarray] = []
    for number in (1, 2, 3):
        carry, carried = feedback.open(
            feedback.carried_into(number, LAYOUT, start_of(number), before)
        )
        assert (carried is None) == (number == 1)
        if carried is not None:
            assert carried.factors is not None
            assert carried.factors.layout == LAYOUT.without_wholes
            assert np.array_equal(carried.whole(LAYOUT.targets[1]), lefts[-1])
        start = begun()
        files = feedback.files(number, tmp_path / f"sent-{number}", is_rebasing=True)
        round_ = LocalRound(stepped(start, number), start, SCHEMES["int4"], "both")
        result = compress(round_, carried, files)
        lefts.append(open_adapter(files.residual, LAYOUT).module(LAYOUT.targets[1])[1])
        feedback.keep(number, LAYOUT, start_of(number), carry, result)
        before = RoundBefore(submitted=result.sent.digest, merged=True)


def test_a_narrower_silo_compresses_whole_tensors_against_the_run_s_start(tmp_path: Path) -> None:
    wide = begun()
    narrow = LAYOUT.model_copy(update={"rank": 1, "alpha": 1})
    own: Tensors = tensors_of(NarrowedAdapter(wide, narrow))
    own = {name: t + np.float32(0.01) * (1 + t) for name, t in own.items()}
    files = files_in(tmp_path)
    round_ = LocalRound(InMemory(narrow, own), wide, SCHEMES["int8"], "both")
    compress(round_, None, files)
    file = check_quantised(files.sent, narrow, SCHEMES["int8"], wide)
    assert {n: t.shape for n, t in tensors_of(file).items()} == expected_shapes(narrow)
    np.testing.assert_allclose(tensors_of(file)[NORM_NAME], own[NORM_NAME], atol=1e-4)
