"""Whether the licence that a record states is one the contract allows, and permits the use.

Two questions, in this order: every licence that is needed is on the contract's allow-list, and,
when a use is given, its terms permit that use (`licences.uses`). An allow-list cannot permit what
the terms refuse: a licence without known terms, or with conditions that nobody accepted, fails.
What may leave the silo is never the text that a record states, only ids from SPDX's list or from
the allow-list, and the id of a rule.
"""

from collections.abc import Iterable

from data_contracts.licences.expression import (
    MAX_EXPRESSION_CHARACTERS,
    NO_ASSERTION,
    UNKNOWN,
    UNREADABLE,
    LicenceFinding,
    canonical_licence_id,
    is_spdx_id,
    judge_expression,
    refused,
)
from data_contracts.licences.table import LicenceTable
from data_contracts.licences.uses import permits
from data_contracts.protocol.records.licence_terms import LicenceTerms, Use

__all__ = ["NOT_LISTED", "NO_ASSERTION", "LicenceFinding", "LicencePolicy", "canonical_licence_id"]

NOT_LISTED = "licence.not_listed"
MAX_REMEMBERED = 10_000


class LicencePolicy:
    """An allow-list of licence ids and a use, to judge expressions; same text, same finding.

    Without `use` only the list is asked. `registered` are the terms of the contract's own
    `LicenseRef-` ids; `accepted` are the ids of conditional licences that a named person accepted.
    Raises DataStewardError when `registered` would change terms that are known.
    """

    def __init__(
        self,
        allowed: Iterable[str],
        use: Use | None = None,
        registered: Iterable[LicenceTerms] = (),
        accepted: Iterable[str] = (),
    ) -> None:
        table, taken = LicenceTable(registered), frozenset(accepted)
        self._refusals = {
            licence: permits(table.terms(licence), use, accepted=licence in taken)
            if use is not None
            else None
            for licence in allowed
        }
        self._judged: dict[str, LicenceFinding] = {}

    def judge(self, expression: str) -> LicenceFinding:
        """Finding for one record's licence text; never raises, whatever the text is."""
        known = self._judged.get(expression)
        if known is not None:
            return known
        if len(expression) > MAX_EXPRESSION_CHARACTERS:
            return refused(UNREADABLE)
        finding = judge_expression(expression, self._of_id)
        if len(self._judged) < MAX_REMEMBERED:
            self._judged[expression] = finding
        return finding

    def _of_id(self, licence: str) -> LicenceFinding:
        if licence not in self._refusals:
            return refused(NOT_LISTED, licence) if is_spdx_id(licence) else refused(UNKNOWN)
        rule = self._refusals[licence]
        return LicenceFinding(rule is None, (licence,), rule)
