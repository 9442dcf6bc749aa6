"""What the demo says on the way, on a console that takes nothing for markup."""

from io import StringIO

import pytest
from rich.console import Console

from flows.demo.driver import demo_step


@pytest.mark.parametrize("what", ["agents of north", "a path with [brackets] and [/]", "x" * 200])
def test_a_step_is_one_line_of_plain_words(what: str) -> None:
    console = Console(file=StringIO(), width=40, markup=False, emoji=False)
    with demo_step(console, what):
        pass
    assert isinstance(console.file, StringIO)
    (line,) = console.file.getvalue().splitlines()
    assert line.startswith(f"ok {what} ")
    assert line.endswith(" s")
