"""Which stage, micro-batch and checkpointing are chosen, one byte on either side of what fits."""

from ctypes.util import find_library
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.records.adapter_layout import SiloLayout
from infra.storage.config import StorageSection
from silo_agent.config import SiloConfig, TrainingSection, parse_config
from silo_agent.personal_settings import PersonalSection
from silo_agent.training.engine_spec import PINNED, Stage
from silo_agent.training.memory_plan import (
    Candidate,
    MemoryPlan,
    choices,
    chosen_for,
    memory_plan,
    personal_choice,
    rank_bytes,
    shortage,
    work_of,
)
from silo_agent.training.memory_room import Room, machine_bytes, room_of
from silo_agent.training.offload import require_offload
from silo_agent.training.rank_work import Choice
from tests.model_folders import write_model_folder
from tests.silo_agent.test_policy import PLAN, SILO, policy
from tests.silo_agent.training.test_memory import SHAPE, work

AUTO: dict[str, Any] = {
    "zero_stage": "auto",
    "micro_batch": "auto",
    "gradient_checkpointing": "auto",
}
SEQUENCES = 6


def planned(room: int | None, sequences: int = SEQUENCES, **settings: Any) -> MemoryPlan:
    training = TrainingSection(**AUTO | settings)
    return MemoryPlan(SHAPE, work(ranks=4), sequences, training, Room(room, "a test"))


def bytes_of(choice: Choice) -> int:
    return planned(None).with_(choice).estimate.total_bytes


def chosen(room: int, **settings: Any) -> Choice | None:
    found = planned(room, **settings).chosen
    return found.choice if found else None


@pytest.mark.parametrize(("size", "smaller"), [(6, 3), (3, 2), (2, 1)])
def test_the_largest_micro_batch_that_fits_divides_the_step(size: int, smaller: int) -> None:
    exactly = bytes_of(Choice(1, size))
    assert chosen(exactly) == Choice(1, size)
    assert chosen(exactly - 1) == Choice(1, smaller)


def test_the_smallest_stage_comes_before_anything_else() -> None:
    """Checkpointing first, because it costs a forward pass and the next stage all of the net."""
    one = bytes_of(Choice(1, 1))
    below = chosen(one - 1)
    assert below is not None
    assert (below.zero_stage, below.gradient_checkpointing) == (1, True)
    saving = bytes_of(Choice(1, 1, True))
    assert chosen(saving) == Choice(1, 1, True)
    assert chosen(saving - 1) in (Choice(2, 1, True), Choice(2, 1, False))
    without = chosen(one - 1, gradient_checkpointing=False)
    assert without is not None and without.zero_stage > 1


def test_what_is_fixed_stays_and_what_is_open_is_chosen() -> None:
    large = 10**12
    assert chosen(large) == Choice(1, SEQUENCES)
    assert chosen(large, zero_stage=3) == Choice(3, SEQUENCES)
    assert chosen(large, micro_batch=2) == Choice(1, 2)
    assert chosen(large, micro_batch=64) == Choice(1, SEQUENCES), "no more than there are"
    assert chosen(large, gradient_checkpointing=True) == Choice(1, SEQUENCES, True)
    assert chosen(large, offload="cpu") == Choice(3, SEQUENCES, offload="cpu")


def test_the_defaults_are_what_was_always_trained() -> None:
    training = TrainingSection()
    plan = MemoryPlan(SHAPE, work(), SEQUENCES, training, Room(10**12, ""))
    assert plan.shown.choice == Choice(2, 1, False, "none")
    config = config_with(training)
    assert chosen_for(Path("/nowhere"), PLAN, config) == plan.shown.choice, "without a look at it"


def test_what_fits_nowhere_is_said_in_numbers() -> None:
    least = min(
        bytes_of(Choice(stage, 1, saving)) for stage in stages() for saving in (False, True)
    )
    assert planned(least).shortage is None
    short = planned(least - 1)
    assert short.chosen is None
    assert isinstance(short.shown, Candidate) and short.shown == short.least
    assert short.shortage is not None
    assert f"{least / 1e9:.2f} GB at the least" in short.shortage
    assert f"{(least - 1) / 1e9:.2f} GB are there" in short.shortage


def test_a_room_that_is_not_known_refuses_nothing_and_opens_nothing() -> None:
    unknown = planned(None)
    assert unknown.shortage is None
    assert unknown.shown.choice == Choice(2, 1)
    assert planned(None, offload="cpu").shown.choice == Choice(3, 1, offload="cpu")


