"""The simulated federation with its buckets on a real object storage, each side with its rights."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from aggregator.coordinator import Coordinator
from data_contracts.protocol.bucket_layout import inbox_bucket, ledger_bucket
from infra.signing_keys import SigningKey
from infra.stack.identities import ADMIN
from infra.stack.local_stack import add_federation, add_silo
from infra.stack.seaweedfs import RunningStorage
from infra.storage.s3_bucket import S3Bucket
from infra.storage.s3_client import S3Settings, connect
from tests.simulator.fake_clock import FakeClock
from tests.simulator.federation import FEDERATION, SimulatedFederation
from tests.simulator.silo import Behaviour, SimulatedSilo


@dataclass
class StoredFederation(SimulatedFederation):
    """`use` a storage before the first silo is added; one federation per storage.

    Its clock starts now: the storage has a real one, and locks end in its future.
    """

    clock: FakeClock = field(default_factory=lambda: FakeClock(datetime.now(UTC)))

    def use(self, service: RunningStorage) -> None:
        """Create the federation's buckets and rights; with copies, a ledger and plain inboxes.

        Raises RuntimeError for a storage that has had a federation: both would be in its buckets.
        """
        self.service = service
        self.credentials = {"": self.kept("", add_federation(service, FEDERATION))}
        if self.plans.list_keys(""):
            raise RuntimeError("a simulated federation is the only one of its storage")
        if self.ledger.place == "copy":
            self.admin.create_bucket(Bucket=ledger_bucket(FEDERATION))

    def enrolled(self, silo: str) -> S3Settings:
        """A new silo's credential, once its inbox is there."""
        return add_silo(self.service, FEDERATION, silo)

    def kept(self, who: str, credential: S3Settings) -> S3Settings:
        """How `who` connects, a silo or "" for the coordinator: as it was told."""
        return credential

    @property
    def admin(self) -> Any:
        """The administrator's client, who may do what no process of a federation may."""
        return connect(self.service.settings_for(ADMIN), "")

    def add_silo(self, name: str, behaviour: Behaviour = Behaviour.HONEST) -> SimulatedSilo:
        """As before, after its bucket and credential."""
        if self.ledger.place == "copy":
            self.admin.create_bucket(Bucket=inbox_bucket(FEDERATION, name))
        self.credentials[name] = self.kept(name, self.enrolled(name))
        return super().add_silo(name, behaviour)

    def bucket(self, name: str) -> S3Bucket:  # type: ignore[override]
        """An inbox as its silo sees it, another bucket as the coordinator does."""
        _, _, silo = name.partition(inbox_bucket(FEDERATION, "aa").removesuffix("aa"))
        return S3Bucket(self.credentials[silo], name)

    def coordinator(self, key: SigningKey | None = None) -> Coordinator:
        """A fresh coordinator, with its own credential for the inboxes."""
        own: S3Settings = self.credentials[""]

        def inbox(silo: str) -> S3Bucket:
            return S3Bucket(own, inbox_bucket(FEDERATION, silo))

        return replace(super().coordinator(key), inbox=inbox)
