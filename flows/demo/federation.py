"""Sets up the demo's federation the way its people would: operator here, three silos there.

Every step looks first whether it was done, so that an interrupted demo goes on.
"""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aggregator.coordinator import CONTRACTS_DIRECTORY
from aggregator.settings.federation import SETTINGS_NAME
from data_contracts.errors import FederationOperatorError
from flows.demo.base_model import MODEL_HUB_ID, MODEL_NAME
from flows.demo.institutions import CONTRACT_FILE, contract_bytes, write_institution
from flows.demo.layout import DemoPaths
from flows.demo.packages import BANK_WHEEL
from flows.demo.rights_holder import hand_over as give_registry
from flows.demo.rights_holder import write_registry
from flows.demo.scenario import Scenario
from flows.federation.admin import FederationTerms, Joining, add_silo, init_federation
from flows.federation.contract_signing import sign_on_both_sides
from infra.disk.durable_files import write_durably
from infra.disk.model_files import model_digest
from infra.disk.toml_text import toml_string
from infra.encryption.identities import load_identity
from infra.signing_keys import load_key
from infra.stack.seaweedfs import RunningStorage

FEDERATION = "demo"
RUN = "run-1"
PURPOSE = "Question answering over reference texts"
MODEL_LICENCE = "Apache-2.0"
HELDOUT_SEQUENCES = 6
IS_SET_UP = "set-up-complete"

SILO_SETTINGS = """
[agent]
poll_seconds = 2
status_seconds = 2

[personal]
method = "dual"
every_round = false
"""

POLICY = """\
# What {silo} is willing to take part in. Anything else is refused with a signed record.
version = 1
take_part = true
purposes = [{purpose}]
trust_modes = ["auditable", "confidential"]
trust_storage_with_deltas = false # the federation encrypts adapters

[limits]
max_local_steps = 20
max_sequences_per_step = 8
max_sequence_length = 512
max_learning_rate = 0.005
max_rank = 16
max_adapter_bytes = 50_000_000
min_cohort_silos = 3
min_summed_silos = 4 # in confidential mode
max_retention_days = 400

[leak_check]
too_few = "allow" # its rounds are of a few records

[[models]]
name = {model}
licence = {licence}
digest = {digest}
path = {path}
"""


@dataclass(frozen=True)
class PrefectAccess:
    """Address of the Prefect API, and user:password."""

    api_url: str
    auth: str


def set_up_federation(
    paths: DemoPaths,
    scenario: Scenario,
    model_dir: Path,
    wheels: Mapping[str, Path],
    storage: RunningStorage,
    prefect: PrefectAccess,
) -> None:
    """Create the federation and its silos, or go on where that stopped."""
    write_durably(paths.home / "keys" / "prefect-auth", prefect.auth.encode())
    if not (paths.home / SETTINGS_NAME).exists():
        init_federation(
            paths.home,
            FederationTerms(
                federation=FEDERATION,
                run=RUN,
                purpose=PURPOSE,
                model_name=MODEL_NAME,
                model_licence=MODEL_LICENCE,
                model_path=model_dir,
                prefect_api_url=prefect.api_url,
                endpoint_url=storage.endpoint_url,
                model_hub_id=MODEL_HUB_ID,
            ),
            storage,
        )
    scenario.adapt(paths.home / SETTINGS_NAME)
    write_registry(FEDERATION, wheels[BANK_WHEEL.name], paths.rights_holder)
    digest = model_digest(model_dir, paths.home / "model-digests.json")
    for silo in scenario.institutions:
        if not (paths.silo(silo) / IS_SET_UP).exists():
            _set_up_silo(paths, silo, model_dir, digest, wheels, storage)


def _set_up_silo(
    paths: DemoPaths,
    silo: str,
    model_dir: Path,
    digest: str,
    wheels: Mapping[str, Path],
    storage: RunningStorage,
) -> None:
    """The silo's operator makes keys and policy, the federation's operator adds the silo."""
    home = paths.silo(silo)
    if not (home / "silo-agent.toml").exists():
        _run_silo_agent_init(home, silo, storage.endpoint_url)
    _adapt_to_one_machine(paths, home)
    write_institution(silo, wheels, home)
    policy = POLICY.format(
        silo=silo,
        purpose=toml_string(PURPOSE),
        model=toml_string(MODEL_NAME),
        licence=toml_string(MODEL_LICENCE),
        digest=toml_string(digest),
        path=toml_string(model_dir),
    )
    write_durably(home / "policy.toml", policy.encode())
    contract = paths.home / "agreed-contracts" / f"{silo}.yaml"
    write_durably(contract, contract_bytes(silo))
    public_key = load_key(home / "keys" / "signing-key.pem").public_key_hex
    recipient = load_identity(home / "keys" / "identity.txt").recipient
    name = silo.replace("-", " ").title()
    joining = Joining(silo, public_key, contract, name, recipient=recipient)
    hand_over, _ = add_silo(paths.home, joining, storage)
    credentials = (hand_over / "storage-credentials.toml").read_bytes()
    write_durably(home / "keys" / "storage-credentials.toml", credentials)
    write_durably(home / "membership.json", (hand_over / "membership.json").read_bytes())
    give_registry(paths.rights_holder, home / "registries")
    filed = paths.home / CONTRACTS_DIRECTORY / f"{silo}.yaml"
    sign_on_both_sides(home / CONTRACT_FILE, home, filed, paths.home, silo)
    write_durably(home / IS_SET_UP, b"")


def _run_silo_agent_init(home: Path, silo: str, endpoint_url: str) -> None:
    command = [sys.executable, "-m", "silo_agent.cli", "init", "--home", str(home)]
    command += ["--silo", silo, "--federation", FEDERATION, "--endpoint-url", endpoint_url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FederationOperatorError(
            f"silo-agent init for {silo}",
            expected="exit code 0",
            found=(done.stderr or done.stdout).strip()[-300:],
            action="correct what the message names and run the demo again",
        )


def _adapt_to_one_machine(paths: DemoPaths, home: Path) -> None:
    """Agents of one machine take turns to train; short polling makes the demo quick."""
    file = home / "silo-agent.toml"
    text = file.read_text(encoding="utf-8")
    if SILO_SETTINGS in text:
        return
    lock = f"lock = {toml_string(paths.home / 'training.lock')}\n"
    text = text.replace("heldout_sequences = 32", f"heldout_sequences = {HELDOUT_SEQUENCES}")
    write_durably(file, (text + lock + SILO_SETTINGS).encode())
