"""Jinja environments of what is written for people: every text is escaped, nothing is undefined."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def page_environment(
    folder: Path, *words: Callable[..., Any], finalize: Callable[[Any], Any] | None = None
) -> Environment:
    """An environment for the templates in `folder`; each of `words` is a filter of its name.

    `finalize` is applied to every value that a template shows, as where the text is no HTML.
    """
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {word.__name__: word for word in words}
    return environment
