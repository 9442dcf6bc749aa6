"""Storage credentials that change during a round on a real storage, without a stop."""

from pathlib import Path

import pytest

from aggregator.decisions.stage import Stage
from aggregator.federated_round import advance
from infra.disk.durable_files import write_durably
from infra.stack.credentials import renew_credential, revoke_replaced
from infra.stack.identities import coordinator_name, silo_name
from infra.stack.local_stack import RunningStorage
from infra.storage.credential_file import credential_file
from infra.storage.object_store import UnusableCredentialError
from infra.storage.s3_bucket import S3Bucket
from infra.storage.s3_client import S3Settings
from tests.aggregator.ledger_samples import SILOS
from tests.simulator.federation import FEDERATION, STEP_SECONDS
from tests.simulator.stored_federation import StoredFederation

pytestmark = [pytest.mark.long, pytest.mark.stack]


class Rotated(StoredFederation):
    """Coordinator and silos have their credentials in files, and `first` is what those said."""

    first: dict[str, S3Settings]

    def file_of(self, who: str) -> Path:
        return self.directory / "credentials" / f"{who or 'coordinator'}.toml"

    def kept(self, who: str, credential: S3Settings) -> S3Settings:
        self.write(who, credential)
        followed = credential_file(self.file_of(who))
        self.first = {**getattr(self, "first", {}), who: credential}
        return S3Settings(endpoint_url=self.service.endpoint_url, credential=followed)

    def write(self, who: str, credential: S3Settings) -> None:
        secret = credential.secret_key.get_secret_value()
        text = f'access_key = "{credential.access_key}"\nsecret_key = "{secret}"\n'
        write_durably(self.file_of(who), text.encode())

    def rotate(self, who: str) -> None:
        """A new credential in its file, and the old one refused."""
        name = silo_name(FEDERATION, who) if who else coordinator_name(FEDERATION)
        bucket = self.inbox(who).name if who else self.plans.name
        self.write(who, renew_credential(self.service, name, bucket))
        assert revoke_replaced(self.service, name, bucket)


def test_a_round_goes_on_while_every_credential_is_replaced_and_the_old_one_revoked(
    own_storage: RunningStorage, tmp_path: Path, tiny_model: Path
) -> None:
    federation = Rotated(tmp_path / "federation", tiny_model)
    federation.use(own_storage)
    for silo in SILOS:
        federation.add_silo(silo)
    federation.found()
    plan, c = federation.open(), federation.coordinator()
    stages: list[Stage] = []
    while Stage.REPORTED not in stages:
        federation.silos_act()
        stages.append(advance(c, plan))
        assert len(stages) < 60, stages
        if stages[-1] is not Stage.COLLECTING or len(stages) <= len(federation.first):
            federation.rotate(list(federation.first)[len(stages) % len(federation.first)])
        federation.clock.sleep(STEP_SECONDS)
    assert len(set(stages)) >= 4
    for who, credential in federation.first.items():
        bucket = federation.inbox(who).name if who else federation.plans.name
        with pytest.raises(UnusableCredentialError):
            S3Bucket(credential, bucket).list_keys("")
