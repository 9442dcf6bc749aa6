"""The addresses of an embedded stack in a federation's settings: written at first, mended later."""

import re
from pathlib import Path

from aggregator.settings.federation import SETTINGS_NAME, load_settings
from data_contracts.errors import FederationOperatorError
from infra.disk.durable_files import write_durably
from infra.disk.toml_text import toml_string
from infra.stack.attached_storage import attach_prefect, attach_storage


def use_stack(home: Path, state: Path) -> list[str]:
    """Point the settings under `home` at the running stack of `state`; returns what they say now.

    Only the three addresses change; comments and everything else stay. Raises ConsortiaError when
    the stack does not run, or when the settings do not have one line for each.
    """
    load_settings(home)
    storage, prefect = attach_storage(state), attach_prefect(state)
    path = home / SETTINGS_NAME
    text = path.read_text(encoding="utf-8")
    values: dict[str, str | Path] = {
        "endpoint_url": storage.endpoint_url,
        "api_url": prefect.api_url,
        "auth": prefect.auth,
    }
    for name, value in values.items():
        text = with_setting(path, text, name, value)
    write_durably(path, text.encode())
    return [
        f"{path.resolve()} now says:",
        *(f"  {n} = {toml_string(v)}" for n, v in values.items()),
    ]


def with_setting(path: Path, text: str, name: str, value: str | Path) -> str:
    """`text` of the settings at `path` with one string replaced; raises FederationOperatorError
    unless there is one line for it."""
    line = f"{name} = {toml_string(value)}"
    changed, count = re.subn(rf'(?m)^{name} = "(?:[^"\\\n]|\\.)*"', lambda _: line, text)
    if count != 1:
        raise FederationOperatorError(
            f"setting {name} in {path}",
            expected=f'one line that begins with {name} = "',
            found=str(count),
            action=f"write {line} by hand",
        )
    return changed