def test_other_ways_are_told_by_their_largest_micro_batch() -> None:
    exactly = bytes_of(Choice(3, 6))
    plan, below = (planned(room, zero_stage=2, micro_batch=1) for room in (exactly, exactly - 1))
    assert (plan.largest_micro_batch(Choice(3)), below.largest_micro_batch(Choice(3))) == (6, 3)
    assert (plan.largest_micro_batch(Choice(2)) or 0) < 6, "which does not share the base model"
    assert planned(1).largest_micro_batch(Choice(3, 1, True)) is None


def test_the_room_is_what_the_silo_says_or_a_share_of_the_machine() -> None:
    assert room_of(TrainingSection(memory_gb=2.5)).size_bytes == 2_500_000_000
    one, four = (room_of(TrainingSection(ranks=ranks)).size_bytes for ranks in (1, 4))
    assert one is not None and four is not None
    assert 0.89 * machine_bytes() < one < machine_bytes()
    assert four == one // 4
    assert "4 ranks" in room_of(TrainingSection(ranks=4)).source


def config_with(training: TrainingSection, home: Path = Path("/nowhere")) -> SiloConfig:
    storage = StorageSection(endpoint_url="http://127.0.0.1:1")
    return SiloConfig(
        silo=SILO, federation=PLAN.federation, storage=storage, training=training, home=home
    )


def test_a_plan_is_what_is_trained_of_it_here(tmp_path: Path) -> None:
    model = write_model_folder(tmp_path / "model")
    training = TrainingSection(ranks=2, silo_only_baseline=False)
    found = memory_plan(model, PLAN, config_with(training))
    assert found.work.sequence_length == PLAN.recipe.sequence_length
    assert found.work.round_tokens == PLAN.recipe.tokens_per_round
    assert found.sequences_per_rank == PLAN.recipe.sequences_per_step // 2
    own = SiloLayout(silo=SILO, rank=1, alpha=1)
    narrower = PLAN.model_copy(update={"silo_layouts": (own,)})
    held = PINNED["cpu"]
    part = work_of(narrower, SILO, training, held)
    assert (part.layout.rank, part.residual_layout) == (1, PLAN.layout)
    recipe = PLAN.recipe.model_copy(update={"trained_factors": "b"})
    only_b = PLAN.model_copy(update={"recipe": recipe})
    assert work_of(only_b, SILO, training, held).trained == "b"
    assert work_of(only_b, SILO, TrainingSection(), held).trained == "both", "the baseline's"


def test_a_plan_is_short_of_memory_only_where_its_model_can_be_asked(tmp_path: Path) -> None:
    model = write_model_folder(tmp_path / "model")
    allowed = policy(tmp_path)
    there = tmp_path / "policy.toml"
    there.write_text(there.read_text().replace("/models/a", str(model)))
    from silo_agent.policy.policy_file import read_policy

    small, large = (config_with(TrainingSection(memory_gb=gb), tmp_path) for gb in (0.01, 1000))
    assert "0.01 GB are there" in (shortage(PLAN, read_policy(there), small) or "")
    assert shortage(PLAN, read_policy(there), large) is None
    assert shortage(PLAN, allowed, small) is None, "no such folder: another rule's"
    other = PLAN.base_model.model_copy(update={"digest": "0" * 64})
    unknown = PLAN.model_copy(update={"base_model": other})
    assert shortage(unknown, read_policy(there), small) is None
    assert shortage(PLAN, read_policy(tmp_path / "none.toml"), small) is None
    (model / "config.json").write_text("{}")
    assert shortage(PLAN, read_policy(there), small) is None


def test_quantised_weights_leave_stage_3_out() -> None:
    base: dict[str, Any] = {"base_weights": "8-bit"}
    none_fits = planned(1, **base)
    assert none_fits.chosen is None
    assert none_fits.least.choice.zero_stage == 2
    assert chosen(10**12, **base) == Choice(1, SEQUENCES)
    assert {c.zero_stage for c in choices(none_fits.training, 2, Room(1, ""))} == {1, 2}


