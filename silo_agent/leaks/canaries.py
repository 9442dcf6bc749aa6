"""Canaries: records with a random secret, which nobody has said, planted among training records.

Those that are planted and the candidates that they are held against are drawn from one space, by
the silo's own key: the same in every round, so that what several rounds learn adds up, and known to
nobody else. A model to which a planted secret is likelier than candidates' has remembered it
(Carlini et al. 2019, arXiv:1802.08232).
"""

import json
import string
from collections.abc import Iterator

from data_contracts.dataset.contract.canaries import Canaries, CanaryForm
from data_contracts.dataset.examples import Example, Message
from data_contracts.dataset.findings.keyed import Keyed
from data_contracts.dataset.forms.form import Form

CANDIDATES = 1023
"""With so many a secret's exposure can be 10 bits."""
NAME, SECRET = 8, 12
"""Characters of what a canary is called, and of what is asked."""

_ALPHABETS: dict[CanaryForm, str] = {"digits": string.digits, "letters": string.ascii_lowercase}


def planted_lines(terms: Canaries, form: Form, keyed: Keyed) -> Iterator[str]:
    """As lines of a file of that form, in the order of their numbers, each as often as its copies:
    the first copy of every canary comes before the second of any."""
    for _ in range(terms.copies):
        yield from _lines(terms, form, keyed, range(terms.number))


def reference_lines(terms: Canaries, form: Form, keyed: Keyed) -> Iterator[str]:
    """Each planted canary once, then the candidates that are planted nowhere."""
    yield from _lines(terms, form, keyed, range(terms.number + CANDIDATES))


def _lines(terms: Canaries, form: Form, keyed: Keyed, places: range) -> Iterator[str]:
    for place in places:
        line = form.line(_canary(terms, keyed, place))
        yield json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n"


def _canary(terms: Canaries, keyed: Keyed, place: int) -> Example:
    drawn = _drawn(terms.form, int(keyed("canary", terms.form, str(place)), 16))
    name, secret = drawn[:NAME], drawn[NAME:]
    question = f"What is the code of {name}?"
    return Example(
        row=place + 1,
        id="",
        subject="",
        prompt=question,
        answer=secret,
        licence="",
        source="",
        messages=(Message("user", question), Message("assistant", secret)),
        text=f"The code of {name} is {secret}.",
    )


def _drawn(form: CanaryForm, number: int) -> str:
    """NAME and SECRET characters: of 256 bits so few that all are equally likely."""
    alphabet, drawn = _ALPHABETS[form], ""
    while len(drawn) < NAME + SECRET:
        number, place = divmod(number, len(alphabet))
        drawn += alphabet[place]
    return drawn
