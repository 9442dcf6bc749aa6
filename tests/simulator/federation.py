"""A federation in memory: real coordinator and agent code over in-memory buckets and a fake clock.

`play` lets everybody take one step at a time in a fixed order and moves the clock, until the
round is reported. Coordinator and agents are made anew for every step, so every test is also a
test that they can be killed between any two steps.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from aggregator.coordinator import (
    CONTRACTS_DIRECTORY,
    COORDINATOR_IDENTITY,
    FEED_DIRECTORY,
    Coordinator,
)
from aggregator.decisions.stage import Stage
from aggregator.evidence.look import Look, look
from aggregator.federated_round import advance, open_round
from aggregator.settings.federation import (
    AdapterSection,
    BaseModelSection,
    CopiesSection,
    EncryptedStorageSection,
    FederationSettings,
    LedgerSection,
    PrefectSection,
    RecipeSection,
    RoundSection,
    SiloAdapterSection,
)
from aggregator.settings.masking import MaskingSection
from aggregator.settings.merge import MergeSection
from aggregator.settings.privacy import PrivacySection
from data_contracts.dataset.contract.agreement import agreement_path
from data_contracts.protocol.artifact import digest_of_bytes
from data_contracts.protocol.bucket_layout import (
    inbox_bucket,
    ledger_bucket,
    membership_slot,
    plans_bucket,
)
from data_contracts.protocol.dsse import Signer
from data_contracts.protocol.envelope import Verified, seal
from data_contracts.protocol.membership_chain import earlier_after
from data_contracts.protocol.records import Membership, RoundPlan
from data_contracts.protocol.records.membership import Member
from data_contracts.protocol.trusted_feed import FeedPosition
from infra.disk.durable_files import write_durably
from infra.disk.model_files import model_digest
from infra.encryption.identities import ensure_identity, load_identities
from infra.records.feed_reader import FeedReader
from infra.records.record_store import write_record
from infra.signing_keys import SigningKey, create_key
from tests.simulator.contract import PURPOSE, SimulatedContract, file_contract
from tests.simulator.fake_clock import FakeClock
from tests.simulator.memory_bucket import InMemoryBucket
from tests.simulator.silo import Behaviour, SimulatedSilo

FEDERATION = "simulated"
RUN = "run-1"
LICENCE = "Apache-2.0"
STEP_SECONDS = 20
CONTRACT_VALIDITY = timedelta(days=365)
MEMBERSHIP_VALIDITY = timedelta(days=1000)
MAX_STEPS = 400

POLICY = """\
version = 1
take_part = true
purposes = ["{purpose}"]
trust_modes = ["auditable", "confidential"]
trust_storage_with_deltas = true
[limits]
max_local_steps = 10
max_sequences_per_step = 8
max_sequence_length = 512
max_learning_rate = 0.01
max_rank = 16
max_adapter_bytes = 10_000_000
min_cohort_silos = 2
min_summed_silos = 3
max_retention_days = 400
[leak_check]
too_few = "allow"
[[models]]
name = "tiny"
licence = "Apache-2.0"
digest = "{digest}"
path = "{path}"
"""


@dataclass
class SimulatedFederation:
    """Everything of one federation; `storage` holds the buckets by name."""

    directory: Path
    model_dir: Path
    clock: FakeClock = field(default_factory=FakeClock)
    storage: dict[str, InMemoryBucket] = field(default_factory=dict)
    silos: dict[str, SimulatedSilo] = field(default_factory=dict)
    quorum: int = 2
    merge: MergeSection = field(default_factory=MergeSection)
    adapter: AdapterSection = field(default_factory=AdapterSection)
    silo_adapters: dict[str, SiloAdapterSection] = field(default_factory=dict)
    ledger: LedgerSection = field(default_factory=LedgerSection)
    copies: CopiesSection = field(default_factory=CopiesSection)
    masking: MaskingSection | None = None
    steps: int = 2
    least_steps: int | None = None
    encryption: Literal["age"] | None = None
    privacy: PrivacySection | None = None

    def __post_init__(self) -> None:
        self.root = create_key(self.directory / "keys" / "root.pem")
        self.key = create_key(self.directory / "keys" / "coordinator.pem")
        self.settings = self._settings()
        self.membership: Verified[Membership] | None = None
        self.memberships: list[Verified[Membership]] = []
        self.earlier_keys: tuple[SigningKey, ...] = ()

    def bucket(self, name: str) -> InMemoryBucket:
        """The bucket, created on first use."""
        is_inbox = "-inbox-" in name and self.settings.ledger.place == "inbox"
        return self.storage.setdefault(
            name, InMemoryBucket(name, versioned=is_inbox, now=self.clock.now)
        )

    @property
    def plans(self) -> InMemoryBucket:
        """The coordinator's bucket."""
        return self.bucket(plans_bucket(FEDERATION))

    def inbox(self, silo: str) -> InMemoryBucket:
        """One silo's bucket."""
        return self.bucket(inbox_bucket(FEDERATION, silo))

    def add_silo(self, name: str, behaviour: Behaviour = Behaviour.HONEST) -> SimulatedSilo:
        """Create a silo; `found` must be called before the first round."""
        home = self.directory / "silos" / name
        key = create_key(home / "keys" / "signing-key.pem")
        expires_at = self.clock.now() + CONTRACT_VALIDITY
        contract = SimulatedContract(name, f"contract of {name}".encode(), expires_at)
        write_durably(home / "policy.toml", self.policy_text().encode())
        silo = SimulatedSilo(
            name, home, key, self.plans, self.inbox(name), self.clock, contract, behaviour
        )
        self.silos[name] = silo
        self.sign_contract(name)
        return silo

    def sign_contract(self, silo: str, *signers: Signer) -> Path:
        """File the silo's contract as it is now, signed by both sides unless told otherwise."""
        contract, key = self.silos[silo].contract, self.silos[silo].key
        contract.agreed_with = self.key.public_key_hex
        directory = self.settings.path(CONTRACTS_DIRECTORY)
        agreement = contract.agreement(FEDERATION, self.clock.now())
        path = file_contract(directory, contract, agreement, *(signers or (key, self.key)))
        contract.agreed = agreement_path(path).read_bytes()
        return path

    def policy_text(self) -> str:
        """The policy that every simulated silo starts with."""
        digest = model_digest(self.model_dir, self.directory / "model-digests.json")
        text = POLICY.format(purpose=PURPOSE, digest=digest, path=self.model_dir)
        firm = str(self.ledger.mode == "compliance").lower()
        return f"compliance_retention = {firm}\n{text}"

    def share(self, silo: str, *, shares: bool = True) -> None:
        """What the silo's policy says from now on about its adapter by itself."""
        path = self.silos[silo].home / "policy.toml"
        lines = [each for each in path.read_text().splitlines() if "share_individual" not in each]
        setting = f"share_individual_delta = {str(shares).lower()}"
        write_durably(path, "\n".join([setting, *lines, ""]).encode())

    def found(self) -> None:
        """Sign the first membership with all silos added so far."""
        now = self.clock.now()
        membership = seal(
            Membership(
                federation=FEDERATION,
                issued_at=now,
                number=1,
                previous_digest=None,
                expires_at=now + MEMBERSHIP_VALIDITY,
                root_keys=(self.root.public_key_hex,),
                root_threshold=1,
                coordinator_key=self.key.public_key_hex,
                coordinator_recipient=self.recipient(self.settings.path(COORDINATOR_IDENTITY)),
                silos=tuple(self.member(silo) for silo in self.silos),
            ),
            self.root,
        )
        write_record(self.plans, membership_slot(1), membership)
        self.membership = membership
        self.memberships = [membership]

    def member(self, silo: str) -> Member:
        """As a membership names a silo now."""
        own = self.silos[silo]
        recipient = self.recipient(own.identity)
        return Member(silo=silo, public_key=own.key.public_key_hex, recipient=recipient)

    def recipient(self, path: Path) -> str | None:
        """Of the identity in `path`, made where there is none; None in a federation without."""
        return None if self.encryption is None else ensure_identity(path).recipient

    def change(self, **fields: Any) -> Verified[Membership]:
        """Sign and store the next membership, which begins after the newest entry of the feed."""
        head = self.coordinator().feed.refresh().head
        return self.change_after(head, **fields)

    def change_after(self, head: FeedPosition, **fields: Any) -> Verified[Membership]:
        """As `change`, from an entry of the feed on that the signers name."""
        current = self.memberships[-1]
        place = {
            "number": current.record.number + 1,
            "previous_digest": current.digest,
            "earlier": earlier_after(current),
            "issued_at": self.clock.now(),
            "after_feed_number": head.number,
            "after_feed_digest": head.digest,
            "revoked": (*current.record.revoked, *fields.pop("revokes", ())),
        }
        record = Membership.model_validate({**dict(current.record), **place, **fields})
        membership = seal(record, self.root)
        write_record(self.plans, membership_slot(record.number), membership)
        self.memberships.append(membership)
        return membership

    def new_coordinator_key(self, *, keep_old: bool = True) -> SigningKey:
        """A key for the next membership; the coordinator has it from now on."""
        self.earlier_keys = (self.key, *self.earlier_keys) if keep_old else ()
        name = f"coordinator-{len(self.memberships)}.pem"
        self.key = create_key(self.directory / "keys" / name)
        return self.key

    def replace_key(self, silo: str, **fields: Any) -> None:
        """Sign the next membership with a new key for `silo`."""
        current = self.memberships[-1]
        new = create_key(
            self.silos[silo].home / "keys" / f"signing-key-{len(self.memberships)}.pem"
        )
        self.silos[silo].key = new
        members = tuple(
            m.model_copy(update={"public_key": new.public_key_hex}) if m.silo == silo else m
            for m in current.record.silos
        )
        self.change(silos=members, **fields)

    def coordinator(self, key: SigningKey | None = None) -> Coordinator:
        """A fresh coordinator, as after a restart."""
        return Coordinator(
            settings=self.settings,
            keys=(key,) if key else (self.key, *self.earlier_keys),
            feed=FeedReader(
                self.settings.home / FEED_DIRECTORY, self.plans, self.pinned, finishes_claims=True
            ),
            plans=self.plans,
            ledger=self.bucket(ledger_bucket(FEDERATION)),
            inbox=self.inbox,
            clock=self.clock,
            identities=load_identities(self.settings.path(COORDINATOR_IDENTITY)),
        )

    def look(self, plan: Verified[RoundPlan]) -> Look:
        """An attempt as a fresh coordinator reads it now."""
        return look(self.coordinator(), plan)

    @property
    def pinned(self) -> Verified[Membership]:
        """The membership that everybody was handed."""
        if self.membership is None:
            raise RuntimeError("call found() after adding the silos")
        return self.membership

    def open(self, round_number: int = 1) -> Verified[RoundPlan]:
        """The plan in force."""
        return open_round(self.coordinator(), round_number)

    def silos_act(self, times: int = 1) -> None:
        """Every silo takes so many steps, one after the other."""
        for _ in range(times):
            for silo in self.silos.values():
                silo.act(FEDERATION, self.pinned)

    def play(self, plan: Verified[RoundPlan]) -> list[Stage]:
        """Until the attempt is reported; returns the stages that the coordinator saw."""
        stages: list[Stage] = []
        for _ in range(MAX_STEPS):
            self.silos_act()
            stages.append(advance(self.coordinator(), plan))
            if stages[-1] is Stage.REPORTED:
                return stages
            self.clock.sleep(STEP_SECONDS)
        raise AssertionError(f"not reported after {MAX_STEPS} steps: {stages[-3:]}")

    def snapshot(self) -> dict[str, str]:
        """Digest of every object but statuses, by bucket and key."""
        return {
            f"{name}/{key}": digest_of_bytes(data)
            for name, bucket in self.storage.items()
            for key, data in bucket.objects.items()
            if not key.startswith("status/")
        }

    def _settings(self) -> FederationSettings:
        return FederationSettings(
            federation=FEDERATION,
            run=RUN,
            purpose=PURPOSE,
            storage=EncryptedStorageSection(
                endpoint_url="http://127.0.0.1:1", encryption=self.encryption
            ),
            prefect=PrefectSection(api_url="http://127.0.0.1:1/api"),
            base_model=BaseModelSection(name="tiny", licence=LICENCE, path=self.model_dir),
            recipe=RecipeSection(
                local_steps=self.steps,
                least_steps=self.least_steps,
                sequences_per_step=2,
                sequence_length=32,
                learning_rate=Decimal("0.001"),
            ),
            round=RoundSection(
                quorum=self.quorum, evaluation_quorum=2, submit_minutes=30, evaluate_minutes=30
            ),
            merge=self.merge,
            trust_mode="auditable" if self.masking is None else "confidential",
            masking=self.masking,
            privacy=self.privacy,
            adapter=self.adapter,
            silo_adapters=self.silo_adapters,
            ledger=self.ledger,
            copies=self.copies,
            home=self.directory / "operator",
        )
