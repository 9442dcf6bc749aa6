"""The pages that people read: README, ARCHITECTURE, CHANGELOG and everything below docs/."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("aggregator", "data_contracts", "flows", "infra", "silo_agent")
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "data_contracts").glob("*.md")]
)

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`]+)`")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


def name_of(page: Path) -> str:
    """The page's path below the project's folder."""
    return page.relative_to(ROOT).as_posix()


def text_of(page: Path) -> str:
    """All that the page says."""
    return page.read_text(encoding="utf-8")


def fenced_lines(page: Path) -> list[str]:
    """Lines of the page's fenced blocks; one that ends in a backslash is joined to the next."""
    blocks = (found[2] for found in _FENCE.findall(text_of(page)))
    return [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def inline_code(page: Path) -> list[str]:
    """What stands between backticks outside of fenced blocks, on one line."""
    return [" ".join(code.split()) for code in _INLINE.findall(_FENCE.sub("", text_of(page)))]


def anchors(page: Path) -> set[str]:
    """What a link into the page may end in: its headings, as GitHub spells them."""
    headings = _HEADING.findall(_FENCE.sub("", text_of(page)))
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in kept}
