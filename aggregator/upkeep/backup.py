"""What of the coordinator's home directory cannot be made again: in one file, and put back from it.

Root keys are not in it, wherever they lie: whoever has them says who is a member, and they are kept
apart from everything that is copied every night. What storage holds is not in it either.
"""

from datetime import datetime
from pathlib import Path

from aggregator.coordinator import (
    ATTEMPT_KEYS,
    CONTRACTS_DIRECTORY,
    COORDINATOR_IDENTITY,
    COORDINATOR_KEY,
    DESTROYED_KEYS,
    FEED_DIRECTORY,
    MEMBERSHIP_NAME,
    REPORTS_DIRECTORY,
    RUNNER_LOCK,
)
from aggregator.settings.federation import (
    SETTINGS_NAME,
    FederationSettings,
    load_settings,
)
from data_contracts.errors import FederationOperatorError
from infra.backup.home_backup import Backup, Kept, back_up_home, files_below, kept_in
from infra.backup.home_restore import Home, Restored, is_empty, require_home, restore_home
from infra.backup.manifest import Manifest, Owner
from infra.disk.file_lock import held_alone
from infra.encryption.identities import identity_files
from infra.records.kept_feed import MEMBERS_DIRECTORY, STATE_NAME, feed_files, higher_feed
from infra.signing_keys import load_key

DRAFTS = "membership-*.draft.json"


def back_up_coordinator(
    settings: FederationSettings, out: Path, now: datetime, passphrase: str | None = None
) -> Backup:
    """Write a backup of the coordinator's home to the new file `out`; rounds may run meanwhile."""
    owner = Owner(settings.federation)
    return back_up_home(settings.home, owner, lambda: kept_files(settings), out, now, passphrase)


def restore_coordinator(
    file: Path, home: Path, now: datetime, passphrase: str | None = None
) -> Restored:
    """Restore a coordinator's backup into `home`: missing, empty, or the home of that federation,
    whose runner does not run. Raises ConsortiaError, and has then written nothing."""
    if is_empty(home):
        return restore_home(file, _home(home, None), now, passphrase)
    require_home(home, SETTINGS_NAME)
    settings = load_settings(home)
    refusal = FederationOperatorError(
        f"runner in {home}",
        expected="none while its home directory is restored",
        found="one that runs",
        action="end `consortia deploy` first",
    )
    with held_alone(settings.home / RUNNER_LOCK, refusal):
        owner = Owner(settings.federation)
        return restore_home(file, _home(settings.home, owner), now, passphrase)


def kept_files(settings: FederationSettings) -> Kept:
    """In reading order: what was seen, what was agreed and reported, keys."""
    home, storage, prefect = settings.home, settings.storage, settings.prefect
    seen = [*feed_files(home / FEED_DIRECTORY), home / MEMBERSHIP_NAME, *sorted(home.glob(DRAFTS))]
    agreed = files_below(home / CONTRACTS_DIRECTORY)
    reported = files_below(home / REPORTS_DIRECTORY)
    first = home / COORDINATOR_KEY
    own = sorted(first.parent.glob(f"{first.stem}*{first.suffix}"))
    own += [*identity_files(home / COORDINATOR_IDENTITY), *files_below(home / ATTEMPT_KEYS)]
    own += files_below(home / DESTROYED_KEYS)
    named = (storage.credentials, storage.ca_bundle, prefect.auth, prefect.ca_bundle)
    secret = [*own, *(settings.path(path) for path in named if path is not None)]
    kept = kept_in(home, [*seen, *agreed, *reported, home / SETTINGS_NAME, *secret])
    others = sorted(set(first.parent.glob("*.pem")) - set(kept.paths))
    apart = (f"{path}: keep root keys apart and offline, in two places" for path in others)
    return Kept(kept.paths, (*kept.left_out, *apart))


def _home(directory: Path, owner: Owner | None) -> Home:
    feed = FEED_DIRECTORY.as_posix()
    return Home(
        directory=directory,
        role="coordinator",
        owner=owner,
        check=_check,
        higher={f"{feed}/{STATE_NAME}": higher_feed},
        equal=(f"{feed}/{MEMBERS_DIRECTORY}/",),
    )


def _check(unpacked: Path, manifest: Manifest) -> None:
    """That settings and keys, where they were in the home, are whole and of this federation."""
    if (unpacked / SETTINGS_NAME).exists():
        found = load_settings(unpacked).federation
        if found != manifest.federation:
            raise FederationOperatorError(
                f"{SETTINGS_NAME} in the backup",
                expected=f"that of {manifest.federation}, as its manifest says",
                found=f"that of {found}",
                action="take another backup; nothing was restored",
            )
    for key in sorted((unpacked / COORDINATOR_KEY).parent.glob("*.pem")):
        load_key(key)
