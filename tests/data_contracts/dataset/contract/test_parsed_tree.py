"""No contract, however its tree is shaped, ends in anything but a contract or a refusal.

Hypothesis takes a good contract and puts other values in the places of some of its nodes. `run` is
the same as a campaign of any length.
"""

import copy
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from data_contracts.dataset.contract import DataContract, parse_contract
from data_contracts.dataset.contract.difference import difference
from data_contracts.dataset.contract.document import UNREADABLE, read_document
from data_contracts.dataset.contract.refused_key import KeyRefusedError
from data_contracts.dataset.contract.strict_yaml import load_yaml
from data_contracts.dataset.contract.summary import summary
from data_contracts.errors import DataStewardError
from silo_agent.policy.contract_terms import ContractTerms
from tests.data_contracts.dataset.contract_samples import CONTRACT, replaced

EXAMPLES = Path(__file__).parents[4] / "docs" / "contracts"
FIXED_CASES = 40
SEED = 16
DIGEST = "0" * 64

BASES: list[Any] = [
    load_yaml(CONTRACT.encode()),
    *(load_yaml(path.read_bytes()) for path in sorted(EXAMPLES.glob("*.yaml"))),
]
GOOD = read_document(BASES[0], DIGEST)

Path_ = tuple[str | int, ...]


def places(node: Any, path: Path_ = ()) -> list[Path_]:
    """Every node of a tree."""
    found = [path]
    members: Any = enumerate(node) if isinstance(node, list) else ()
    for key, member in node.items() if isinstance(node, dict) else members:
        found += places(member, (*path, key))
    return found


def node_at(tree: Any, path: Path_) -> Any:
    for key in path:
        tree = tree[key]
    return tree


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.sampled_from([10**400, 2**53, -1, 0, 1, 10]),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        ["iban", "fl.licences", "", " ", "\u2028", "a\x0bb", "MIT", "\ud800", "true", "no"]
    ),
    st.dates(),
    st.sampled_from(
        [datetime(2030, 1, 1, tzinfo=UTC), Decimal("NaN"), b"x", date.max, (), {1}, 1j]
    ),
)
KEYS = st.sampled_from(
    ["name", "property", "value", "type", "id", "kinds", "column", "kwargs", "x", "fl.x", "purpose"]
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(KEYS | st.text(max_size=4), inner, max_size=3),
        st.dictionaries(st.integers() | st.none(), inner, max_size=2),
        inner.map(lambda value: [value]),
    ),
    max_leaves=6,
)


@st.composite
def documents(draw: st.DrawFn) -> Any:
    """A good document with one to three of its nodes replaced, wrapped, moved, doubled or gone."""
    tree = copy.deepcopy(draw(st.sampled_from(BASES)))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(tree)))
        if not path:
            return draw(VALUES) if draw(st.booleans()) else [tree]
        parent, key = node_at(tree, path[:-1]), path[-1]
        match draw(st.sampled_from(["value", "value", "wrap", "nest", "other", "gone", "key"])):
            case "value":
                parent[key] = draw(VALUES)
            case "wrap":
                parent[key] = [parent[key]]
            case "nest":
                parent[key] = {draw(KEYS): parent[key]}
            case "other":
                parent[key] = copy.deepcopy(node_at(tree, draw(st.sampled_from(places(tree)))))
            case "gone":
                del parent[key]
            case "key" if isinstance(parent, dict):
                parent[draw(KEYS | st.text(max_size=4) | st.integers())] = draw(VALUES)
    return tree


def judge(document: Any) -> None:
    """Read `document` as a tree and, where JSON can write it, as the bytes of a file."""
    try:
        contract = read_document(document, DIGEST)
    except (KeyRefusedError, ValidationError):
        contract = None
    if contract is not None:
        used(contract)
    try:
        data = json.dumps(document, allow_nan=False).encode()
    except (TypeError, ValueError):
        return
    try:
        used(parse_contract(data, "fuzzed.yaml"))
    except DataStewardError as error:
        assert error.expected != UNREADABLE, error


def used(contract: DataContract) -> None:
    """What lint, diff and the agent's policy do with a contract."""
    assert summary(contract)
    difference(GOOD, contract)
    ContractTerms.of(contract)


def run(cases: int, seed: int) -> int:
    """Try `cases` documents that follow from `seed`; returns how many were tried. Raises what a
    document raised that is no refusal, with that document made small."""
    tried = 0

    @hypothesis.seed(seed)
    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(documents())
    def campaign(document: Any) -> None:
        nonlocal tried
        tried += 1
        judge(document)

    campaign()
    return tried


def test_a_fixed_slice_of_shapes() -> None:
    assert run(FIXED_CASES, SEED) >= FIXED_CASES


@pytest.mark.parametrize(
    ("term", "value"),
    [
        ("fl.personalData", "{kinds: [[iban]]}"),
        ("fl.personalData", "{kinds: [{a: b}]}"),
        ("fl.personalData", "[[[]]]"),
        ("fl.optOut", "[iban]"),
        ("fl.egress", "{allow: [[status]]}"),
        ("fl.uses", "[[research]]"),
        ("fl.duplicates", "null"),
        ("fl.images", "{registry: [x]}"),
    ],
)
def test_lists_and_objects_in_places_of_values(term: str, value: str) -> None:
    text = CONTRACT.replace("fl.duplicates", "fl.drift") if term == "fl.duplicates" else CONTRACT
    text = f"{text}  - {{property: {term}, value: {value}}}\n"
    with pytest.raises(DataStewardError) as caught:
        parse_contract(text.encode(), "c.yaml")
    assert caught.value.expected != UNREADABLE


@pytest.mark.parametrize("odd", ["\u2028", "\u2029", "\u0085", "\r"])
def test_only_a_newline_makes_a_second_purpose(odd: str) -> None:
    text = replaced(("    Summaries\n", f"    Summaries{odd}    Marketing\n"))
    with pytest.raises(DataStewardError, match="line 8: expected lines that end with a newline"):
        parse_contract(text.encode(), "c.yaml")


@pytest.mark.parametrize("odd", ["\\v", "\\f", "\\N", "\\L", "\\P", "\\r", "\\x1c", "\\u202e"])
@pytest.mark.parametrize("place", ["purpose", "name"])
def test_nor_does_one_that_is_written_as_an_escape(place: str, odd: str) -> None:
    old = "  purpose: |\n    Question answering\n    Summaries\n"
    text = replaced((old, f'  purpose: "Summaries{odd}Marketing"\n'))
    if place == "name":
        text = replaced(("id: sample", f'id: sample\nname: "x{odd}y"'))
    with pytest.raises(DataStewardError, match="expected text that people see as it is"):
        parse_contract(text.encode(), "c.yaml")


def test_purposes_of_windows_lines_are_the_same() -> None:
    assert parse_contract(CONTRACT.replace("\n", "\r\n").encode(), "c").purposes == GOOD.purposes


@pytest.mark.parametrize("text", [CONTRACT, replaced(("fl.expires", "fl.expiry"))])
def test_the_same_bytes_are_read_once_whether_they_are_a_contract_or_not(text: str) -> None:
    from data_contracts.dataset.contract import document

    document._remembered.cache_clear()
    said = []
    for name in ("one.yaml", "two.yaml", "one.yaml"):
        try:
            said.append(parse_contract(text.encode(), name).digest)
        except DataStewardError as error:
            assert name in str(error)
            said.append(error.found)
    assert len(set(said)) == 1
    assert document._remembered.cache_info().misses == 1
