"""The home directory of a new silo: keys, configuration, policy, contract and what to do next.

Nothing that exists is written over. The policy refuses everything and the contract is a draft until
a person has read and edited them. The configuration comes last, so that it says that all is there.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path

from data_contracts.errors import SiloOperatorError
from infra.clock import SystemClock
from infra.disk.durable_files import write_durably
from infra.encryption.identities import Identity, ensure_identity
from infra.signing_keys import SigningKey, ensure_key
from silo_agent.config import (
    CONFIG_NAME,
    DataSection,
    KeysSection,
    SiloConfig,
    load_config,
    parse_config,
)
from silo_agent.first_day.contract_template import contract_text
from silo_agent.first_day.next_steps import CHECKLIST_NAME, checklist
from silo_agent.first_day.templates import LocalModel, config_text, policy_text


@dataclass(frozen=True)
class NewSilo:
    """What a silo operator says of a silo to be; `purpose` may be empty and `model` None."""

    silo: str
    federation: str
    endpoint_url: str
    purpose: str
    model: LocalModel | None
    device: str
    ranks: int
    allow_plain_http: bool = False


def create_home(home: Path, new: NewSilo) -> tuple[SiloConfig, SigningKey, Identity]:
    """Write everything; an init that was interrupted goes on. SiloOperatorError if there is one."""
    require_new(home)
    text = config_text(
        new.silo,
        new.federation,
        new.endpoint_url,
        new.device,
        new.ranks,
        allow_plain_http=new.allow_plain_http,
    )
    parse_config(text.encode(), home)
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    keys, data = KeysSection(), DataSection()
    key, identity = ensure_key(home / keys.signing), ensure_identity(home / keys.identity)
    (home / data.root).mkdir(exist_ok=True, mode=0o700)
    _write_new(home / keys.findings, secrets.token_bytes(32))
    _write_new(home / "policy.toml", policy_text(new.purpose, new.model).encode())
    contract = contract_text(new.federation, new.silo, new.purpose, SystemClock().now())
    _write_new(home / data.contract, contract.encode())
    write_durably(home / CONFIG_NAME, text.encode())
    config = load_config(home)
    _write_new(home / CHECKLIST_NAME, checklist(config, key, identity).encode())
    return config, key, identity


def require_new(home: Path) -> None:
    """Raise SiloOperatorError when `home` has a configuration already."""
    config = home / CONFIG_NAME
    if config.exists():
        raise SiloOperatorError(
            str(config),
            expected="no configuration yet",
            found="one",
            action="edit it, or choose another --home",
        )


def _write_new(path: Path, data: bytes) -> None:
    if not path.exists():
        write_durably(path, data)
