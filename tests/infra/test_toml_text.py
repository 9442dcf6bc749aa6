"""Whatever a text is made of, TOML gives it back."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.disk.toml_text import toml_string

WHOLE = st.characters(exclude_categories=["Cs"])
EVERY_CONTROL = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, 0xFEFF]))


@given(st.text(WHOLE))
def test_every_text_comes_back(text: str) -> None:
    line = f"text = {toml_string(text)}  # a comment"
    assert tomllib.loads(line) == {"text": text}
    assert "\n" not in line and "\r" not in line


@pytest.mark.parametrize(
    "text", [EVERY_CONTROL, '"""', "'''", '\\"', "\\u0041", "a\r\nb", "# a", "[a]\nb=1"]
)
def test_what_toml_could_take_for_its_own(text: str) -> None:
    assert tomllib.loads(f"text = {toml_string(text)}") == {"text": text}


def test_half_a_character_is_refused_before_anything_is_written() -> None:
    with pytest.raises(UnicodeEncodeError):
        toml_string("a\udcff")
