"""Whether the licence that a record states is on the contract's allow-list.

Licences are SPDX expressions (SPDX 2.3, annex D). `A AND B` needs both allowed, `A OR B` one of
them, `A WITH E` the licence allowed and E a known SPDX exception, because an exception only adds
permission. Unknown, missing, unreadable and NOASSERTION fail: silence is not permission.
What may leave the silo is never the text that a record states, only ids from SPDX's list or from
the allow-list.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from license_expression import get_spdx_licensing

NO_ASSERTION = "NOASSERTION"
MAX_EXPRESSION_CHARACTERS = 400
MAX_OPEN_PARENTHESES = 20
MAX_REMEMBERED = 10_000

_LICENSE_REF = "LicenseRef-"


@dataclass(frozen=True)
class LicenceFinding:
    """`ids` are the licences the record is counted under, all fit to leave the silo."""

    allowed: bool
    ids: tuple[str, ...]


_UNKNOWN = LicenceFinding(allowed=False, ids=(NO_ASSERTION,))


@cache
def _licensing() -> Any:
    return get_spdx_licensing()


def canonical_licence_id(text: str) -> str | None:
    """SPDX's spelling of a single licence id, or None when SPDX does not know it.

    A `LicenseRef-` id is taken as it is written: its meaning is the contract's own.
    """
    if text.startswith(_LICENSE_REF) and len(text) > len(_LICENSE_REF):
        return text
    parsed = _parsed(text)
    return _known_id(parsed) if parsed is not None and _is_symbol(parsed) else None


class LicencePolicy:
    """An allow-list of licence ids that judges expressions; same text, same finding."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = frozenset(allowed)
        self._judged: dict[str, LicenceFinding] = {}

    def judge(self, expression: str) -> LicenceFinding:
        """Finding for one record's licence text; never raises, whatever the text is."""
        if len(expression) > MAX_EXPRESSION_CHARACTERS:
            return _UNKNOWN
        known = self._judged.get(expression)
        if known is not None:
            return known
        parsed = _parsed(expression)
        finding = _UNKNOWN if parsed is None else self._of(parsed)
        if len(self._judged) < MAX_REMEMBERED:
            self._judged[expression] = finding
        return finding

    def _of(self, node: Any) -> LicenceFinding:
        if _is_symbol(node):
            return self._of_id(_known_id(node) or str(node.key))
        if hasattr(node, "license_symbol"):
            finding = self._of(node.license_symbol)
            exception = node.exception_symbol
            known = exception.key in _licensing().known_symbols and exception.is_exception
            return finding if known else LicenceFinding(False, finding.ids)
        parts = [self._of(part) for part in node.args]
        if isinstance(node, _licensing().AND):
            return LicenceFinding(all(part.allowed for part in parts), _ids(parts))
        chosen = next((part for part in parts if part.allowed), None)
        return chosen or LicenceFinding(False, _ids(parts))

    def _of_id(self, licence: str) -> LicenceFinding:
        if licence in self._allowed:
            return LicenceFinding(True, (licence,))
        known = licence in _licensing().known_symbols and not licence.startswith(_LICENSE_REF)
        return LicenceFinding(False, (licence if known else NO_ASSERTION,))


def _parsed(expression: str) -> Any | None:
    # The parser recurses per parenthesis, and a record's licence is untrusted text.
    if expression.count("(") > MAX_OPEN_PARENTHESES:
        return None
    try:
        return _licensing().parse(expression)
    except Exception:  # The parser meets untrusted text with asserts and whatever else it raises.
        return None


def _is_symbol(node: Any) -> bool:
    return hasattr(node, "key") and not hasattr(node, "license_symbol")


def _known_id(node: Any) -> str | None:
    known = _licensing().known_symbols.get(node.key)
    usable = known is not None and not known.is_exception and not node.key.startswith(_LICENSE_REF)
    return str(node.key) if usable else None


def _ids(parts: list[LicenceFinding]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(licence for part in parts for licence in part.ids))
