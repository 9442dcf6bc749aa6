"""A synthetic set that copies, edits or remembers is caught; one that was written anew is not."""

import random

import pytest

from data_contracts.dataset.novelty.set_findings import (
    COMMON,
    NoveltyLimits,
    OwnRecords,
    SetFindings,
    find_in_set,
)
from tests.data_contracts.dataset.novelty.made_notes import edited, notes

LIMITS = NoveltyLimits()
TRAIN, HELDOUT, ANEW = notes(300, 1), notes(150, 2), notes(200, 3)
OWN = OwnRecords(TRAIN, range(len(TRAIN)), HELDOUT)


def found(texts: list[str], own: OwnRecords = OWN) -> SetFindings:
    return find_in_set(texts, own, LIMITS)


def test_notes_of_the_same_form_that_nobody_copied_pass() -> None:
    findings = found(ANEW)
    assert findings.broken(LIMITS) == ()
    assert findings.caught() == frozenset()
    # The sentence that stands in every note is nobody's: without that rule it would be a span.
    assert findings.longest_span < LIMITS.span_words


def test_one_copied_record_is_caught_by_every_rule_about_records() -> None:
    for source in (TRAIN, HELDOUT):
        findings = found([*ANEW[:150], source[7], *ANEW[150:]])
        assert findings.caught() == {151}
        assert findings.broken(LIMITS) == (
            "synthetic.span",
            "synthetic.containment",
            "synthetic.one_source",
            "synthetic.near_copy",
        )


def test_a_copy_in_other_spelling_is_a_copy() -> None:
    spelled = TRAIN[3].upper().replace(" ", "\n ").replace("E", "\u00adE")
    assert found([*ANEW, spelled]).caught() == {len(ANEW) + 1}


def test_copies_with_every_eighth_word_changed_are_caught_by_where_they_come_from() -> None:
    rng = random.Random(5)
    findings = found([edited(text, rng) for text in TRAIN[:200]])
    assert not findings.spans
    assert not findings.near_copies
    assert len(findings.of_one_source) > 180


def test_a_set_that_was_edited_beyond_recognition_is_told_by_what_it_is_near_to() -> None:
    rng = random.Random(5)
    findings = found([edited(text, rng, every=4) for text in TRAIN[:200]])
    assert findings.caught() == frozenset()
    assert findings.broken(LIMITS) == ("synthetic.nearer_to_train",)


def test_a_set_that_remembers_held_out_records_is_not_nearer_to_training() -> None:
    rng = random.Random(5)
    findings = found([edited(text, rng, every=4) for text in HELDOUT])
    assert findings.neighbours is not None
    assert findings.neighbours.nearer < 50
    assert findings.neighbours.chance > 0.999


def test_near_copies_of_all_are_told_by_their_second_nearest() -> None:
    rng = random.Random(5)
    findings = found([edited(text, rng, every=16) for text in TRAIN])
    assert findings.neighbours is not None
    assert findings.neighbours.ratio < 0.5 * findings.neighbours.heldout_ratio
    assert "synthetic.neighbour_ratio" in findings.broken(LIMITS)


@pytest.mark.parametrize("subjects", [COMMON - 1, COMMON])
def test_wording_of_as_many_subjects_as_a_small_cell_has_is_nobodys(subjects: int) -> None:
    wording = " ".join(f"clause{number}" for number in range(60))
    train = [*TRAIN, *(f"{note} {wording}" for note in notes(subjects, 4))]
    own = OwnRecords(train, range(len(train)), HELDOUT)
    findings = found([*ANEW, wording], own)
    assert bool(findings.spans) is (subjects < COMMON)


def test_wording_of_one_subjects_many_records_is_that_subjects() -> None:
    wording = " ".join(f"clause{number}" for number in range(60))
    many = [f"{note} {wording}" for note in notes(3 * COMMON, 4)]
    own = OwnRecords([*TRAIN, *many], [*range(300), *[300] * len(many)], HELDOUT)
    assert found([*ANEW, wording], own).spans == (201,)


def test_short_answers_that_many_give_are_nobodys_and_one_that_one_gives_is() -> None:
    train = [*TRAIN, *["not known"] * COMMON, "Rumpelstiltskin Fitzwilliam"]
    own = OwnRecords(train, range(len(train)), HELDOUT)
    findings = found(["Not known.", "rumpelstiltskin fitzwilliam!", "quite another thing"], own)
    assert findings.near_copies == (2,)


def test_with_too_few_records_nothing_is_said_of_the_whole() -> None:
    few = NoveltyLimits().least_records - 1
    for texts, own in (
        (ANEW[:few], OWN),
        (ANEW, OwnRecords(TRAIN[:few], range(few), HELDOUT)),
        (ANEW, OwnRecords(TRAIN, range(len(TRAIN)), HELDOUT[:few])),
    ):
        findings = found(texts, own)
        assert findings.neighbours is None
        assert findings.broken(LIMITS) == ("synthetic.too_few",)


def test_texts_without_words_are_like_nothing() -> None:
    own = OwnRecords([*TRAIN, "", "?!"], range(len(TRAIN) + 2), [*HELDOUT, "..."])
    findings = found([*ANEW, "", "!", "\u200b"], own)
    assert findings.caught() == frozenset()


def test_findings_do_not_depend_on_what_stands_beside_a_record() -> None:
    many = [*notes(700, 9), TRAIN[2], *notes(700, 10), edited(TRAIN[5], random.Random(2), 9)]
    findings = found(many)
    alone = found([many[700], many[-1]])
    assert findings.caught() == {701, 1402}
    assert alone.caught() == {1, 2}
