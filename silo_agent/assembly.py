"""Puts an agent together from its home directory; the only place that knows all the parts."""

from dataclasses import replace
from pathlib import Path

from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.bucket_layout import inbox_bucket, plans_bucket
from data_contracts.protocol.trust_anchor import load_trust_anchor
from infra.clock import SystemClock
from infra.records.feed_reader import FeedReader
from infra.signing_keys import load_key
from infra.storage.config import s3_settings
from infra.storage.s3_bucket import S3Bucket
from silo_agent.config import SiloConfig, load_config
from silo_agent.gate.contract_gate import ContractGate
from silo_agent.release.kill_switch import KillSwitch
from silo_agent.release.release import OUTBOX, Release
from silo_agent.silo import Silo
from silo_agent.training.trainer import DeepSpeedTrainer

FEED = Path("feed")


def assemble_silo(home: Path) -> Silo:
    """Parse the configuration, load keys, connect to storage; raises what has to be corrected."""
    config = load_config(home)
    clock = SystemClock()
    kill_switch = KillSwitch(config.home)
    storage = s3_settings(config.storage, config.home)
    inbox = S3Bucket(storage, inbox_bucket(config.federation, config.silo))
    plans = S3Bucket(storage, plans_bucket(config.federation))
    key = load_key(config.path(config.keys.signing))
    gate = replace(contract_gate(config), in_child=True, is_stopped=kill_switch.is_on)
    return Silo(
        config=config,
        feed=FeedReader(
            config.home / FEED,
            plans,
            load_trust_anchor(config.path(config.trust.membership)),
            owner_error=SiloOperatorError,
        ),
        plans=plans,
        release=Release(
            directory=config.home / OUTBOX,
            inbox=inbox,
            key=key,
            clock=clock,
            is_stopped=kill_switch.is_on,
        ),
        gate=gate,
        trainer=DeepSpeedTrainer(config, gate.splits, clock, kill_switch.is_on),
        clock=clock,
        is_stopped=kill_switch.is_on,
    )


def contract_gate(config: SiloConfig) -> ContractGate:
    """The data gate alone, which needs no storage."""
    key = load_key(config.path(config.keys.signing))
    return ContractGate(config, key.public_key_hex, SystemClock())


def own_inbox(config: SiloConfig) -> S3Bucket:
    """The bucket this silo writes; for checks that a person runs."""
    return S3Bucket(
        s3_settings(config.storage, config.home), inbox_bucket(config.federation, config.silo)
    )
