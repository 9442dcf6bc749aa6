"""What the texts beside a set of pictures say of their licence, to hold against the records.

A package's metadata often states the licence of its code, and its README that of its pictures
(npm's emoji-datasource-twitter: MIT, and CC-BY-4.0). A sentence counts when it, or the heading
above it, speaks of pictures, and not of some of them, and names a licence; of several those count
that name what the set is called. What a data set card claims in its front matter is of the whole.
Like a package's claim a sentence never is a record's licence: all it can do is disagree, which is
for a person to look into. What is given back are SPDX ids, names of files and numbers of lines.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from data_contracts.licences.expression import (
    LicenceFinding,
    is_spdx_id,
    judge_expression,
)

MAX_STATEMENTS = 1000
MOST_SHOWN = 3
MOST_CHARACTERS = 2000
"""Of one sentence that are looked at."""
_LOOK_BACK = 80

_PICTURES = re.compile(
    r"\b(?:images?|pictures?|photos?|photographs?|graphics?|icons?|emojis?|illustrations?|artworks?"
    r"|drawings?|paintings?|sprites?)\b",
    re.IGNORECASE,
)
_LICENSING = re.compile(r"licen[cs]|copyright|\bunder\b|creative commons|\bCC\b|\bCC0\b", re.I)
_LINK_TARGET = re.compile(r"\]\([^)]*\)|\]\[[^\]]*\]|https?://\S+|<[^>]*>")
_NEW_BLOCK = re.compile(r"\s*(?:[-*+|>]|#{1,6} |\d+[.)] )")
_HEADING = re.compile(r"#{2,6} ")
_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+(?=[A-Z\[])")
_NEGATED = re.compile(r"\b(?:not|isn't|aren't|except|without|unlike|than)\b[^.;,]{0,40}$", re.I)
_OF_SOME = re.compile(r"\b(?:some|several|certain|various|few|parts? of|individual)\b", re.I)
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n.*?^---[ \t]*$", re.DOTALL | re.MULTILINE)
_GENERIC = re.compile(r"data|datasource|dataset|set|assets?|files?|img|png|jpe?g|svg|web|package")
_WORD = re.compile(r"[a-z]{3,}")

_CC_URL = re.compile(r"creativecommons\.org/licenses/(by[a-z-]*)/(\d\.\d)", re.IGNORECASE)
_CC_SHORT = re.compile(r"\bCC[ -](BY(?:[ -](?:NC|SA|ND))*)(?:[ -]v?(\d\.\d))?", re.IGNORECASE)
_CC_LONG = re.compile(
    r"Creative Commons,? Attribution((?:[ -]*(?:Non-?Commercial|Share-?Alike|No-?Derivatives?))*)"
    r"(?:,? (?:International|Licen[cs]e))*(?:,? (?:Version )?v?(\d\.\d))?",
    re.IGNORECASE,
)
_CC_PARTS = (("noncommercial", "NC"), ("sharealike", "SA"), ("noderiv", "ND"))
_OTHERS = (
    (re.compile(r"\bCC0\b|creativecommons\.org/publicdomain/zero", re.I), "CC0-1.0"),
    (re.compile(r"\bApache\b(?: Licen[cs]e)?,?(?: Version)? ?(?:v?2\.0|2)\b", re.I), "Apache-2.0"),
    (re.compile(r"\bMIT\b"), "MIT"),
    (re.compile(r"\bSIL Open Font Licen[cs]e\b", re.I), "OFL-1.1"),
    (re.compile(r"\bAGPL\b|\bGNU Affero\b"), "AGPL"),
    (re.compile(r"\bLGPL\b|\bGNU Lesser\b"), "LGPL"),
    (re.compile(r"\bGPL\b|\bGNU General\b"), "GPL"),
    (re.compile(r"\bBSD\b"), "BSD"),
)
_ID = re.compile(r"[A-Za-z0-9]+(?:[-.][A-Za-z0-9]+)*-[0-9][A-Za-z0-9.-]*[A-Za-z0-9]")


@dataclass(frozen=True)
class PictureStatement:
    """One of a file; `licence` is an SPDX id, or a family of them such as `CC-BY`."""

    file: str
    line: int
    licence: str
    sentence: str

    def covers(self, licence: str) -> bool:
        """Whether a record under this id has what is stated."""
        if not licence.startswith(self.licence):
            return False
        version = licence[len(self.licence) :]
        return not version or (version[0] == "-" and version[1:2].isdigit())

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}, says {self.licence}"


@dataclass(frozen=True)
class StatedOfPictures:
    """What was found; empty where nothing is said."""

    statements: tuple[PictureStatement, ...] = ()

    def against(self, licence: str) -> str | None:
        """Where another licence than a record's is stated; None where none is, or the very one.

        `licence` is an SPDX expression; of one that cannot be read nothing is said here.
        """
        if not self.statements:
            return None
        ids = judge_expression(licence, _every_id).ids
        if not any(is_spdx_id(each) for each in ids):
            return None
        if any(statement.covers(each) for statement in self.statements for each in ids):
            return None
        shown = dict.fromkeys(map(str, self.statements))
        return "; ".join([*shown][:MOST_SHOWN])


NOTHING_STATED = StatedOfPictures()


def stated_of_pictures(texts: Mapping[str, str], names: Iterable[str]) -> StatedOfPictures:
    """What `texts`, by the names of their files, say of pictures.

    `names` are what the set is called: its folders, its package.
    """
    words = {word for name in names for word in _WORD.findall(name.lower())}
    own = {word for word in words if not _GENERIC.fullmatch(word) and not _PICTURES.fullmatch(word)}
    found = [each for file in sorted(texts) for each in _statements(file, texts[file])]
    found = found[:MAX_STATEMENTS]
    shared = [len(own & set(_WORD.findall(each.sentence.lower()))) for each in found]
    most = max(shared, default=0)
    return StatedOfPictures(
        tuple(each for each, count in zip(found, shared, strict=True) if count == most)
    )


def _every_id(licence: str) -> LicenceFinding:
    return LicenceFinding(True, (licence,))


def _statements(file: str, text: str) -> Iterator[PictureStatement]:
    is_about_pictures = _PICTURES.search(re.sub(r"[-_.]", " ", file)) is not None
    heading = ""
    for number, block in _blocks(text):
        if _HEADING.match(block):
            heading = block[:MOST_CHARACTERS]
        in_section = is_about_pictures or _PICTURES.search(_visible(heading)) is not None
        for offset, sentence in _sentences(block):
            seen = _visible(sentence)
            is_meant = in_section or _PICTURES.search(seen)
            if not is_meant or not _LICENSING.search(sentence) or _OF_SOME.search(seen):
                continue
            line = number + block.count("\n", 0, offset)
            for licence in _licences(" ".join(sentence.split())):
                yield PictureStatement(file, line, licence, seen)


def _visible(text: str) -> str:
    return _LINK_TARGET.sub(" ", text)


def _blocks(text: str) -> Iterator[tuple[int, str]]:
    """Paragraphs, items of lists, rows of tables and headings, with the number of the line."""
    begin, lines = 1, list[str]()
    text = _FRONT_MATTER.sub(lambda found: "\n" * found.group().count("\n"), text)
    for number, line in enumerate(text.splitlines(), start=1):
        is_heading = bool(lines) and lines[0].startswith("#")
        if lines and (not line.strip() or is_heading or _NEW_BLOCK.match(line)):
            yield begin, "\n".join(lines)
            lines = []
        if line.strip():
            begin = begin if lines else number
            lines.append(line)
    if lines:
        yield begin, "\n".join(lines)


def _sentences(block: str) -> Iterator[tuple[int, str]]:
    begin = 0
    for end in _SENTENCE_END.finditer(block):
        yield begin, block[begin : min(end.start(), begin + MOST_CHARACTERS)]
        begin = end.end()
    yield begin, block[begin : begin + MOST_CHARACTERS]


def _licences(sentence: str) -> list[str]:
    found = dict.fromkeys(_named(sentence))
    # A family says nothing beside a licence of it.
    return [one for one in found if not any(other.startswith(f"{one}-") for other in found)]


def _named(sentence: str) -> Iterator[str]:
    for match in _CC_URL.finditer(sentence):
        yield f"CC-{match.group(1).upper()}-{match.group(2)}"
    for match in _positive(_CC_SHORT, sentence):
        parts = re.sub(r"[ -]+", "-", match.group(1).upper())
        yield _versioned(f"CC-{parts}", match.group(2))
    for match in _positive(_CC_LONG, sentence):
        said = re.sub(r"[ -]", "", match.group(1).lower())
        parts = "".join(f"-{short}" for long, short in _CC_PARTS if long in said)
        yield _versioned(f"CC-BY{parts}", match.group(2))
    for pattern, licence in _OTHERS:
        if any(_positive(pattern, sentence)):
            yield licence
    for match in _positive(_ID, sentence):
        if is_spdx_id(match.group()):
            yield match.group()


def _positive(pattern: re.Pattern[str], sentence: str) -> Iterator[re.Match[str]]:
    for match in pattern.finditer(sentence):
        if not _NEGATED.search(sentence[max(0, match.start() - _LOOK_BACK) : match.start()]):
            yield match


def _versioned(family: str, version: str | None) -> str:
    return family if version is None else f"{family}-{version}"
