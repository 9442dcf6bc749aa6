"""YAML that would mean two things, or grow when it is read, is refused."""

import time

import pytest

from data_contracts.dataset.contract.strict_yaml import (
    MAX_VALUES,
    MAX_YAML_BYTES,
    YamlRefusedError,
    load_yaml,
)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a: &x [1, 2]\nb: [*x, *x]\n", "line 1: expected every value written out"),
        (b"a: 1\nb: 2\na: 3\n", "line 3: expected each key once; found 'a' a second time"),
        (b"a: {b: 1, b: 2}\n", "line 1: expected each key once"),
        (b"1: x\n", "expected a key that is text"),
        (b"a: !!python/object:os.system x\n", "expected values without a tag"),
        (b"a: !!binary aGk=\n", "expected values without a tag"),
        (b"a: 1\n---\nb: 2\n", "expected YAML"),
        (b"a: [1\n", "expected YAML"),
        (b"a: \xff\n", "expected UTF-8 text"),
        (b"a: \x00\n", "expected YAML"),
        (b"- x\n" * (MAX_VALUES + 1), f"expected at most {MAX_VALUES} keys and values"),
        (b"#" * (MAX_YAML_BYTES + 1), f"expected at most {MAX_YAML_BYTES} bytes"),
    ],
)
def test_refused(data: bytes, expected: str) -> None:
    with pytest.raises(YamlRefusedError, match=expected):
        load_yaml(data)


@pytest.mark.parametrize("data", [b"[" * 200_000, b"a: " + b"{b: " * 50_000, b"- " * 100_000])
def test_deep_nesting_is_refused_quickly(data: bytes) -> None:
    started = time.monotonic()
    with pytest.raises(YamlRefusedError, match="nesting of at most 24"):
        load_yaml(data)
    assert time.monotonic() - started < 5


def test_alias_bomb_is_refused_before_it_grows() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    with pytest.raises(YamlRefusedError, match="anchor or alias"):
        load_yaml("\n".join(lines).encode())


def test_only_plain_values_are_more_than_text() -> None:
    data = b"{a: no, b: 010, c: 1:30, d: 2030-01-01, e: 7, f: 0.5, g: true, h: null, i: '7'}"
    assert load_yaml(data) == {
        "a": "no",
        "b": "010",
        "c": "1:30",
        "d": "2030-01-01",
        "e": 7,
        "f": 0.5,
        "g": True,
        "h": None,
        "i": "7",
    }
