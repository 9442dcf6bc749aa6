"""Which versions of the program take part in a round, in a line: a mix is told, never silent."""

from collections.abc import Iterable


def versions_line(coordinator: str | None, silos: Iterable[tuple[str, str | None]]) -> str:
    """`coordinator` made the plan; a silo that has not said its version is left out."""
    known = [(silo, program) for silo, program in silos if program is not None]
    versions = {program for _, program in known} | ({coordinator} if coordinator else set())
    if len(versions) <= 1:
        return f"version {versions.pop()}" if versions else ""
    said = ", ".join(f"{silo} {program}" for silo, program in known)
    return f"versions differ: coordinator {coordinator or 'unknown'}, {said}; see docs/upgrade.md"
