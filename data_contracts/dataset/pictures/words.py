"""Words by which rights holders say that a picture is not for training.

The values of Data Mining are PLUS's (http://ns.useplus.org/ldf/vocab/). `noai` and `noimageai` are
the directives that DeviantArt proposed in 2022 for robots meta tags and the X-Robots-Tag header,
and that people also write as keywords. A phrase that is given back is one of those of this module,
never a text of the data.
"""

import re

UNREADABLE_VALUE = "with a value that is not known"

_ALLOWED = frozenset({"DMI-UNSPECIFIED", "DMI-ALLOWED"})
_PROHIBITED = frozenset(
    {
        "DMI-PROHIBITED",
        "DMI-PROHIBITED-AIMLTRAINING",
        "DMI-PROHIBITED-GENAIMLTRAINING",
        "DMI-PROHIBITED-EXCEPTSEARCHENGINEINDEXING",
        "DMI-PROHIBITED-SEECONSTRAINT",
        "DMI-PROHIBITED-SEEEMBEDDEDRIGHTSEXPR",
        "DMI-PROHIBITED-SEELINKEDRIGHTSEXPR",
    }
)
_DIRECTIVES = ("noai", "noimageai")
_KEYWORD = re.compile(
    r"(?<![a-z0-9])(?:no[_-]?(image)?[_-]?ai|no[ _-]?ai[ _-]?training)(?![a-z0-9])"
)
_VALUE = re.compile(r"DMI-[A-Z-]+", re.IGNORECASE)


def data_mining_value(value: str) -> str | None:
    """What a value of Data Mining speaks against training; None where it does not, or is empty.

    A value that is none of the vocabulary may be a prohibition.
    """
    plain = value.strip().rpartition("/")[2].strip().upper()
    if not plain or plain in _ALLOWED:
        return None
    return plain if plain in _PROHIBITED else UNREADABLE_VALUE


def prohibition_in(text: str) -> str | None:
    """The first prohibition of the vocabulary that a free text names."""
    named = (found.group().upper() for found in _VALUE.finditer(text))
    return next((value for value in named if value in _PROHIBITED), None)


def keyword_in(text: str) -> str | None:
    """`noai` or `noimageai` where a text has it as a word, also with hyphens, or "no AI training".

    Two words alone may say that a picture was made without AI, and say nothing of training.
    """
    found = _KEYWORD.search(text.lower())
    return None if found is None else ("noimageai" if found.group(1) else "noai")


def directive_in(robots: str) -> str | None:
    """The directive among those of a robots meta tag or an X-Robots-Tag header.

    Directives are separated by commas, and may begin with the name of a crawler and a colon: one
    that is meant for another crawler says what its owner wants all the same.
    """
    stated = {part.rpartition(":")[2].strip().lower() for part in re.split(r"[,;\n]", robots)}
    return next((word for word in _DIRECTIVES if word in stated), None)
