"""Nothing of the agent signs or writes to storage but the release, read from the code itself."""

import ast
from pathlib import Path

import silo_agent

PACKAGE = Path(silo_agent.__file__).parent
SIGNING = {"seal"}
WRITING = {"write_record", "put_blob", "put_once"}
BUCKET_WRITES = {"put", "put_blob", "put_once", "delete"}


def called(module: Path) -> set[str]:
    """Names of the functions that a module calls, and `_inbox.<method>` for those of the inbox."""
    calls = [n.func for n in ast.walk(ast.parse(module.read_text())) if isinstance(n, ast.Call)]
    plain = {func.id for func in calls if isinstance(func, ast.Name)}
    methods = [func for func in calls if isinstance(func, ast.Attribute)]
    buckets = {
        f"{held}.{func.attr}"
        for func in methods
        if (held := ast.unparse(func.value).split(".")[-1]) in {"inbox", "_inbox", "plans"}
    }
    return plain | buckets | {func.attr for func in methods if func.attr in WRITING}


def callers(names: set[str]) -> set[str]:
    """Modules of the agent that call any of these."""
    modules = PACKAGE.rglob("*.py")
    return {m.relative_to(PACKAGE).as_posix() for m in modules if called(m) & names}


def test_only_the_outbox_signs() -> None:
    assert callers(SIGNING) == {"release/outbox.py"}


def test_only_the_release_writes_to_storage() -> None:
    buckets = {f"{b}.{write}" for b in ("inbox", "_inbox", "plans") for write in BUCKET_WRITES}
    assert callers(WRITING | buckets) == {"release/release.py"}
