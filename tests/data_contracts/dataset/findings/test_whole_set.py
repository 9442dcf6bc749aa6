"""What follows from the whole set: near duplicates, leaks, balance and drift."""

import random
from pathlib import Path
from typing import Any

import pytest

from data_contracts.dataset.contract import parse_contract
from data_contracts.dataset.findings.profile import Profile, psi_thousandths
from tests.data_contracts.dataset.contract_samples import (
    replaced,
    sample_contract,
    sample_record,
    sample_records,
    write_lines,
)
from tests.data_contracts.dataset.findings_samples import look

FILE = Path("sets/records.jsonl")
WORDS = [f"w{n}" for n in range(3000)]
SPLIT = (
    "{name: source, logicalType: string}",
    "{name: source, logicalType: string}\n      - {name: split, logicalType: string}",
)
LABEL = (
    "{name: source, logicalType: string}",
    "{name: source, logicalType: string}\n      - {name: label, logicalType: string}",
)


def sentence(seed: int, words: int = 80) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def edited(text: str, changes: int) -> str:
    words = text.split()
    for place in range(changes):
        words[(place + 1) * len(words) // (changes + 1)] = f"edit{place}"
    return " ".join(words)


def answers(*texts: str, **changes: Any) -> list[dict[str, Any]]:
    return [sample_record(n, prompt="", answer=text, **changes) for n, text in enumerate(texts)]


def test_a_near_duplicate_is_found_and_a_different_text_is_not(tmp_path: Path) -> None:
    texts = [sentence(1), sentence(2), edited(sentence(1), 1), sentence(3), sentence(2)]
    write_lines(tmp_path / FILE, answers(*texts))
    looked = look(tmp_path)
    assert looked.column("is_near_duplicate") == [0, 0, 1, 0, 0]
    assert looked.column("is_duplicate") == [0, 0, 0, 0, 1]
    assert looked.column("duplicate_cluster") == [1, 2, 1, None, 2]
    assert looked.column("repeats") == [None, None, 1, None, 2]


def test_near_duplicates_are_found_among_many(tmp_path: Path) -> None:
    originals = [sentence(n) for n in range(400)]
    copies = [edited(originals[n], 1) for n in range(0, 400, 4)]
    write_lines(tmp_path / FILE, answers(*originals, *copies))
    near = look(tmp_path).column("is_near_duplicate")
    assert sum(near[:400]) == 0
    # One edited word of 80 leaves 71 of 81 shingles; at a similarity of 0.88, 48 rows and a bound
    # of 0.8 find 19 of 20.
    assert sum(near[400:]) >= 88


def test_training_that_repeats_the_held_out_split_leaks(tmp_path: Path) -> None:
    """Exactly, nearly, or by its subject alone; what leaks is never trained on."""
    texts = [
        sentence(2),
        sentence(2),
        sentence(1),
        edited(sentence(1), 1),
        sentence(3),
        sentence(4),
    ]
    splits = ["train", "heldout"] * 3
    records = [
        sample_record(n, answer=text, prompt="", subject=f"s{min(n, 4)}", split=split)
        for n, (text, split) in enumerate(zip(texts, splits, strict=True))
    ]
    write_lines(tmp_path / FILE, records)
    strict = ("maxLeakingPerMille: 1000", "maxLeakingPerMille: 0")
    looked = look(tmp_path, parse_contract(replaced(SPLIT, strict).encode(), "c"))
    assert looked.column("split") == splits
    assert looked.column("leaks") == [1, 0, 1, 0, 1, 0]
    assert looked.column("leaks_with") == [2, None, 4, None, 6, None]
    assert "split.no_leakage" in looked.failing()
    assert looked.column("usable")[0::2] == [0, 0, 0]


def test_a_pair_between_two_clusters_leaks_as_well(tmp_path: Path) -> None:
    """Row 3 is near row 1 and near row 2, which are not near each other."""
    words = sentence(5, 100).split()
    one = " ".join(["a1", "a2", "a3", "a4", *words[:96]])
    other = " ".join([*words[:96], "b1", "b2", "b3", "b4"])
    middle = " ".join(words[:96])
    texts, splits = [one, other, middle], ["train", "heldout", "train"]
    records = [
        sample_record(n, prompt="", answer=text, split=split)
        for n, (text, split) in enumerate(zip(texts, splits, strict=True))
    ]
    write_lines(tmp_path / FILE, records)
    looked = look(tmp_path, parse_contract(replaced(SPLIT).encode(), "c"))
    assert looked.column("is_near_duplicate")[2] == 1
    assert looked.column("leaks")[2] == 1
    assert looked.column("leaks_with")[2] == 2
    assert looked.column("repeats")[2] == 1


def test_an_id_that_an_earlier_record_has_is_told_and_refuses_nothing(tmp_path: Path) -> None:
    """Of ids nothing but equality counts, and a row that is no record has none."""
    ids = ["a", "b", "a", "A", "a", "c", "b"]
    records: list[dict[str, Any] | bytes] = [
        *(sample_record(n, id=name) for n, name in enumerate(ids)),
        *(sample_record(n) for n in range(10, 50)),
    ]
    write_lines(tmp_path / FILE, records)
    looked = look(tmp_path)
    assert looked.column("same_id_as")[:7] == [None, None, 1, None, 1, None, 2]
    assert set(looked.column("same_id_as")[7:]) == {None}
    assert looked.findings.notes == (
        "ids that an earlier record has: 3, first row 3 that of row 1",
    )
    assert looked.failing() == []
    assert 0 not in looked.column("usable")
    write_lines(tmp_path / FILE, [*sample_records(), b"{", b"{", b"["])
    looked = look(tmp_path)
    assert set(looked.column("same_id_as")) == {None}
    assert not any("ids" in note for note in looked.findings.notes)


@pytest.mark.parametrize(("repeated", "fails"), [(59, False), (60, True)])
def test_a_share_exactly_at_its_limit_holds(tmp_path: Path, repeated: int, fails: bool) -> None:
    fresh = [
        sample_record(n, prompt="Which?", answer=sentence(n, 9)) for n in range(1000 - repeated)
    ]
    write_lines(tmp_path / FILE, [*fresh, *fresh[:repeated]])
    limit = ("maxExactPerMille: 100", "maxExactPerMille: 59")
    looked = look(tmp_path, sample_contract(limit))
    assert looked.failing() == (["duplicates.exact"] if fails else [])


def test_a_held_out_split_that_may_not_be_used_is_none(tmp_path: Path) -> None:
    train = [sample_record(n, split="train") for n in range(60)]
    repeats = [sample_record(n, split="heldout") for n in range(5)]
    write_lines(tmp_path / FILE, [*train, *repeats])
    looked = look(tmp_path, parse_contract(replaced(SPLIT).encode(), "c"))
    assert looked.findings.heldout_records == 0
    assert "split.both_present" in looked.failing()


@pytest.mark.parametrize(("majority", "fails"), [(50, False), (95, True)])
def test_labels_must_be_balanced(tmp_path: Path, majority: int, fails: bool) -> None:
    records = [
        sample_record(n, label="common" if n < majority else f"rare-{n % 3}") for n in range(100)
    ]
    write_lines(tmp_path / FILE, records)
    balance = "  - property: fl.balance\n    value: {maxMajorityPerMille: 900}\n"
    contract = parse_contract((replaced(LABEL) + balance).encode(), "c")
    assert ("labels.balance" in look(tmp_path, contract).failing()) is fails


def test_balance_without_labels_fails(tmp_path: Path) -> None:
    write_lines(tmp_path / FILE, sample_records())
    balance = "  - property: fl.balance\n    value: {maxMajorityPerMille: 900}\n"
    contract = parse_contract((replaced() + balance).encode(), "c")
    assert look(tmp_path, contract).failing() == ["labels.present"]


def test_drift_against_the_last_accepted_round(tmp_path: Path) -> None:
    write_lines(tmp_path / FILE, sample_records())
    before = look(tmp_path).findings.profile
    assert look(tmp_path, previous=before).failing() == []
    longer = [sample_record(n, answer="x" * (20 * (1 + n % 9))) for n in range(40)]
    write_lines(tmp_path / FILE, longer)
    assert look(tmp_path, previous=before).failing() == ["drift.since_last_round"]
    assert look(tmp_path).failing() == []


def test_the_stability_index_is_the_published_formula() -> None:
    """Two bins of 1/2 and 1/2 against 1/4 and 3/4: 0.25 ln 2 + 0.25 ln 1.5 = 0.2747."""
    now = Profile(records=100, bins={"label": {"a": 50, "b": 50}})
    before = Profile(records=100, bins={"label": {"a": 25, "b": 75}})
    assert psi_thousandths(now, before) == 275
    assert psi_thousandths(before, now) == 275
    assert psi_thousandths(now, now) == 0
    assert Profile.from_json(now.model_dump_json().encode()) == now


def test_records_without_consent_are_refused(tmp_path: Path) -> None:
    consent = (
        "{name: source, logicalType: string}",
        "{name: source, logicalType: string}\n      - {name: consent, logicalType: boolean}",
    )
    records = [sample_record(n, consent=n != 7) for n in range(40)]
    write_lines(tmp_path / FILE, records)
    looked = look(tmp_path, sample_contract(consent))
    assert looked.failing() == ["consent.given"]
    assert looked.column("usable").count(0) == 1
