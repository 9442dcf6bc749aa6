"""The run that is planned next, in a federation's settings."""

from pathlib import Path

from aggregator.settings.federation import SETTINGS_NAME, load_settings
from flows.federation.stack_settings import with_setting
from infra.disk.durable_files import write_durably
from infra.disk.toml_text import toml_string


def go_on_with_run(home: Path, run: str) -> list[str]:
    """Set `run` in federation.toml and leave all else as it is; returns what it says now.

    Raises FederationOperatorError where the file has no line for it, which a person writes then.
    """
    path = home / SETTINGS_NAME
    if load_settings(home).run == run:
        return [f"{path.resolve()} says run = {toml_string(run)}"]
    text = with_setting(path, path.read_text(encoding="utf-8"), "run", run)
    write_durably(path, text.encode())
    return [f"{path.resolve()} now says run = {toml_string(run)}"]
