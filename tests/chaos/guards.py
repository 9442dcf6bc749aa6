"""What a guard is, and a source in which each of them can be switched off.

A guard is what stands between something wrong and its acceptance. Found in the syntax tree, and
each deleted by itself:

- `if`: a condition whose branch raises, continues, or returns a refusal (None, False, an empty
  value, a constant, a call). Each operand of an `or`, of a negated `and` and of a negated chain of
  comparisons is a guard of its own. Deleted: that operand never holds.
- `holds`: each operand of an `and` that a function returns as `bool`, that a rule of a table or a
  conditional expression rests on, that a comprehension filters by, or that is yielded with what is
  said where it does not hold. Deleted: that operand always holds.
- `rule`: an entry of a table of functions. Deleted: it objects to nothing.
- `call`: a call for its exception alone, by its name (`require_...`, `check_...`). Deleted.
- `row`: a row of a local table of what has to agree with what. Deleted.
- `cap`: an argument of `min`, and a slice up to a constant. Deleted.
- `keys`: the keys that `verify` is given. Deleted: whatever key this process trusts for anything.
- `constraint`: a bound in an annotation (`Field`, `StringConstraints`, `AfterValidator`). Deleted.

All switches are in one instrumented source (a mutant schema: Untch, Offutt and Harrold 1993), so
that a module is compiled once and no file is ever written.
"""

import ast
import re
from dataclasses import dataclass

BOARD = "__guard__"
_ASKING = re.compile(r"_?(require|check|checked|verify|compare)(_|$)")
_REFUSAL = re.compile("[A-Z]|_?(rejected|refuse)")
"""A value that is made, or the function that makes it."""
_CONSTRAINTS = frozenset({"Field", "StringConstraints"})
_BOUNDS = frozenset({"ge", "gt", "le", "lt", "min_length", "max_length", "pattern"})


@dataclass(frozen=True)
class Guard:
    """One guard: its file, line, kind, and a name that stays when lines move."""

    name: str
    path: str
    line: int
    kind: str


@dataclass(frozen=True)
class Instrumented:
    """The tree of a module with its switches, and the guards in it."""

    tree: ast.Module
    guards: tuple[Guard, ...]


def instrumented(source: str, path: str) -> Instrumented:
    """`source` with a switch at each guard; `path` goes into their names."""
    tree = ast.parse(source)
    switches = _Switches(path)
    tree = switches.visit(tree)
    board = ast.parse(f"from tests.chaos.switchboard import BOARD as {BOARD}").body
    tree.body[_first_statement(tree) : _first_statement(tree)] = board
    return Instrumented(ast.fix_missing_locations(tree), tuple(switches.guards))


def _first_statement(tree: ast.Module) -> int:
    """Behind the docstring and the imports from the future."""
    at = 1 if ast.get_docstring(tree) is not None else 0
    for node in tree.body[at:]:
        if not isinstance(node, ast.ImportFrom) or node.module != "__future__":
            break
        at += 1
    return at


