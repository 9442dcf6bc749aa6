"""One reading of a text for all detectors: the characters that their patterns know.

Word processors, PDF and input methods write an identifier with characters that look like others, or
like nothing. In order: what only means a separator between digits becomes one; every character has
its plain form (decimal digits of all scripts are ASCII, every space is a space, every line end a
newline, hyphens and minus signs are "-", quotes are straight, what has width or case of its own for
layout alone has neither, by NFKC of Unicode Standard Annex 15); what is invisible is left out;
letters are composed with their marks, and marks on ASCII characters are left out. ASCII text, but
for its control characters, is its own normal form. Letters of other scripts that look like Latin
ones stay what they are.

Superscript and circled digits are footnotes and list items far more often than numbers: a single
one, or one at a number, stays as it is; a run of them that stands alone is a number.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property

_ODD_ASCII = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LINE_ENDS = "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
_BLANKS = "\x1f\u115f\u1160\u2800\u3164\uffa0"
_HYPHENS = "\u02d7\u2043\u2212\u2796"
_LONG_DASHES = "\u2014\u2015\u2e3a\u2e3b\u3030\u30a0"
"""They part sentences, so they are hyphens between digits only."""

_LIKE_HYPHENS = _LONG_DASHES + "\u00ad\u2500\u2501\u30fc\uff70"
_LIKE_DOTS = "\u00b7\u2022\u2027\u2219\u22c5\u30fb\uff65"
_BEFORE = r"(?:(?<=[\d)])|(?<=[\d)][ \u00a0]))"
_DASH_BETWEEN = re.compile(rf"{_BEFORE}[{_LIKE_HYPHENS}](?=[ \u00a0]?[\d(])")
_DOT_BETWEEN = re.compile(rf"(?<=\d)[{_LIKE_DOTS}](?=\d)")
_RAISED = (
    r"\u00b2\u00b3\u00b9\u2070\u2074-\u2079\u2080-\u2089\u2460-\u2468\u24ea\u24f5-\u24fd\u24ff"
    r"\u2776-\u277e\u2780-\u2788\u278a-\u2792"
)
_RAISED_NUMBER = re.compile(rf"(?<![\d{_RAISED}])[{_RAISED}]{{2,}}+(?!\d)")
_IDEOGRAPHIC_DOT = re.compile(r"(?<=[0-9A-Za-z])\u3002(?=[0-9A-Za-z])")
_QUOTES = {
    **dict.fromkeys("\u00b4\u02b9\u02bc\u02c8\u2018\u2019\u201a\u201b\u2032\u2035\uff07", "'"),
    **dict.fromkeys("\u02ba\u201c\u201d\u201e\u201f\u2033\u2036\u301d\u301e\uff02", '"'),
}
_SLASHES = dict.fromkeys("\u2044\u2215", "/")
_OTHERS = {"\u2236": ":", "\ua789": ":", "\u2024": "."}
_IGNORED_MARKS = re.compile(
    r"[\u034f\u17b4\u17b5\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)
_LONGEST_FORM = 4
"""Characters that one may become; some stand for a sentence, which no detector looks for."""


@dataclass(frozen=True)
class NormalText:
    """`text` is the normal form of `original`."""

    original: str
    text: str

    def original_span(self, begin: int, end: int) -> tuple[int, int]:
        """Where text[begin:end], not empty, stands in the original: its first character and the
        one after its last."""
        if self.text is self.original:
            return begin, end
        return self._places[begin][0], self._places[end - 1][1]

    @cached_property
    def _places(self) -> list[tuple[int, int]]:
        """For each character of `text` the part of the original that it comes from."""
        separated = _separated(self.original)
        return [
            (begin, end)
            for begin, end in _clusters(separated)
            for _ in _composed(separated[begin:end].translate(_FORMS))
        ]


def normal_text(text: str) -> NormalText:
    """The normal form of `text`, with the way back."""
    if text.isascii() and _ODD_ASCII.search(text) is None:
        return NormalText(text, text)
    return NormalText(text, _composed(_separated(text).translate(_FORMS)))


def _separated(text: str) -> str:
    """What depends on its neighbours; the result has as many characters."""
    if text.isascii():
        return text
    text = _DASH_BETWEEN.sub("-", text)
    text = _DOT_BETWEEN.sub(".", text)
    text = _IDEOGRAPHIC_DOT.sub(".", text)
    return _RAISED_NUMBER.sub(lambda run: "".join(map(_digit, run[0])), text)


def _digit(character: str) -> str:
    return str(unicodedata.digit(character))


def _composed(text: str) -> str:
    if text.isascii() or _marks().search(text) is None:
        return text
    return _marks_on_ascii().sub("", unicodedata.normalize("NFC", text))


def _clusters(text: str) -> Iterator[tuple[int, int]]:
    """Begin and end of every character with the marks and the invisible ones that follow it."""
    begin = 0
    for position in range(1, len(text)):
        form = _FORMS[ord(text[position])]
        if form and _marks().match(form) is None:
            yield begin, position
            begin = position
    if text:
        yield begin, len(text)


def _form(character: str) -> str:
    """The plain form of one character, empty for what is invisible."""
    if character in _LINE_ENDS:
        return "\n"
    if (known := _QUOTES.get(character)) is not None:
        return known
    category = unicodedata.category(character)
    match category:
        case "Zs":
            return " "
        case "Cf" | "Cc":
            return character if character in "\t\n\r" else " " if character == "\x1f" else ""
        case "Nd":
            return str(unicodedata.decimal(character))
        case "No":
            return character
        case "Pd":
            return character if character in _LONG_DASHES else "-"
    if character in _BLANKS:
        return " "
    if character in _HYPHENS:
        return "-"
    if _IGNORED_MARKS.match(character):
        return ""
    known = _SLASHES.get(character) or _OTHERS.get(character)
    return known or _compatible(character)


def _compatible(character: str) -> str:
    """By NFKC, but for accents that stand alone: they would become a space with a mark."""
    form = unicodedata.normalize("NFKC", character)
    return character if form[:1] == " " or len(form) > _LONGEST_FORM else form


class _Forms(dict[int, str]):
    """Plain forms by code point, made when a character is first met."""

    def __missing__(self, code: int) -> str:
        form = self[code] = _form(chr(code))
        return form


_FORMS = _Forms()


@cache
def _marks() -> re.Pattern[str]:
    """A character that joins the one before it: marks, vowels and finals of Hangul in parts."""
    return re.compile(f"[{_mark_class()}\u1161-\u11ff\ud7b0-\ud7fb]")


@cache
def _marks_on_ascii() -> re.Pattern[str]:
    return re.compile(f"(?<=[!-~])[{_mark_class()}]+")


@cache
def _mark_class() -> str:
    """Every mark of Unicode up to the third plane, as ranges of a character class."""
    ranges: list[list[int]] = []
    for code in range(0x300, 0x20000):
        if unicodedata.category(chr(code))[0] != "M":
            continue
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)
