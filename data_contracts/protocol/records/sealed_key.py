"""What opens one silo's blob of one attempt: the text inside two layers of encryption."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from data_contracts.protocol.wire_types import Digest, Part, SiloId


class SealedKey(Part):
    """The identity of a blob, with whose it is and for which plan.

    Inside the submission's `sealed_key`: encrypted to the attempt's own recipient, and that to the
    coordinator's. Silo and plan are compared when it is opened, so that nobody can hand in another
    silo's, or one of another attempt.
    """

    version: Literal[1] = 1
    silo: SiloId
    plan_digest: Digest
    identity: Annotated[
        str, StringConstraints(pattern=r"^AGE-SECRET-KEY-1[02-9AC-HJ-NP-Z]{58}$"), Field(repr=False)
    ]
