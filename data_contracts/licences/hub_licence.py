"""A licence as the metadata of a model card names it: one id of the hub's own list, or "other".

The hub's list is https://huggingface.co/docs/hub/repositories-licenses. An id stands here only
where it means this one licence: the hub does not tell "only" from "or later", so those are "other"
with their exact name, as is every expression of more than one licence.
"""

import re
from dataclasses import dataclass

from data_contracts.licences.claim_names import CARD_LICENCES
from data_contracts.protocol.records.licence_terms import LICENSE_REF

OTHER = "other"

_SMALL_LETTERS = (
    *("Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "CDLA-Permissive-2.0"),
    *("CDLA-Sharing-1.0", "ISC", "MIT", "MPL-2.0", "Unlicense", "WTFPL", "Zlib"),
    *("CC-BY-2.0", "CC-BY-2.5", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0"),
    *("CC-BY-NC-2.0", "CC-BY-NC-3.0", "CC-BY-NC-4.0"),
    *("CC-BY-NC-SA-2.0", "CC-BY-NC-SA-3.0", "CC-BY-NC-SA-4.0"),
)
_HUB_IDS = {licence: licence.lower() for licence in _SMALL_LETTERS} | {
    licence: name for name, licence in CARD_LICENCES.items()
}


@dataclass(frozen=True)
class HubLicence:
    """`licence` is an id of the hub; `name` says which licence "other" is, None with an id."""

    licence: str
    name: str | None


def hub_licence(expression: str) -> HubLicence:
    """How a card names an SPDX expression or `LicenseRef-` id, in letters, digits, "." and "-"."""
    known = _HUB_IDS.get(expression)
    if known is not None:
        return HubLicence(known, None)
    plain = expression.replace(LICENSE_REF, "").lower()
    return HubLicence(OTHER, re.sub(r"[^a-z0-9.]+", "-", plain).strip("-"))
