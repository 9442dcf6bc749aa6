"""The steward's page: one check as one HTML file that stays in the silo.

No script runs and nothing is fetched (the page says so to the browser in its content policy), every
text is escaped, and the same check gives the same bytes but for the time that it states. It names
rows and ids and no text of a record, and only its owner can read the file.
"""

import os
import sys
import webbrowser
from datetime import datetime
from functools import cache
from pathlib import Path

from jinja2 import Template

from infra.disk.durable_files import write_durably
from infra.page_templates import page_environment
from silo_agent.gate.steward_view import StewardView

TEMPLATE_NAME = "steward_page.html.j2"
PAGE_NAME = "steward.html"
SECONDS_PER_DAY = 86_400
DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")


def render_page(view: StewardView) -> bytes:
    """UTF-8 bytes of the page."""
    page = _template().render(
        view=view,
        contract=view.contract,
        expiry=expiry_words(view.contract.terms.expires, view.checked_at),
        failing=view.in_state("fails"),
        warning=view.in_state("warns"),
        holding=view.in_state("holds"),
    )
    return page.encode()


def write_page(view: StewardView, home: Path) -> Path:
    """The page as a file of mode 0600 in the silo's home; takes the place of an earlier one."""
    path = home / PAGE_NAME
    write_durably(path, render_page(view))
    return path


def open_in_browser(page: Path) -> bool:
    """Whether a browser was asked to show `page`; a machine without a screen is no fault."""
    # Without a screen Python would start a browser in the terminal and wait for its end.
    if sys.platform.startswith("linux") and not any(os.environ.get(name) for name in DISPLAYS):
        return False
    try:
        return webbrowser.open(page.as_uri())
    except (webbrowser.Error, OSError):
        return False


def expiry_words(expires: datetime, now: datetime) -> str:
    """When a contract ends, and how far away that is."""
    days, when = (expires - now).total_seconds() / SECONDS_PER_DAY, f"{expires:%Y-%m-%d %H:%M} UTC"
    if days <= 0:
        return f"expired on {when}"
    if days < 1:
        return f"{when}, in less than a day"
    return f"{when}, in {int(days):,} {'day' if int(days) == 1 else 'days'}"


@cache
def _template() -> Template:
    environment = page_environment(Path(__file__).parent)
    environment.filters["number"] = lambda number: f"{number:,}"
    return environment.get_template(TEMPLATE_NAME)
