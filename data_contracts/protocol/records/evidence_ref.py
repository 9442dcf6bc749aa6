"""Reference to one thing that a decision rests on: whose, what kind, which bytes, which version."""

from data_contracts.protocol.wire_types import Digest, Part, RuleId, SiloId, VersionId

LOCAL_ADAPTER = "adapter"
"""Kind of a reference to a submitted blob; every other kind is that of a record."""


class EvidenceRef(Part):
    """A record by its envelope's digest, or a blob by that of what lies in storage (of an encrypted
    one the ciphertext's); the coordinator's has no `silo`.

    `version` is the version in the silo's inbox that the coordinator has locked. None where a
    storage has no versions, and a copy lies in the ledger bucket; and for the coordinator's own.
    """

    kind: RuleId
    silo: SiloId | None
    digest: Digest
    version: VersionId | None = None
