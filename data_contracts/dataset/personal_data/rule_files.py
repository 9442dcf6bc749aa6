"""Rules that are data: numbers under which states file people, and telephone numbers, by country.

Each file of the folder `rules` is TOML: a `kind` with its `meaning`, and rules with a `name`, a
`pattern` for `re` over normal text (case does not matter), the name of a `check` in
`national_numbers` or `national_numbers_of_asia`, samples that are `found` and samples that it
`passes`. With a `label` the number counts only behind it, on its line; `cues` are what a text must
then have in lower case. A rule may name another `kind`. The tests run every sample, so whoever adds
a country adds a file.

A number needs no label where few numbers of its length pass for one: a test measures how few.
"""

import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from data_contracts.dataset.personal_data import national_numbers, national_numbers_of_asia
from data_contracts.dataset.personal_data.normal_text import normal_text
from data_contracts.dataset.personal_data.rule import Rule

FOLDER = "rules"
_BEFORE, _AFTER = r"(?<![0-9A-Za-z])(?<![0-9][.,])", r"(?![0-9A-Za-z])(?![.,][0-9])"
_GAP = r"[^0-9\n]{0,24}?"
"""What may stand between a label and its number."""

_SEPARATORS = re.compile(r"[^0-9A-Z]")


@dataclass(frozen=True)
class FiledRule:
    """A rule of a file with what its file says of it."""

    file: str
    name: str
    rule: Rule
    is_labelled: bool
    is_checked: bool
    found: tuple[str, ...]
    passes: tuple[str, ...]


@cache
def filed_kinds() -> dict[str, str]:
    """Kinds that rule files bring, with their meanings."""
    read = (content for _, content in _files())
    return {content["kind"]: content["meaning"] for content in read if "kind" in content}


@cache
def filed_rules() -> tuple[FiledRule, ...]:
    """Every rule of every file, in the order of their names."""
    return tuple(
        _filed(name, entry, entry.get("kind") or content["kind"])
        for name, content in _files()
        for entry in content["rule"]
    )


@cache
def _files() -> tuple[tuple[str, dict[str, Any]], ...]:
    found = files("data_contracts.dataset.personal_data").joinpath(FOLDER).iterdir()
    named = sorted((file.name, file) for file in found if file.name.endswith(".toml"))
    return tuple((name, tomllib.loads(file.read_text("utf-8"))) for name, file in named)


def _filed(file: str, entry: dict[str, Any], kind: str) -> FiledRule:
    value = rf"{_BEFORE}(?P<value>{entry['pattern']}){_AFTER}"
    # What a text is searched for is in the text's form.
    label = normal_text(entry.get("label", "")).text
    cues = tuple(normal_text(cue).text for cue in entry.get("cues", ()))
    pattern = re.compile(f"(?:{label}){_GAP}{value}" if label else value, re.IGNORECASE)
    rule = Rule(kind, cues, pattern, _accepts(entry.get("check")))
    samples = tuple(entry["found"]), tuple(entry["passes"])
    return FiledRule(file, entry["name"], rule, bool(label), "check" in entry, *samples)


def _accepts(check: str | None) -> Any:
    if check is None:
        return lambda match: True
    is_valid = check_named(check)
    return lambda match: is_valid(_SEPARATORS.sub("", match["value"].upper()))


def check_named(name: str) -> Callable[[str], bool]:
    """The check digits of that name; raises AttributeError for one that nobody wrote."""
    module = national_numbers if hasattr(national_numbers, name) else national_numbers_of_asia
    check: Callable[[str], bool] = getattr(module, name)
    return check


def rules_of(kinds: frozenset[str]) -> Iterator[Rule]:
    """The rules of `kinds`."""
    return (filed.rule for filed in filed_rules() if filed.rule.kind in kinds)