def test_the_bytes_of_a_job_are_those_of_its_plan(tmp_path: Path) -> None:
    from silo_agent.training.engine_spec import EngineSpec

    model = write_model_folder(tmp_path / "model")
    plan = memory_plan(model, PLAN, config_with(TrainingSection(ranks=2)))
    spec = EngineSpec(
        model_dir=model,
        layout=plan.work.layout,
        residual_layout=None,
        trained="both",
        sequences_per_rank=2,
        weight_decay=PLAN.recipe.weight_decay,
        max_gradient_norm=PLAN.recipe.max_gradient_norm,
        zero_stage=2,
        ranks=2,
        device="cpu",
    )
    tokens = PLAN.recipe.tokens_per_round
    found = rank_bytes(spec, PLAN.recipe.sequence_length, tokens)
    assert found == plan.with_(Choice(2, 1)).estimate.total_bytes
    more = spec.model_copy(update={"micro_batch": 2})
    assert (rank_bytes(more, PLAN.recipe.sequence_length, tokens) or 0) > found
    assert rank_bytes(spec.model_copy(update={"model_dir": tmp_path}), 128, tokens) is None


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("micro_batch = 0", 'training.micro_batch.*a number from 1 to 1024, or "auto"'),
        ("micro_batch = true", "training.micro_batch"),
        ('micro_batch = "large"', "training.micro_batch"),
        ("gradient_checkpointing = 1", "training.gradient_checkpointing.*true, false or"),
        ("memory_gb = 0", "training.memory_gb"),
        ('zero_stage = "Auto"', "training.zero_stage"),
        ('offload = "disk"', "training.offload"),
        ('offload = "cpu"', "training.*offload needs zero_stage = 3 or"),
    ],
)
def test_a_mistake_in_a_setting_is_refused(line: str, says: str) -> None:
    head = 'silo = "north"\nfederation = "oncology"\n[storage]\nendpoint_url = "http://127.0.0.1:1"'
    good = parse_config(f"{head}\n[training]\n".encode(), Path("/home"))
    assert good.training == TrainingSection()
    with pytest.raises(SiloOperatorError, match=says):
        parse_config(f"{head}\n[training]\n{line}\n".encode(), Path("/home"))


def stages() -> tuple[Stage, ...]:
    return (1, 2, 3)


def test_a_model_of_one_rank_needs_no_partition() -> None:
    plan = replace(planned(10**12), work=work(ranks=1))
    assert plan.shown.choice.zero_stage == 1


def test_offload_to_nvme_is_refused_by_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    for offload in ("none", "cpu"):
        require_offload(offload)
    with pytest.raises(SiloOperatorError, match=r'"nvme".*C\+\+ compiler and libaio.*no C\+\+'):
        require_offload("nvme")
    training = TrainingSection(zero_stage=3, offload="nvme")
    with pytest.raises(SiloOperatorError, match="offload"):
        chosen_for(tmp_path, PLAN, config_with(training))
    compiler = tmp_path / "clang++"
    compiler.write_text("")
    compiler.chmod(0o755)
    if find_library("aio") is None:
        with pytest.raises(SiloOperatorError, match="found no libaio"):
            require_offload("nvme")


def test_a_personal_adapter_is_counted() -> None:
    """Beside a dual one the whole of the federation's acts; either trains both factors."""
    training = TrainingSection(silo_only_baseline=False)
    only_b = PLAN.model_copy(
        update={"recipe": PLAN.recipe.model_copy(update={"trained_factors": "b"})}
    )
    dual, ditto = (PersonalSection.model_validate({"method": name}) for name in ("dual", "ditto"))
    held = PINNED["cpu"]
    beside = work_of(only_b, SILO, training, held, dual).residual_layout
    more = PLAN.residual_layout.rank if PLAN.residual_layout else 0
    assert beside is not None and beside.rank == PLAN.layout.rank + more
    assert work_of(only_b, SILO, training, held, ditto).trained == "both"
    without = work_of(only_b, SILO, training, held)
    assert without == work_of(only_b, SILO, training, held, PersonalSection())


def test_a_personal_adapter_is_trained_on_the_model_as_it_is_pinned(tmp_path: Path) -> None:
    model = write_model_folder(tmp_path / "model")
    training = TrainingSection(precision="bfloat16", silo_only_baseline=False)
    config = config_with(training)
    own = config.model_copy(
        update={"personal": PersonalSection.model_validate({"method": "ditto"})}
    )
    half, pinned = (memory_plan(model, PLAN, each).work.held for each in (config, own))
    assert (half.precision, pinned) == ("bfloat16", PINNED["cpu"])


@pytest.mark.parametrize("method", ["dual", "ditto"])
def test_a_personal_adapter_changes_nothing_of_the_federation_s_training(
    tmp_path: Path, method: str
) -> None:
    """Whatever memory there is: with more and more of it both are planned, each for itself."""
    model = write_model_folder(tmp_path / "model")
    own = PersonalSection.model_validate({"method": method})
    least = memory_plan(
        model, PLAN, config_with(TrainingSection(**AUTO))
    ).shown.estimate.total_bytes
    others = 0
    for share in range(80, 200, 4):
        training = TrainingSection(**AUTO | {"memory_gb": least * share / 100 / 1e9})
        config = config_with(training)
        personal = config.model_copy(update={"personal": own})
        assert chosen_for(model, PLAN, personal) == chosen_for(model, PLAN, config)
        try:
            others += personal_choice(model, PLAN, personal) != chosen_for(model, PLAN, config)
        except SiloOperatorError as error:
            assert "memory for the personal adapter" in str(error)
            others += 1
    assert others > 0
