"""The book of measured losses: what it keeps of records, how long, and what it does not trust."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from data_contracts.protocol.records import RoundPlan
from silo_agent.training.job import EvaluatedAdapter
from silo_agent.training.loss import Loss, mean_loss
from silo_agent.training.loss_book import LOSSES_NAME, SUMS_NAME, LossBook
from silo_agent.training.prompt_gate import PromptGate
from tests.aggregator.federation_samples import federation

PLAN = federation().plan.record
BASE_SUMS = ((8.25, 2), (0.1 + 0.2, 4), (5.0, 1))
CANDIDATE_SUMS = ((1e-17, 2), (1e6, 4), (4.75, 1))
BASE = EvaluatedAdapter(name="base", path=None)


def of_records(records: Any) -> Loss:
    """Mean and sums as an evaluation states them."""
    tokens = sum(tokens for _, tokens in records)
    return Loss(nats=mean_loss(records), tokens=tokens, records=records)


@pytest.fixture
def heldout(tmp_path: Path) -> Path:
    path = tmp_path / "heldout.jsonl"
    path.write_text("records")
    return path


@pytest.fixture
def candidate(tmp_path: Path) -> EvaluatedAdapter:
    path = tmp_path / "candidate.safetensors"
    path.write_bytes(b"candidate")
    return EvaluatedAdapter(name="candidate", path=path)


@pytest.fixture
def book(tmp_path: Path, heldout: Path, candidate: EvaluatedAdapter) -> LossBook:
    """With the base model and the candidate in it."""
    filled = LossBook(tmp_path, PLAN, heldout, 8)
    filled.put(BASE, of_records(BASE_SUMS))
    filled.put(candidate, of_records(CANDIDATE_SUMS))
    return filled


def test_what_was_put_comes_back_bit_for_bit(
    tmp_path: Path, heldout: Path, candidate: EvaluatedAdapter, book: LossBook
) -> None:
    for reader in (book, LossBook(tmp_path, PLAN, heldout, 8)):
        assert reader.get(BASE) == of_records(BASE_SUMS)
        assert reader.get(candidate) == of_records(CANDIDATE_SUMS)
        assert reader.without_records([BASE, candidate]) == ()


def test_only_the_owner_can_read_it(tmp_path: Path, book: LossBook) -> None:
    for name in (LOSSES_NAME, SUMS_NAME):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_the_same_model_under_two_names_is_asked_for_once(
    tmp_path: Path, heldout: Path, candidate: EvaluatedAdapter
) -> None:
    book = LossBook(tmp_path, PLAN, heldout, 8)
    starting = BASE.model_copy(update={"name": "starting"})
    assert book.without_records([BASE, starting, candidate]) == (BASE, candidate)
    book.put(starting, of_records(BASE_SUMS))
    assert book.without_records([BASE, starting, candidate]) == (candidate,)
    assert book.get(BASE) == book.get(starting) == of_records(BASE_SUMS)


def test_a_mean_alone_is_a_loss_but_not_its_records(
    candidate: EvaluatedAdapter, book: LossBook
) -> None:
    other = candidate.model_copy(update={"residual": candidate.path})
    book.put(other, Loss(nats=2.5, tokens=7))
    assert book.get(other) == Loss(nats=2.5, tokens=7)
    assert book.without_records([BASE, candidate, other]) == (other,)


def test_the_gate_is_part_of_what_was_measured(candidate: EvaluatedAdapter, book: LossBook) -> None:
    """The same files act on other prompts with another gate, and on all without one."""
    gates = [PromptGate(centre=(1.0,), threshold=threshold) for threshold in (None, 0.5, 0.6)]
    for nats, gate in enumerate(gates, start=1):
        book.put(candidate.model_copy(update={"gate": gate}), Loss(nats=nats, tokens=7))
    found = [book.get(candidate.model_copy(update={"gate": gate})) for gate in gates]
    assert [loss and loss.nats for loss in found] == [1, 2, 3]
    assert book.get(candidate) == of_records(CANDIDATE_SUMS)


def _changed_plan(**changes: Any) -> RoundPlan:
    return PLAN.model_copy(update=changes)


OTHERS: list[tuple[str, RoundPlan, int]] = [
    ("records", PLAN, 8),
    ("sequences", PLAN, 9),
    (
        "order",
        _changed_plan(layout=PLAN.layout.model_copy(update={"seed": PLAN.layout.seed + 1})),
        8,
    ),
    (
        "length",
        _changed_plan(recipe=PLAN.recipe.model_copy(update={"sequence_length": 77})),
        8,
    ),
    (
        "model",
        _changed_plan(base_model=PLAN.base_model.model_copy(update={"digest": "7" * 64})),
        8,
    ),
]


@pytest.mark.parametrize(("what", "plan", "sequences"), OTHERS, ids=[each[0] for each in OTHERS])
def test_sums_go_when_other_records_are_measured_and_means_stay(
    tmp_path: Path, heldout: Path, book: LossBook, what: str, plan: RoundPlan, sequences: int
) -> None:
    chosen = heldout
    if what == "records":
        chosen = tmp_path / "other.jsonl"
        chosen.write_text("other records")
    other = LossBook(tmp_path, plan, chosen, sequences)
    assert other.get(BASE) is None
    assert other.without_records([BASE]) == (BASE,)
    other.put(BASE, of_records(((3.0, 5),)))
    assert other.get(BASE) == Loss(nats=0.6, tokens=5, records=((3.0, 5),))
    base = of_records(BASE_SUMS)
    assert book.get(BASE) == base.without_records()
    assert "8.25" not in (tmp_path / SUMS_NAME).read_text()


def test_sums_of_another_cut_into_records_replace_what_was_known(
    candidate: EvaluatedAdapter, book: LossBook
) -> None:
    book.put(candidate, of_records(((1.0, 3), (2.0, 4))))
    assert book.without_records([BASE, candidate]) == (BASE,), "never compared record by record"


DAMAGES: list[bytes] = [
    b"",
    b"\xff\xfe",
    b"null",
    b"[]",
    b"{",
    b"[" * 100_000,
    b'{"a": ' * 100_000,
    b'{"a": []}',
    b'{"a": [1]}',
    b'{"a": ["x", 3]}',
    b'{"a": [NaN, 3]}',
    b'{"a": [1e999, 3]}',
    b'{"a": [1.0, 0]}',
    b'{"a": [1.0, 2.5]}',
    b'{"a": [1.0, 2, 3]}',
    b'{"a": {"loss": 1.0}}',
]


@pytest.mark.parametrize("name", [LOSSES_NAME, SUMS_NAME])
@pytest.mark.parametrize("data", DAMAGES, ids=range(len(DAMAGES)))
def test_a_damaged_file_is_an_empty_one(
    tmp_path: Path, book: LossBook, name: str, data: bytes
) -> None:
    (tmp_path / name).write_bytes(data)
    assert book.without_records([BASE]) == (BASE,)
    base = of_records(BASE_SUMS)
    assert book.get(BASE) == (None if name == LOSSES_NAME else base.without_records())
    book.put(BASE, base)
    assert book.get(BASE) == base, "measured again"


CHANGES: list[dict[str, Any]] = [
    {"tokens": [2, 4]},
    {"tokens": [2, 4, 1, 1]},
    {"tokens": [2, 4, 2]},
    {"tokens": [3, 4, 0]},
    {"tokens": [2, 4, -1]},
    {"tokens": [2.5, 3.5, 1]},
    {"tokens": "241"},
    {"chosen": "other records"},
    {"chosen": None},
    {"more": 1},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_sums_that_do_not_fit_their_records_are_not_believed(
    tmp_path: Path, book: LossBook, change: dict[str, Any]
) -> None:
    path = tmp_path / SUMS_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert book.without_records([BASE]) == (BASE,)
    base = of_records(BASE_SUMS)
    assert book.get(BASE) == base.without_records()


@pytest.mark.parametrize("sums", [[8.25, 0.3], [8.25, 0.3, 5.1], [8.25, 0.3, "NaN"], None])
def test_sums_that_do_not_add_up_to_the_loss_are_not_believed(
    tmp_path: Path, candidate: EvaluatedAdapter, book: LossBook, sums: Any
) -> None:
    path = tmp_path / SUMS_NAME
    kept = json.loads(path.read_text())
    of_base = next(key for key in kept["nats"] if key.endswith(":base"))
    kept["nats"][of_base] = sums
    path.write_text(json.dumps(kept))
    assert BASE in book.without_records([BASE, candidate])


def test_losses_of_an_earlier_version_are_measured_again(tmp_path: Path, heldout: Path) -> None:
    """They did not say in which order records were taken, nor anything of single ones."""
    book = LossBook(tmp_path, PLAN, heldout, 8)
    book.put(BASE, of_records(BASE_SUMS))
    path = tmp_path / LOSSES_NAME
    old = {key.replace(f":{PLAN.layout.seed}:", ":", 1): value
           for key, value in json.loads(path.read_text()).items()}  # fmt: skip
    path.write_text(json.dumps(old))
    (tmp_path / SUMS_NAME).unlink()
    assert book.get(BASE) is None
    book.put(BASE, of_records(BASE_SUMS))
    assert book.get(BASE) == of_records(BASE_SUMS)
