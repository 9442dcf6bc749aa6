"""Counts of personal data in texts, by kind.

In order, for each text: its normal form, which all that follows looks at (`normal_text`), this
package's own rules, the prefilter, and Presidio for the kinds that the prefilter names. Only kinds
and counts come out, never what was found or where. Presidio is imported at the first text that
needs it, and a text that cannot be decided counts as a find.

What is not found is not proven absent: most names, and every identifier that is written in an
unusual way, pass. See `safe_harbor.py` for what that means for each identifier.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from data_contracts.dataset.personal_data.kinds import KINDS
from data_contracts.dataset.personal_data.normal_text import normal_text
from data_contracts.dataset.personal_data.prefilter import Prefilter
from data_contracts.dataset.personal_data.recognisers import OwnRecognisers
from data_contracts.errors import DataStewardError

if TYPE_CHECKING:
    from data_contracts.dataset.personal_data.presidio_engine import PresidioEngine


class PersonalDataScanner:
    """Looks for `kinds`; `texts` and `escalated` count what was scanned and what Presidio saw."""

    def __init__(self, kinds: frozenset[str]) -> None:
        """Raises DataStewardError for a kind that is not in KINDS, and for none at all."""
        unknown = kinds - KINDS
        if unknown or not kinds:
            raise DataStewardError(
                "The kinds of personal data to look for are not usable",
                expected=f"at least one of {', '.join(sorted(KINDS))}",
                found=", ".join(sorted(unknown)) or "none",
                action="correct fl.personalData.kinds in the data contract",
            )
        self.kinds = kinds
        self.texts = 0
        self.escalated = 0
        self._prefilter = Prefilter(kinds)
        self._own = OwnRecognisers(kinds)
        self._presidio: PresidioEngine | None = None

    def scan(self, texts: Sequence[str]) -> list[dict[str, int]]:
        """For each text the kinds found in it, with how often; empty where there are none."""
        return [self._scan(normal_text(text).text) for text in texts]

    def _scan(self, text: str) -> dict[str, int]:
        self.texts += 1
        found = self._own.count(text)
        candidates = self._prefilter.candidates(text)
        if candidates:
            self.escalated += 1
            for kind, count in self._engine().count(text, candidates).items():
                found[kind] = max(count, found.get(kind, 0))
        return found

    def _engine(self) -> PresidioEngine:
        if self._presidio is None:
            with _language_models_hidden():
                from data_contracts.dataset.personal_data.presidio_engine import PresidioEngine

            self._presidio = PresidioEngine()
        return self._presidio


@contextmanager
def _language_models_hidden() -> Iterator[None]:
    """Let imports inside the block find neither PyTorch nor transformers.

    Presidio and spaCy load both where they are installed, for language models that are not used
    here: seconds and hundreds of megabytes in every check of a data set.
    """
    hidden = [name for name in ("torch", "transformers") if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment] # what makes its import fail
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
