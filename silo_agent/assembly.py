"""Puts an agent together from its home directory; the only place that knows all the parts."""

import os
from functools import partial
from pathlib import Path

from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.bucket_layout import inbox_bucket, plans_bucket
from data_contracts.protocol.trust_anchor import load_trust_anchor
from infra.clock import SystemClock
from infra.encryption.identities import load_identities
from infra.records.feed_reader import FeedReader
from infra.signing_keys import load_key
from infra.storage.config import s3_settings
from infra.storage.s3_bucket import S3Bucket
from silo_agent.config import SiloConfig, load_config
from silo_agent.gate.check_process import check_in_child
from silo_agent.gate.contract_gate import ContractGate
from silo_agent.metrics.chosen import chosen_metrics
from silo_agent.policy.in_force import InForce
from silo_agent.policy.policy_file import read_policy
from silo_agent.release.kill_switch import KillSwitch
from silo_agent.release.outbox import OUTBOX, Outbox
from silo_agent.release.release import Release
from silo_agent.silo import Silo
from silo_agent.training.processes.rank_memory import rank_memory
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
    child = partial(check_in_child, config.home, is_stopped=kill_switch.is_on)
    gate = ContractGate(config, clock, child)
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
            outbox=Outbox(config.home / OUTBOX, key),
            inbox=inbox,
            clock=clock,
            is_stopped=kill_switch.is_on,
            in_force=InForce(gate.terms, partial(read_policy, config.path(config.policy))),
        ),
        gate=gate,
        trainer=DeepSpeedTrainer(config, gate.splits, clock, kill_switch.is_on),
        clock=clock,
        is_stopped=kill_switch.is_on,
        identities=load_identities(config.path(config.keys.identity)),
        metrics=chosen_metrics(config, partial(rank_memory, os.getpid())),
    )


def own_inbox(config: SiloConfig) -> S3Bucket:
    """The bucket this silo writes; for checks that a person runs."""
    return S3Bucket(
        s3_settings(config.storage, config.home), inbox_bucket(config.federation, config.silo)
    )
