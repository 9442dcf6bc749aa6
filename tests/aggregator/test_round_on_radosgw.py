"""A whole round on Ceph's radosgw, with the rights that `consortia storage policy` prints."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from aggregator.upkeep.storage_check import check_storage
from data_contracts.errors import StorageError
from data_contracts.protocol.bucket_layout import inbox_bucket, plans_bucket
from infra.storage.policies import coordinator_policy, silo_policy
from infra.storage.probe import probe_inbox, require_promises
from infra.storage.s3_bucket import S3Bucket
from infra.storage.s3_client import S3Settings, connect
from tests.aggregator.ledger_samples import SILOS, reported
from tests.radosgw_server import RadosGateway, missing_programs, running_gateway
from tests.simulator.federation import FEDERATION
from tests.simulator.silo import SimulatedSilo
from tests.simulator.stored_federation import StoredFederation

MISSING = missing_programs()
pytestmark = [
    pytest.mark.campaign,
    pytest.mark.stack,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]
ARN = "arn:aws:s3:::"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RadosGateway]:
    with running_gateway(tmp_path_factory.mktemp("ceph")) as running:
        yield running


NEVER = ("s3:DeleteObject", "s3:DeleteObjectVersion", "s3:BypassGovernanceRetention")
LOCKS = ("s3:PutObjectRetention", "s3:PutObjectLegalHold")


def bucket_policy(bucket: str, rights: dict[str, str], *, denies: bool = True) -> str:
    """What each user's IAM policy allows in one bucket: Ceph 16 has policies of buckets only.

    And what it has to deny: to whoever wrote an object its ACL there allows everything else.
    """
    statements = [_denial(bucket, user) for user in rights if denies]
    for user, policy in rights.items():
        for statement in json.loads(policy)["Statement"]:
            places = [place.removeprefix(ARN).partition("/") for place in statement["Resource"]]
            resources = [
                f"{ARN}{bucket}{slash}{rest}"
                for name, slash, rest in places
                if fnmatch(bucket, name)
            ]
            principal = {"AWS": [f"arn:aws:iam:::user/{user}"]}
            if resources:
                statements.append(statement | {"Principal": principal, "Resource": resources})
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def _denial(bucket: str, user: str) -> dict[str, Any]:
    return {
        "Effect": "Deny",
        "Principal": {"AWS": [f"arn:aws:iam:::user/{user}"]},
        "Action": [*NEVER, *(() if user == "coordinator" else LOCKS)],
        "Resource": [f"{ARN}{bucket}/*"],
    }


@dataclass
class OnCeph(StoredFederation):
    """Each side is a user of radosgw; the buckets are an operator's."""

    rights: dict[str, str] = field(default_factory=dict)

    def join(self, gateway: RadosGateway) -> None:
        self.gateway, self.operator = gateway, gateway.add_user("operator")
        self.credentials = {"": gateway.add_user("coordinator")}
        self.rights["coordinator"] = coordinator_policy(FEDERATION)
        self._create(plans_bucket(FEDERATION))

    @property
    def admin(self) -> Any:
        return connect(self.operator, "")

    def enrolled(self, silo: str) -> S3Settings:
        credential = self.gateway.add_user(silo)
        self.rights[silo] = silo_policy(FEDERATION, silo)
        self._create(inbox_bucket(FEDERATION, silo), ObjectLockEnabledForBucket=True)
        return credential

    def _create(self, bucket: str, **options: bool) -> None:
        self.admin.create_bucket(Bucket=bucket, **options)
        for name in {bucket, plans_bucket(FEDERATION)}:
            self.admin.put_bucket_policy(Bucket=name, Policy=bucket_policy(name, self.rights))


@pytest.fixture
def federation(gateway: RadosGateway, tmp_path: Path, tiny_model: Path) -> OnCeph:
    made = OnCeph(tmp_path / "federation", tiny_model)
    made.join(gateway)
    for silo in SILOS:
        made.add_silo(silo)
    made.found()
    return made


def test_every_promise_holds_and_a_round_is_published_and_audited(federation: OnCeph) -> None:
    silos: list[SimulatedSilo] = list(federation.silos.values())
    for silo, other in zip(silos, [*silos[1:], silos[0]], strict=True):
        own = federation.inbox(silo.name)
        denied = S3Bucket(federation.credentials[silo.name], inbox_bucket(FEDERATION, other.name))
        require_promises(probe_inbox(own, federation.clock.now(), role=silo.name, denied=denied))
    check = check_storage(federation.coordinator())
    assert check.untried == {} and len(check.outcomes) == 1 + len(SILOS)
    for outcome in check.outcomes:
        require_promises(outcome)
    plan = federation.open()
    report = reported(federation, plan)
    assert report.outcome == "published"
    assert {silo.silo: silo.outcome for silo in report.silos} == dict.fromkeys(SILOS, "admitted")
    _without_denials_the_probe_names_what_a_silo_could_do(federation)


def _without_denials_the_probe_names_what_a_silo_could_do(federation: OnCeph) -> None:
    inbox, now = federation.inbox(SILOS[0]), federation.clock.now()
    policy = bucket_policy(inbox.name, federation.rights, denies=False)
    federation.admin.put_bucket_policy(Bucket=inbox.name, Policy=policy)
    with pytest.raises(StorageError, match="expected a silo locks nothing"):
        require_promises(probe_inbox(inbox, now, role=SILOS[0]))
