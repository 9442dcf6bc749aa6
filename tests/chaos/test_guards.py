"""A guard of each kind is found, acts, and can be deleted by itself."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from tests.chaos import __main__ as chaos
from tests.chaos import adapters, records
from tests.chaos.guards import instrumented
from tests.chaos.redundant import NO_GUARDS, REDUNDANT
from tests.chaos.rooms import ROOT, guarded_files
from tests.chaos.switchboard import BOARD

SOURCE = '''
"""A module with one guard of each kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated

from pydantic import AfterValidator, Field

LIMIT = 2


def refuses(a, b):
    if a or not 0 <= b <= 9:
        raise ValueError("refused")
    return "through"


def holds(a, b) -> bool:
    return a and b < 9


def filtered(values):
    return [value for value in values if value > 0 and value < 9]


def chosen(a):
    return None if a else "x.refused"


def _wrong(a):
    return "x.wrong" if a else None


RULES: tuple[Callable, ...] = (_wrong,)
TABLE: tuple[tuple[str, Callable], ...] = (("x.small", lambda a: a and 0 < a),)


def ruled(a):
    return RULES[0](a)


def tabled(a):
    return TABLE[0][1](a)


def require_small(a):
    if a > 9:
        raise ValueError("too large")


def called(a):
    require_small(a)
    return "through"


def rows(a, b):
    pairs = (("first", a, 1), ("second", b, 2))
    return next((name for name, found, wanted in pairs if found != wanted), None)


def capped(a, b):
    return min(a, b)


def cut(values):
    return values[:LIMIT]


def verify(data, kind, keys):
    return data in keys


def signed(key, keys):
    return verify(key, None, keys)


def yields(a) -> Iterator[tuple[bool, str, int, str]]:
    yield a == 1, "one", a, "rule"


def _even(value):
    if value % 2:
        raise ValueError("odd")
    return value


