"""The base model that a plan names."""

from pydantic import model_validator

from data_contracts.protocol.wire_types import Digest, HubCommit, HubId, LicenceId, Part, Text


class BaseModelRef(Part):
    """The frozen base model: a name for people, the digest of its files for machines.

    `licence_acceptance` says who accepted terms that ask for it; see `licences.model_licence`.
    `hub_id` and `hub_revision` say where a user of the published adapter can have the model; what
    is trained on are the files of the digest, wherever they came from.
    """

    name: Text
    digest: Digest
    licence: LicenceId
    licence_acceptance: Text | None = None
    hub_id: HubId | None = None
    hub_revision: HubCommit | None = None

    @model_validator(mode="after")
    def _revision_is_of_a_repository(self) -> "BaseModelRef":
        if self.hub_revision is not None and self.hub_id is None:
            raise ValueError("hub_revision goes with a hub_id")
        return self