class _Switches(ast.NodeTransformer):
    """Children first: what a condition holds inside has its switches when it gets its own."""

    def __init__(self, path: str) -> None:
        self.guards: list[Guard] = []
        self._path = path
        self._scope: list[str] = []
        self._returns_bool = self._in_function = False
        self._names: dict[str, int] = {}

    # Where we are

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self._scope.append(node.name)
        node.body = self._visited(node.body)
        self._scope.pop()
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        outer = self._returns_bool, self._in_function
        self._returns_bool, self._in_function = _says(node.returns, "bool"), True
        self._scope.append(node.name)
        node.body = self._visited(node.body)
        self._scope.pop()
        self._returns_bool, self._in_function = outer
        return node

    def _visited(self, body: list[ast.stmt]) -> list[ast.stmt]:
        return [self.visit(statement) for statement in body]

    # Statements

    def visit_If(self, node: ast.If) -> ast.AST:
        refuses, test = _refuses(node.body), node.test
        if refuses:
            node.test = self._refusing("if", test)
        else:
            node.test = self.visit(test)
        node.body, node.orelse = self._visited(node.body), self._visited(node.orelse)
        return node

    def visit_Return(self, node: ast.Return) -> ast.AST:
        if isinstance(node.value, ast.IfExp):
            node.value = self._chosen(node.value)
        elif self._returns_bool and isinstance(node.value, ast.BoolOp | ast.Compare):
            node.value = self._holding_if_several(node.value)
        else:
            self.generic_visit(node)
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        value = node.value
        if isinstance(value, ast.Yield) and isinstance(value.value, ast.Tuple):
            first, *rest = value.value.elts
            if self._returns_bool and isinstance(first, ast.Compare | ast.Name):
                value.value.elts = [self._holding(first), *map(self.visit, rest)]
                return node
        if isinstance(value, ast.Call) and _ASKING.match(_name_of(value.func)):
            switch = self._switch("call", value)
            self.generic_visit(value)
            node.value = _board("call", switch, _lambda(value))
            return node
        self.generic_visit(node)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if not self._scope and _says(node.annotation, "Callable", "Door", "Rule"):
            node.value = self._table(node.value)
            return node
        return self._named(node, node.target)

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        if self._scope and _is_table_of_rows(node.value):
            assert isinstance(node.value, ast.Tuple)
            rows = [self._switch("row", row) for row in node.value.elts]
            switches = ast.Tuple([ast.Constant(row) for row in rows], ast.Load())
            node.value = _board_of("rows", switches, node.value)
            return node
        return self._named(node, node.targets[0])

    def _named(self, node: ast.stmt, target: ast.expr) -> ast.AST:
        """What is assigned outside of functions is told apart by its name."""
        name = target.id if isinstance(target, ast.Name) and not self._in_function else ""
        self._scope += [name] if name else []
        self.generic_visit(node)
        del self._scope[len(self._scope) - bool(name) :]
        return node

    # Expressions

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        node.iter = self.visit(node.iter)
        node.ifs = [self._holding(test) for test in node.ifs]
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        name = _name_of(node.func)
        if name == "min" and len(node.args) > 1 and not node.keywords:
            switches = [self._switch("cap", argument) for argument in node.args]
            self.generic_visit(node)
            numbers = ast.Tuple([ast.Constant(switch) for switch in switches], ast.Load())
            return _board_of("smallest", numbers, ast.Tuple(node.args, ast.Load()))
        if name == "verify" and len(node.args) > 2:
            switch = self._switch("keys", node.args[2])
            self.generic_visit(node)
            node.args[2] = _board("keys", switch, node.args[2])
            return node
        if name in _CONSTRAINTS and any(k.arg in _BOUNDS for k in node.keywords):
            return self._bounded(node)
        if name == "AfterValidator" and isinstance(node.args[0], ast.Name):
            switch = self._switch("constraint", node.args[0])
            node.args[0] = _board("validator", switch, node.args[0])
            return node
        self.generic_visit(node)
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        cut = node.slice
        is_capped = isinstance(cut, ast.Slice) and cut.lower is None and cut.step is None
        if is_capped and isinstance(cut, ast.Slice) and _is_constant_name(cut.upper):
            switch = self._switch("cap", node)
            self.generic_visit(node)
            assert cut.upper is not None
            return _board("cut", switch, node.value, cut.upper)
        self.generic_visit(node)
        return node

    def _bounded(self, node: ast.Call) -> ast.AST:
        """`Field(ge=1, default=2)` becomes one switch for each bound; the rest stays."""
        bounds = [k for k in node.keywords if k.arg in _BOUNDS]
        if len(bounds) != len(node.keywords) - sum(k.arg == "allow_inf_nan" for k in node.keywords):
            return node
        pairs = []
        for bound in bounds:
            switch = self._switch(
                "constraint", bound.value, f"{bound.arg}={ast.unparse(bound.value)}"
            )
            pairs.append(
                ast.Tuple([ast.Constant(switch), ast.Constant(bound.arg), bound.value], ast.Load())
            )
        node.keywords = [k for k in node.keywords if k.arg == "allow_inf_nan"]
        return _board_of("bounded", ast.Tuple(list(pairs), ast.Load()))

    def _table(self, table: ast.expr | None) -> ast.expr | None:
        if isinstance(table, ast.Dict):
            table.values = [self._entry(value) for value in table.values]
        elif isinstance(table, ast.Tuple):
            table.elts = [self._entry(value) for value in table.elts]
        return table

    def _entry(self, entry: ast.expr) -> ast.expr:
        if isinstance(entry, ast.Tuple):
            entry.elts = [self._rule(e) if isinstance(e, ast.Lambda) else e for e in entry.elts]
            return entry
        if isinstance(entry, ast.Lambda) and isinstance(entry.body, ast.Constant):
            return entry
        return _board("rule", self._switch("rule", entry), entry)

    def _rule(self, rule: ast.Lambda) -> ast.Lambda:
        rule.body = self._holding(rule.body)
        return rule

    def _chosen(self, choice: ast.IfExp) -> ast.expr:
        """`refusal if wrong else None`, `None if right else refusal` and `None if gone else it`."""
        if _is_refusal(choice.body) or (_is_none(choice.body) and not _is_refusal(choice.orelse)):
            choice.test = self._refusing("if", choice.test)
        elif _is_refusal(choice.orelse) or _is_none(choice.orelse):
            choice.test = self._holding(choice.test)
        else:
            choice.test = self.visit(choice.test)
        choice.body, choice.orelse = self.visit(choice.body), self.visit(choice.orelse)
        return choice

    # Switches

    def _refusing(self, kind: str, test: ast.expr) -> ast.expr:
        """Each operand, and only where it is on: `(a and on(1)) or (b and on(2))`."""
        parts = []
        for operand in _disjuncts(test):
            switch = self._switch(kind, operand)
            seen = self.visit(operand)
            parts.append(ast.BoolOp(ast.And(), [seen, _board("fires", switch)]))
        return parts[0] if len(parts) == 1 else ast.BoolOp(ast.Or(), list(parts))

    def _holding(self, test: ast.expr) -> ast.expr:
        """Each operand, unless it is off: `(a or off(1)) and (b or off(2))`."""
        parts = []
        for operand in _conjuncts(test):
            switch = self._switch("holds", operand)
            seen = self.visit(operand)
            parts.append(ast.BoolOp(ast.Or(), [seen, _board("yields", switch)]))
        return parts[0] if len(parts) == 1 else ast.BoolOp(ast.And(), list(parts))

    def _holding_if_several(self, test: ast.expr) -> ast.expr:
        return self._holding(test) if len(_conjuncts(test)) > 1 else self.visit(test)

    def _switch(self, kind: str, node: ast.AST, text: str | None = None) -> str:
        name = f"{self._path}::{'.'.join(self._scope)}::{text or ast.unparse(node)}"
        self._names[name] = self._names.get(name, 0) + 1
        if self._names[name] > 1:
            name = f"{name} #{self._names[name]}"
        self.guards.append(Guard(name, self._path, getattr(node, "lineno", 0), kind))
        return name


