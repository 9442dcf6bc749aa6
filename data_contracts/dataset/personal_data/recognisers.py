"""This package's own rules: what Presidio only finds with a language model, or not at all.

A rule is a regular expression that asks for context (a label, a title, a unit), sometimes with a
check of what it matched. None needs a model, so none finds an identifier that stands alone. A rule
is only tried on a text with one of its cues, because a substring test is a hundred times cheaper.
Every repetition is bounded, so the time is linear in the text. The rules of the files (numbers
under which states file people) are only tried on a text with a run of six digits, which may have
separators and letters in it.
"""

import re
from collections.abc import Sequence

from data_contracts.dataset.personal_data.identifier_rules import IDENTIFIER_RULES
from data_contracts.dataset.personal_data.life_rules import LIFE_RULES
from data_contracts.dataset.personal_data.name_rules import NAME_RULES
from data_contracts.dataset.personal_data.rule import Rule
from data_contracts.dataset.personal_data.rule_files import rules_of

_DIGIT_RUN = re.compile(r"[0-9](?:[A-Za-z./ ()+-]{0,3}[0-9]){5}")
_DIGIT = re.compile("[0-9]")
RULES: tuple[Rule, ...] = (*NAME_RULES, *IDENTIFIER_RULES, *LIFE_RULES)


class OwnRecognisers:
    """Applies the rules of `kinds`."""

    def __init__(self, kinds: frozenset[str]) -> None:
        rules: Sequence[Rule] = [rule for rule in RULES if rule.kind in kinds]
        self._wordy = [rule for rule in rules if not rule.needs_digit]
        self._numeric = [rule for rule in rules if rule.needs_digit]
        self._filed = list(rules_of(kinds))

    def count(self, text: str) -> dict[str, int]:
        """Finds by kind; a kind without any is left out."""
        lower = text.lower()
        found = dict[str, int]()
        for rule in self._wordy:
            rule.add_to(found, text, lower)
        if _DIGIT.search(text) is None:
            return found
        for rule in self._numeric:
            rule.add_to(found, text, lower)
        if self._filed and _DIGIT_RUN.search(text) is not None:
            for rule in self._filed:
                rule.add_to(found, text, lower)
        return found
