"""What of a silo's home directory cannot be made again: kept in one file, and put back from it.

The outbox is not in it: a copy of it from earlier could hold what was withdrawn since. What this
silo has signed is read in storage after a restore (`silo_agent.home.catching_up`). The data is not
in it either; it is the institution's own.
"""

from datetime import datetime
from pathlib import Path

from data_contracts.dataset.contract.agreement import agreement_path
from data_contracts.errors import SiloOperatorError
from infra.backup.home_backup import Backup, Kept, back_up_home, files_below, kept_in
from infra.backup.home_restore import Home, Restored, is_empty, require_home, restore_home
from infra.backup.manifest import Manifest, Owner
from infra.encryption.identities import identity_files
from infra.records.kept_feed import MEMBERS_DIRECTORY, STATE_NAME, feed_files, higher_feed
from infra.signing_keys import load_key
from silo_agent.assembly import FEED
from silo_agent.compression.sent_adapter import STATE_DIRECTORY
from silo_agent.config import CONFIG_NAME, SiloConfig, load_config
from silo_agent.federation.marks import CLOCK_NAME, higher_clock
from silo_agent.gate.contract_gate import BASELINE_NAME
from silo_agent.loop import only_agent
from silo_agent.masking.opened_sums import OPENED_SUMS
from silo_agent.personal.kept import PERSONAL
from silo_agent.personal.own_factors import OWN_FACTORS
from silo_agent.privacy.ledger import (
    LEDGER_NAME,
    MARK_NAME,
    PRIVACY,
    higher_mark,
    longer_ledger,
)
from silo_agent.release.kill_switch import SWITCH_NAME


def back_up_silo(
    config: SiloConfig, out: Path, now: datetime, passphrase: str | None = None
) -> Backup:
    """Write a backup of the silo's home to the new file `out`; the agent may run meanwhile."""
    owner = Owner(config.federation, config.silo)
    return back_up_home(config.home, owner, lambda: kept_files(config), out, now, passphrase)


def restore_silo(file: Path, home: Path, now: datetime, passphrase: str | None = None) -> Restored:
    """Restore a silo's backup into `home`: missing, empty, or the home of that silo, whose agent
    does not run. Raises ConsortiaError, and has then written nothing."""
    if is_empty(home):
        return restore_home(file, _home(home, None), now, passphrase)
    require_home(home, CONFIG_NAME)
    config = load_config(home)
    with only_agent(config.home):
        owner = Owner(config.federation, config.silo)
        return restore_home(file, _home(config.home, owner), now, passphrase)


def kept_files(config: SiloConfig) -> Kept:
    """In reading order: what was seen, what was agreed, what rounds carry on, keys."""
    home, data, keys, storage = config.home, config.data, config.keys, config.storage
    signing, contract = config.path(keys.signing), config.path(data.contract)
    seen = [*feed_files(home / FEED), home / CLOCK_NAME, home / SWITCH_NAME, home / BASELINE_NAME]
    # The mark before the ledger, which may have grown by then. Secrets of noise are in no backup.
    seen += [home / MARK_NAME, home / PRIVACY / LEDGER_NAME]
    agreed = [config.path(config.trust.membership), contract, agreement_path(contract)]
    agreed += files_below(config.path(data.registries))
    agreed += [config.path(config.policy), home / CONFIG_NAME]
    carried = [*files_below(home / STATE_DIRECTORY, "*.json"), *files_below(home / STATE_DIRECTORY)]
    for own in (PERSONAL, OWN_FACTORS, OPENED_SUMS):
        carried += [*files_below(home / own, "*.json"), *files_below(home / own)]
    secret = [signing, *sorted(signing.parent.glob(f"{signing.stem}*{signing.suffix}"))]
    secret += identity_files(config.path(keys.identity))
    named = (keys.findings, storage.credentials, storage.ca_bundle, data.database)
    secret += [config.path(path) for path in named if path is not None]
    return kept_in(home, [*seen, *agreed, *carried, *secret])


def _home(directory: Path, owner: Owner | None) -> Home:
    feed = FEED.as_posix()
    return Home(
        directory=directory,
        role="silo",
        owner=owner,
        check=_check,
        higher={
            f"{feed}/{STATE_NAME}": higher_feed,
            CLOCK_NAME: higher_clock,
            MARK_NAME: higher_mark,
            f"{PRIVACY}/{LEDGER_NAME}": longer_ledger,
        },
        equal=(f"{feed}/{MEMBERS_DIRECTORY}/",),
        whole=(f"{STATE_DIRECTORY}/", f"{PERSONAL}/", f"{OWN_FACTORS}/"),
    )


def _check(unpacked: Path, manifest: Manifest) -> None:
    """That configuration and key, where they were in the home, are whole and of this silo."""
    if not (unpacked / CONFIG_NAME).exists():
        return
    config = load_config(unpacked)
    if (config.federation, config.silo) != (manifest.federation, manifest.silo):
        raise SiloOperatorError(
            f"{CONFIG_NAME} in the backup",
            expected=f"that of {manifest.silo} in {manifest.federation}, as its manifest says",
            found=f"that of {config.silo} in {config.federation}",
            action="take another backup; nothing was restored",
        )
    key = config.path(config.keys.signing)
    if key.is_relative_to(config.home):
        load_key(key)