def _disjuncts(test: ast.expr) -> list[ast.expr]:
    """What `test` is the `or` of."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.Or):
        return [part for value in test.values for part in _disjuncts(value)]
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        parts = _conjuncts(test.operand)
        if len(parts) > 1:
            return [ast.copy_location(ast.UnaryOp(ast.Not(), part), part) for part in parts]
    return [test]


def _conjuncts(test: ast.expr) -> list[ast.expr]:
    """What `test` is the `and` of; a chain of comparisons is one of pairs."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return [part for value in test.values for part in _conjuncts(value)]
    if isinstance(test, ast.Compare) and len(test.ops) > 1:
        operands = [test.left, *test.comparators]
        pairs = zip(operands, test.ops, operands[1:], strict=False)
        return [
            ast.copy_location(ast.Compare(left, [op], [right]), test) for left, op, right in pairs
        ]
    return [test]


def _refuses(body: list[ast.stmt]) -> bool:
    last = body[-1]
    if isinstance(last, ast.Raise | ast.Continue):
        return True
    return isinstance(last, ast.Return) and last.value is not None and _is_refusal_value(last.value)


def _is_refusal_value(value: ast.expr) -> bool:
    if isinstance(value, ast.Constant):
        return value.value in (None, False) or _is_refusal(value)
    if isinstance(value, ast.Tuple):
        return not value.elts or _is_refusal_value(value.elts[0])
    if isinstance(value, ast.List | ast.Dict):
        return ast.unparse(value) in ("[]", "{}")
    is_made = isinstance(value, ast.Call) and _REFUSAL.match(_name_of(value.func)) is not None
    return is_made or _is_constant_name(value)


def _is_refusal(value: ast.expr) -> bool:
    """A constant by its name, a rule's id or a sentence."""
    text = value.value if isinstance(value, ast.Constant) else None
    return (isinstance(text, str) and ("." in text or " " in text)) or _is_constant_name(value)


def _is_none(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is None


def _is_constant_name(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Name) and value.id.isupper()


def _is_table_of_rows(value: ast.expr) -> bool:
    if not isinstance(value, ast.Tuple) or len(value.elts) < 2:
        return False
    rows = [row for row in value.elts if isinstance(row, ast.Tuple) and len(row.elts) > 2]
    return len(rows) == len(value.elts) and all(isinstance(r.elts[0], ast.Constant) for r in rows)


def _name_of(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _says(annotation: ast.expr | None, *words: str) -> bool:
    said = "" if annotation is None else ast.unparse(annotation)
    return any(re.search(rf"\b{word}\b", said) for word in words)


def _board(method: str, switch: str, *arguments: ast.expr) -> ast.expr:
    return _board_of(method, ast.Constant(switch), *arguments)


def _board_of(method: str, *arguments: ast.expr) -> ast.expr:
    called = ast.Attribute(ast.Name(BOARD, ast.Load()), method, ast.Load())
    return ast.Call(called, list(arguments), [])


def _lambda(body: ast.expr) -> ast.Lambda:
    empty = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
    return ast.Lambda(empty, body)