Small = Annotated[int, Field(ge=0, le=8), AfterValidator(_even)]
Name = Annotated[str, Field(min_length=2, pattern="^[a-z]+$")]
'''


@pytest.fixture(autouse=True)
def board() -> Iterator[None]:
    BOARD.test = "this one"
    yield
    BOARD.test, BOARD.off = None, frozenset()
    BOARD.acted.clear()


def sample() -> dict[str, Any]:
    found: dict[str, Any] = {"__name__": "sample"}
    exec(compile(instrumented(SOURCE, "s.py").tree, "s.py", "exec"), found)  # noqa: S102
    return found


def outcome(action: Any, *arguments: Any) -> Any:
    try:
        return action(*arguments)
    except ValueError as error:
        return str(error)


CASES: list[tuple[str, str, tuple[Any, ...], Any, Any]] = [
    ("refuses::a", "refuses", (1, 5), "refused", "through"),
    ("refuses::not 0 <= b", "refuses", (0, -1), "refused", "through"),
    ("refuses::not b <= 9", "refuses", (0, 10), "refused", "through"),
    ("holds::a", "holds", (False, 5), False, True),
    ("holds::b < 9", "holds", (True, 9), False, True),
    ("filtered::value > 0", "filtered", ([0, 1],), [1], [0, 1]),
    ("filtered::value < 9", "filtered", ([9, 1],), [1], [9, 1]),
    ("chosen::a", "chosen", (False,), "x.refused", None),
    ("::_wrong", "ruled", (True,), "x.wrong", None),
    ("::a", "tabled", (0,), False, False),
    ("::0 < a", "tabled", (-1,), False, True),
    ("require_small::a > 9", "called", (10,), "too large", "through"),
    ("called::require_small(a)", "called", (10,), "too large", "through"),
    ("rows::('first', a, 1)", "rows", (0, 2), "first", None),
    ("rows::('second', b, 2)", "rows", (1, 0), "second", None),
    ("capped::a", "capped", (1, 2), 1, 2),
    ("capped::b", "capped", (2, 1), 1, 2),
    ("cut::values[:LIMIT]", "cut", ([1, 2, 3],), [1, 2], [1, 2, 3]),
]


@pytest.mark.parametrize(("guard", "function", "given", "kept", "deleted"), CASES)
def test_a_guard_refuses_until_it_is_deleted(
    guard: str, function: str, given: tuple[Any, ...], kept: Any, deleted: Any
) -> None:
    module, name = sample(), f"s.py::{guard}"
    assert outcome(module[function], *given) == kept
    assert name in BOARD.acted, sorted(BOARD.acted)
    BOARD.off = frozenset({name})
    assert outcome(module[function], *given) == deleted


def test_the_others_stay_where_one_is_deleted() -> None:
    module = sample()
    for guard, function, given, kept, _ in CASES:
        BOARD.off = frozenset({"s.py::of another name"})
        assert outcome(module[function], *given) == kept, guard


def test_keys_are_those_that_were_trusted_for_anything() -> None:
    module = sample()
    assert module["signed"]("old", {"old"})
    assert not module["signed"]("old", {"new"})
    assert not module["signed"]("unknown", {"new"})
    BOARD.off = frozenset({"s.py::signed::keys"})
    assert module["signed"]("old", {"new"})
    assert not module["signed"]("unknown", {"new"})


def test_what_is_yielded_with_its_words_holds_where_it_is_deleted() -> None:
    module = sample()
    assert [holds for holds, *_ in module["yields"](2)] == [False]
    BOARD.off = frozenset({"s.py::yields::a == 1"})
    assert [holds for holds, *_ in module["yields"](2)] == [True]


@pytest.mark.parametrize(
    ("guard", "field", "value"),
    [
        ("Small::ge=0", "number", -2),
        ("Small::le=8", "number", 10),
        ("Small::_even", "number", 3),
        ("Name::min_length=2", "name", "a"),
        ("Name::pattern='^[a-z]+$'", "name", "AB"),
        ("Name::pattern='^[a-z]+$'", "name", "ab\n"),
    ],
)
def test_a_bound_of_a_field_can_be_deleted(guard: str, field: str, value: Any) -> None:
    module = sample()
    model = type(
        "Model",
        (BaseModel,),
        {
            "__annotations__": {"number": module["Small"], "name": module["Name"]},
            "__module__": __name__,
        },
    )
    right = {"number": 2, "name": "ab"}
    assert model(**right)
    with pytest.raises(ValidationError):
        model(**right | {field: value})
    BOARD.off = frozenset({f"s.py::{guard}"})
    assert getattr(model(**right | {field: value}), field) == value


def test_every_guarded_file_compiles_and_no_two_guards_have_one_name() -> None:
    names = []
    for path in guarded_files():
        found = instrumented((ROOT / path).read_text(), path)
        compile(found.tree, path, "exec")
        names += [guard.name for guard in found.guards]
    assert len(set(names)) == len(names)
    assert set(guarded_files().values()) == {
        *("envelope", "gate", "admission", "policy", "marks", "release", "doors", "egress", "feed"),
        "masks",
    }


def test_every_row_of_the_table_of_redundant_guards_is_about_guards() -> None:
    names = {
        guard.name
        for path in guarded_files()
        for guard in instrumented((ROOT / path).read_text(), path).guards
    }
    assert NO_GUARDS.keys() <= names
    for name, row in REDUNDANT.items():
        assert {name, *row.others} <= names, name
        assert row.others and row.reason


def test_outcomes_are_sorted_out() -> None:
    groups: chaos.Groups = [("a",), ("b",), ("c",), ("d",), ("a", "b"), ("c", "d"), ("d", "c")]
    caught = dict.fromkeys([("a",), ("a", "b"), ("c", "d")], "test_x")
    found = chaos.sorted_out(groups, caught, ["test_y"])
    assert (found.caught, found.redundant, found.unnoticed) == (("a",), ("c",), ("b", "d"))
    assert (found.stale, found.failed, found.deleted) == (("a",), ("test_y",), 4)


def test_a_few_mutated_adapters() -> None:
    counts = adapters.run(1500, seed=1)
    assert counts.cases == 1500
    assert counts.accepted > 50 and len(counts.refused) >= 12, counts


def test_a_few_mutated_records() -> None:
    counts = records.run(1000, seed=1)
    assert counts.cases == 1000
    assert counts.accepted > 10 and len(counts.refused) >= 8, counts
