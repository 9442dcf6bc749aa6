"""Whatever a text holds, a Markdown reader shows that text and nothing else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from aggregator.publishing.markdown_text import as_block, as_code, as_text, one_line

HOSTILE = (
    "plain words",
    "a\n---\nbase_model: other/model\n---\n# Heading",
    "<script>alert(1)</script><img src=x onerror=y>",
    "| one | two |\n|---|---|",
    "`code` ``more`` ```python\nimport os\n```",
    "[click](https://example.org) ![pixel](http://example.org/p.png)",
    "https://example.org and www.example.org and somebody@example.org",
    "<https://example.org>",
    "[ref]: https://example.org",
    "**bold** _thin_ ~~gone~~ $x^2$",
    "- item",
    "* item",
    "+ item",
    "1. item",
    "7) item",
    "> quote",
    "# heading",
    "===",
    "---",
    "    indented",
    "back\\slash \\| \\` \\n",
    "&lt;b&gt; &amp; &#60;",
    "turned \u202e right \u2066 left \u2028 line\x00\x1b[31m",
    "a\ud800b",
)
READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def shown(markdown: str) -> tuple[str, set[str]]:
    """The text that a reader shows, and the kinds of everything else that it found."""

    def flat(tokens: list[Token]) -> list[Token]:
        return [t for token in tokens for t in (token, *flat(token.children or []))]

    tokens = flat(READER.parse(markdown))
    text = "".join(token.content for token in tokens if token.type in ("text", "code_inline"))
    return text, {token.type for token in tokens}


@pytest.mark.parametrize("text", HOSTILE)
def test_a_paragraph_shows_the_text(text: str) -> None:
    found, kinds = shown(str(as_text(text)))
    assert found == one_line(text)
    assert kinds <= {"paragraph_open", "paragraph_close", "inline", "text", "text_special"}


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("put", ["text", "code"])
def test_a_table_keeps_its_cells(text: str, put: str) -> None:
    cell = as_text(text) if put == "text" else as_code(text)
    found, kinds = shown(f"| name | value |\n|---|---|\n| a | {cell} |\n| b | last |\n")
    assert found == f"namevaluea{one_line(text)}blast"
    assert not kinds & {"html_block", "html_inline", "link_open", "image", "strong_open", "hr"}


@pytest.mark.parametrize("text", HOSTILE)
def test_a_list_and_a_quote_go_on_after_the_text(text: str) -> None:
    found, kinds = shown(f"> {as_text(text)}\n\n- {as_text(text)}\n- last\n")
    assert found == f"{one_line(text)}{one_line(text)}last"
    assert not kinds & {"heading_open", "hr", "html_block", "fence", "ordered_list_open"}


@pytest.mark.parametrize("text", [*HOSTILE, "````\n```\n`````"])
def test_a_block_ends_where_it_should(text: str) -> None:
    found = READER.parse(f"{as_block(text)}\n\nafter\n")
    assert [token.type for token in found][:2] == ["fence", "paragraph_open"]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_address_is_left_for_a_reader_that_makes_links_of_bare_ones(text: str) -> None:
    assert not [mark for mark in ("://", "www.", "@") if mark in as_text(text)]


@given(st.text(max_size=60))
@settings(deadline=None, max_examples=150)
def test_any_text_is_shown_as_it_is(text: str) -> None:
    found, kinds = shown(f"begin {as_text(text)} end")
    assert found.split() == f"begin {one_line(text)} end".split()
    assert kinds <= {"paragraph_open", "paragraph_close", "inline", "text", "text_special"}


def test_numbers_stay_readable() -> None:
    assert [str(as_text(value)) for value in ("3.0814", "-0.25", 7, "0.001")] == [
        "3.0814",
        "-0.25",
        "7",
        "0.001",
    ]
