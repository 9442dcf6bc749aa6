"""What one licence lets us do, reduced to the questions that decide about training.

A row of this kind is a careful reading of a licence and no legal advice; `source` says where to
read it in full. Every flag must be stated: a default would be an assumption about somebody's terms.
"""

from typing import Literal

from data_contracts.protocol.wire_types import LicenceId, Part, Text

LICENSE_REF = "LicenseRef-"
Use = Literal["research", "commercial"]


class LicenceTerms(Part):
    """The terms of one licence.

    `commercial` and `derivatives` say whether those uses are permitted. `share_alike`: what is made
    from the work must carry the same licence. `attribution`: its authors or notices must be named.
    `no_ai`: its author reserves training. `conditional`: nobody may rely on it before a named
    person has accepted its terms. `source` is a URL or sentence.
    """

    licence: LicenceId
    commercial: bool
    derivatives: bool
    share_alike: bool
    attribution: bool
    no_ai: bool
    conditional: bool
    source: Text
