"""What a silo operator does between `silo-agent init` and the first round, with exact paths."""

from data_contracts.dataset.contract.agreement import agreement_path
from data_contracts.protocol.dsse import fingerprint
from infra.encryption.identities import Identity
from infra.signing_keys import SigningKey
from infra.terminal import command_line
from silo_agent.config import CONFIG_NAME, SiloConfig
from silo_agent.first_day.contract_template import DATA_FILE

CHECKLIST_NAME = "NEXT-STEPS.md"


def check_command(config: SiloConfig) -> str:
    """Says what is there and what is missing."""
    return command_line("silo-agent", "check", "--home", config.home)


def run_command(config: SiloConfig) -> str:
    """Takes part in rounds."""
    return command_line("silo-agent", "run", "--home", config.home)


def lint_command(config: SiloConfig) -> str:
    """Reads the contract as the gate does."""
    return command_line("consortia", "contract", "lint", config.path(config.data.contract))


def sign_command(config: SiloConfig) -> str:
    """Signs the contract as the silo."""
    contract = config.path(config.data.contract)
    return command_line("consortia", "contract", "sign", contract, "--home", config.home)


def hand_over_command(config: SiloConfig) -> str:
    """Puts what the federation operator handed over where the agent looks for it."""
    return command_line("silo-agent", "accept", "HAND-OVER-FOLDER", "--home", config.home)


def checklist(config: SiloConfig, key: SigningKey, identity: Identity) -> str:
    """The text of `NEXT-STEPS.md`."""
    contract = config.path(config.data.contract)
    return _CHECKLIST.format(
        silo=config.silo,
        federation=config.federation,
        home=config.home,
        config=config.home / CONFIG_NAME,
        public_key=key.public_key_hex,
        recipient=identity.recipient,
        fingerprint=fingerprint(key.public_key_hex),
        data=config.path(config.data.root) / DATA_FILE,
        contract=contract,
        agreement=agreement_path(contract),
        policy=config.path(config.policy),
        membership=config.path(config.trust.membership),
        credentials=config.path(config.storage.credentials),
        lint=lint_command(config),
        accept=hand_over_command(config),
        sign=sign_command(config),
        check=check_command(config),
        run=run_command(config),
    )


_CHECKLIST = """\
# Next steps of {silo} in {federation}

In this order; what is there and what is missing is said at any time by

    {check}

- [ ] **Data.** Put your records into {data}, a JSON object a line with `id`, `subject`, `prompt`,
      `answer`, `licence` and `source`. docs/contracts.md is about databases, CSV and other formats.
- [ ] **Contract.** Read {contract}, put in what is yours and set `status: active`. In words:

          {lint}

- [ ] **To the federation operator**: the contract, this public key, whose fingerprint you compare
      by telephone, and this recipient, which adapters for you are encrypted to:

          public key   {public_key}
          fingerprint  {fingerprint}
          recipient    {recipient}

- [ ] **From the federation operator**: a folder with `membership.json`, `storage-credentials.toml`
      and `contract.agreement.json`. This puts them to {membership}, {credentials} and {agreement}
      (mode 0600), and shows the fingerprints to compare by telephone:

          {accept}

- [ ] **Second signature.** Sign the contract, then send {agreement} back to the operator:

          {sign}

- [ ] **Policy.** Read {policy}. Your own decision: `purposes`, the `[[models]]` on your disk (their
      digest is printed by `silo-agent check --model PATH`), the limits, and when all is read
      `take_part = true`. `trust_storage_with_deltas = true` is needed only where the federation
      does not encrypt adapters: then whoever runs the storage can read them. Rounds that train on
      fewer than 200 records are refused unless `too_few = "allow"` (docs/privacy.md).
- [ ] **Machine.** `device`, `ranks` and the rest of {config}.
- [ ] **Check and run.** The first command ends with exit code 0 when a round can be run:

          {check}
          {run}
"""
