"""SPDX licence expressions (SPDX 2.3, annex D), judged with any rule about a single licence.

`A AND B` needs both, `A OR B` one of them (the first that is allowed, as written), `A WITH E` the
licence allowed and E an exception on SPDX's list, because those only add permission. What is
empty, NOASSERTION, NONE, unreadable or not a licence is never allowed: silence is not permission.
No text is too strange to be judged, and a finding never repeats it: ids are SPDX's or the rule's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from license_expression import get_spdx_licensing

from data_contracts.protocol.records.licence_terms import LICENSE_REF

NO_ASSERTION = "NOASSERTION"
MAX_EXPRESSION_CHARACTERS = 400
MAX_OPEN_PARENTHESES = 20

NOT_STATED = "licence.no_assertion"
UNREADABLE = "licence.unreadable"
UNKNOWN = "licence.unknown"
UNKNOWN_EXCEPTION = "licence.unknown_exception"

_SILENCE = frozenset({"", NO_ASSERTION, "NONE"})


@dataclass(frozen=True)
class LicenceFinding:
    """`ids` are the licences counted, of an OR the chosen side, all fit to leave the silo.

    `rule` is the id of what speaks against it, None exactly when it is allowed.
    """

    allowed: bool
    ids: tuple[str, ...]
    rule: str | None = None


IdRule = Callable[[str], LicenceFinding]


def refused(rule: str, *ids: str) -> LicenceFinding:
    """A finding that is not allowed, counted under `ids` or else as NOASSERTION."""
    return LicenceFinding(False, ids or (NO_ASSERTION,), rule)


def judge_expression(text: str, of_id: IdRule) -> LicenceFinding:
    """Finding for an expression; `of_id` judges one licence and sees no other kind of text.

    It is called with an id in SPDX's spelling, or a `LicenseRef-` id as it is written.
    """
    if text.strip() in _SILENCE:
        return refused(NOT_STATED)
    parsed = _parsed(text)
    return refused(UNREADABLE) if parsed is None else _judged(parsed, of_id)


def canonical_licence_id(text: str) -> str | None:
    """SPDX's spelling of a single licence id, or None when SPDX does not know it.

    A `LicenseRef-` id is taken as it is written: its meaning is the contract's own.
    """
    if text.startswith(LICENSE_REF) and len(text) > len(LICENSE_REF):
        return text
    parsed = _parsed(text)
    return _known_id(parsed) if parsed is not None and _is_symbol(parsed) else None


@lru_cache(maxsize=10_000)
def canonical_expression(text: str) -> str | None:
    """One spelling for equivalent expressions, or None when a part is no licence that is known.

    Order, repetition and spelling do not matter; `LicenseRef-` ids are taken as they are written.
    """
    parsed = _parsed(text)
    if parsed is None or not _all_known(parsed):
        return None
    rendered: str = parsed.simplify().render()
    return rendered


def is_spdx_id(licence: str) -> bool:
    """Whether SPDX's list has this very id, as a licence or as an exception."""
    return licence in _licensing().known_symbols and not licence.startswith(LICENSE_REF)


@cache
def _licensing() -> Any:
    return get_spdx_licensing()


def _parsed(text: str) -> Any | None:
    # The parser recurses per parenthesis, and a record's licence is untrusted text.
    if len(text) > MAX_EXPRESSION_CHARACTERS or text.count("(") > MAX_OPEN_PARENTHESES:
        return None
    try:
        return _licensing().parse(text)
    except Exception:  # The parser meets untrusted text with asserts and whatever else it raises.
        return None


def _judged(node: Any, of_id: IdRule) -> LicenceFinding:
    if _is_symbol(node):
        return _of_symbol(node, of_id)
    if hasattr(node, "license_symbol"):
        finding = _of_symbol(node.license_symbol, of_id)
        if finding.allowed and not _is_known_exception(node.exception_symbol):
            return refused(UNKNOWN_EXCEPTION, *finding.ids)
        return finding
    parts = [_judged(part, of_id) for part in node.args]
    against = next((part for part in parts if not part.allowed), None)
    if isinstance(node, _licensing().AND):
        rule = against.rule if against else None
        return LicenceFinding(against is None, _ids(parts), rule)
    chosen = next((part for part in parts if part.allowed), None)
    return chosen or LicenceFinding(False, _ids(parts), parts[0].rule)


def _of_symbol(node: Any, of_id: IdRule) -> LicenceFinding:
    key = str(node.key)
    if key in _SILENCE:
        return refused(NOT_STATED)
    if key.startswith(LICENSE_REF) or _known_id(node) is not None:
        return of_id(key)
    return refused(UNKNOWN, *((key,) if is_spdx_id(key) else ()))


def _is_symbol(node: Any) -> bool:
    return hasattr(node, "key") and not hasattr(node, "license_symbol")


def _known_id(node: Any) -> str | None:
    usable = is_spdx_id(node.key) and not _licensing().known_symbols[node.key].is_exception
    return str(node.key) if usable else None


def _is_known_exception(node: Any) -> bool:
    # The parser also knows riders that take permission away, all of them under LicenseRef- ids.
    return is_spdx_id(node.key) and bool(_licensing().known_symbols[node.key].is_exception)


def _all_known(node: Any) -> bool:
    """Whether every part is known, also the sides of an OR that a judgement need not look at."""
    if _is_symbol(node):
        return str(node.key).startswith(LICENSE_REF) or _known_id(node) is not None
    if hasattr(node, "license_symbol"):
        return _all_known(node.license_symbol) and _is_known_exception(node.exception_symbol)
    return all(_all_known(part) for part in node.args)


def _ids(parts: list[LicenceFinding]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(licence for part in parts for licence in part.ids))
