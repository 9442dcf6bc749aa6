"""What nobody sees says nothing."""

import pytest

from data_contracts.shown_text import is_blank

UNSEEN = (
    *("", " ", "\t\n", "\u00a0", "\u200b", "\u200c\u200d", "\u2060", "\ufeff", "\u00ad", "\u180e"),
    *("\u3164", "\uffa0", "\u115f\u1160", "\u2800", "\u034f", "\ufe0f", "\U000e0101", "\u202e"),
    *("\U000e0041\U000e0042", "\u2028\u2029", "\u3000", "\x00\x7f\x85", "\ud800"),
)
SEEN = ("a", ".", "\u200b0", "\u00a0\u4e2d", "\U0001f642", "\u0301e", "\u2801", "\u0e33", "\ufffd")


@pytest.mark.parametrize("text", UNSEEN, ids=ascii)
def test_a_text_of_what_nobody_sees_is_blank(text: str) -> None:
    assert is_blank(text)
    assert is_blank(f" {text}\u200b{text}\n")


@pytest.mark.parametrize("text", SEEN, ids=ascii)
def test_one_letter_that_is_seen_makes_a_text(text: str) -> None:
    assert not is_blank(text)
    assert not is_blank(f"\u200b{text}\u3164")
