"""Terms by licence id: a small table of our own, and what a contract registers besides.

A licence that is in neither has no terms, and without terms nothing is permitted. A contract may
add `LicenseRef-` ids only: neither SPDX's licences nor the rows below can be given other terms.
"""

from collections.abc import Iterable, Iterator

from data_contracts.errors import DataStewardError
from data_contracts.protocol.records.licence_terms import LICENSE_REF, LicenceTerms

_SPDX = "https://spdx.org/licenses/"
_CC = "https://creativecommons.org/licenses/"
_CC_VERSIONS = ("2.0", "2.5", "3.0", "4.0")
_PERMISSIVE = (
    *("Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CDLA-Permissive-2.0", "ISC", "MIT"),
    *("ODC-By-1.0", "PSF-2.0", "Python-2.0", "Unicode-3.0", "Zlib"),
)
_NO_CONDITIONS = ("0BSD", "CC-PDDC", "CC0-1.0", "MIT-0", "PDDL-1.0", "Unlicense", "WTFPL")
_COPYLEFT = (
    *("AGPL-3.0-only", "AGPL-3.0-or-later", "GPL-2.0-only", "GPL-2.0-or-later"),
    *("GPL-3.0-only", "GPL-3.0-or-later", "LGPL-2.0-only", "LGPL-2.0-or-later"),
    *("LGPL-2.1-only", "LGPL-2.1-or-later", "LGPL-3.0-only", "LGPL-3.0-or-later"),
    *("CDLA-Sharing-1.0", "MPL-2.0", "ODbL-1.0"),
)
_USE_RESTRICTED = {
    "LicenseRef-Gemma-Terms": "https://ai.google.dev/gemma/terms section 3.2, prohibited uses",
    "LicenseRef-Llama-3-Community": "https://www.llama.com/llama3/license/",
    "LicenseRef-Llama-3.1-Community": "https://www.llama.com/llama3_1/license/",
    "LicenseRef-Llama-3.2-Community": "https://www.llama.com/llama3_2/license/",
    "LicenseRef-Llama-3.3-Community": "https://www.llama.com/llama3_3/license/",
    "LicenseRef-OpenRAIL-M": "https://www.licenses.ai/ and the model's own attachment A",
    "LicenseRef-BigCode-OpenRAIL-M": "https://www.bigcode-project.org/docs/pages/model-license/",
    "LicenseRef-BigScience-BLOOM-RAIL-1.0": "https://bigscience.huggingface.co/blog/the-bigscience-rail-license",
    "LicenseRef-BigScience-OpenRAIL-M": "https://www.licenses.ai/blog/2022/8/26/bigscience-open-rail-m-license",
    "LicenseRef-CreativeML-OpenRAIL-M": "https://huggingface.co/spaces/CompVis/stable-diffusion-license",
    # HPO permits any purpose, but its files may not be altered: a person has to see to that.
    "LicenseRef-HPO": "https://human-phenotype-ontology.github.io/license.html conditions 1 to 3",
}
_NO_COPYRIGHT = {
    "LicenseRef-Public-Domain": "stated by the contract: no copyright, or none that still lasts",
    "LicenseRef-US-Government-Work": "17 U.S.C. 105; in the United States only",
}
_PERMISSIVE_FLAGS = {
    "commercial": True,
    "derivatives": True,
    "share_alike": False,
    "attribution": True,
    "no_ai": False,
    "conditional": False,
}


class LicenceTable:
    """Our table and a contract's own rows; raises DataStewardError when a row may not be added."""

    def __init__(self, registered: Iterable[LicenceTerms] = ()) -> None:
        self._rows = dict(_TABLE)
        for row in registered:
            if not row.licence.startswith(LICENSE_REF) or row.licence == LICENSE_REF:
                raise _refused("an id that begins with LicenseRef-", f"{row.licence}")
            if row.licence in self._rows:
                raise _refused("an id that has no terms yet", f"{row.licence} a second time")
            self._rows[row.licence] = row

    def terms(self, licence: str) -> LicenceTerms | None:
        """Terms of a licence in SPDX's spelling; None means that nothing is permitted."""
        return self._rows.get(licence)

    def __iter__(self) -> Iterator[LicenceTerms]:
        return iter(self._rows.values())


def _row(licence: str, source: str, **stated: bool) -> LicenceTerms:
    """A permissive licence whose authors have to be named, but for what is `stated`."""
    return LicenceTerms(licence=licence, source=source, **(_PERMISSIVE_FLAGS | stated))


def _creative_commons() -> Iterator[LicenceTerms]:
    """Six licences in four versions; their elements (NC, ND, SA) mean the same in each."""
    for elements in ("BY", "BY-SA", "BY-NC", "BY-NC-SA", "BY-ND", "BY-NC-ND"):
        for version in _CC_VERSIONS:
            yield _row(
                f"CC-{elements}-{version}",
                f"{_CC}{elements.lower()}/{version}/legalcode",
                commercial="NC" not in elements,
                derivatives="ND" not in elements,
                share_alike="SA" in elements,
            )


def _rows() -> Iterator[LicenceTerms]:
    yield from _creative_commons()
    yield from (_row(licence, f"{_SPDX}{licence}.html") for licence in _PERMISSIVE)
    for licence in _NO_CONDITIONS:
        yield _row(licence, f"{_SPDX}{licence}.html", attribution=False)
    for licence in _COPYLEFT:
        yield _row(licence, f"{_SPDX}{licence}.html", share_alike=True)
    for licence, source in _USE_RESTRICTED.items():
        yield _row(licence, source, conditional=True)
    for licence, source in _NO_COPYRIGHT.items():
        yield _row(licence, source, attribution=False)


_TABLE = {row.licence: row for row in _rows()}


def _refused(expected: str, found: str) -> DataStewardError:
    return DataStewardError(
        "terms that the contract registers",
        expected=expected,
        found=found,
        action="give the licence an id of its own, and have the silo countersign the contract",
    )
