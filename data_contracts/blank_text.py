"""Whether a text says anything: letters, digits, signs, or something else that people can see."""

import unicodedata

_UNSEEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zs", "Zl", "Zp"})
"""Controls, format characters (zero width, direction), halves of characters, and spaces."""

_UNSEEN = frozenset(
    (
        *"\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0",
        *map(chr, range(0xFE00, 0xFE10)),
        *map(chr, range(0xE0100, 0xE01F0)),
    )
)
"""Joiners, fillers and variation selectors, which Unicode counts among letters and marks, and the
braille pattern without a dot (Unicode, DerivedCoreProperties, Default_Ignorable_Code_Point)."""


def is_blank(text: str) -> bool:
    """Whether nobody who looks at `text` sees anything."""
    return all(
        character in _UNSEEN or unicodedata.category(character) in _UNSEEN_CATEGORIES
        for character in text
    )
