"""Errors, grouped by the person who has to act.

Every message says what was expected, what was found and what to do, so that whoever reads it in a
terminal or a log can act without reading code. A refusal or a rejection is not an error but a value
(a signed record); exceptions are for faults.
"""


class ConsortiaError(Exception):
    """A fault that a person has to act on.

    `problem` names the thing that is wrong; `expected`, `found` and `action` complete the message.
    """

    def __init__(self, problem: str, *, expected: str, found: str, action: str) -> None:
        self.problem = problem
        self.expected = expected
        self.found = found
        self.action = action
        super().__init__(f"{problem}: expected {expected}; found {found}. To fix it: {action}")

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.problem, self.expected, self.found, self.action))


def _rebuild(
    kind: type[ConsortiaError], problem: str, expected: str, found: str, action: str
) -> ConsortiaError:
    return kind(problem, expected=expected, found=found, action=action)


class FederationOperatorError(ConsortiaError):
    """The federation operator has to act: federation settings, plans, Prefect, coordinator keys."""


class UnusableMergeError(FederationOperatorError):
    """The admitted adapters were merged as planned and give no adapter that anybody could use."""

    rule = "merge.unusable"
    """Why the attempt ends, as its abort says; whoever merges again finds the same."""


class SiloOperatorError(ConsortiaError):
    """The silo operator has to act: agent configuration, policy, local model, GPUs, disk."""


class DataStewardError(ConsortiaError):
    """The data steward has to act: the data contract or the data set behind it."""


class StorageError(ConsortiaError):
    """Whoever runs the object storage has to act: reachability, credentials, missing promises."""


class UntrustedInputError(ConsortiaError):
    """Bytes that crossed a trust boundary are not what they claim to be.

    `rule` is a short stable identifier, fit for a signed rejection; the full message is for the
    person on this side of the boundary.
    """

    def __init__(self, problem: str, *, expected: str, found: str, action: str, rule: str) -> None:
        super().__init__(problem, expected=expected, found=found, action=action)
        self.rule = rule

    def in_file(self, path: object) -> "UntrustedInputError":
        """The same fault, for whoever has several files and needs to know in which one it is."""
        return _rebuild_untrusted(
            f"{path}: {self.problem}", self.expected, self.found, self.action, self.rule
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (
            _rebuild_untrusted,
            (self.problem, self.expected, self.found, self.action, self.rule),
        )


def contradiction(problem: str, expected: str, found: str, rule: str) -> UntrustedInputError:
    """The error for a signed record that does not fit what others have signed, or its own place."""
    return UntrustedInputError(
        problem,
        expected=expected,
        found=found,
        action="do not act on it; ask its signer, over another channel, what happened",
        rule=rule,
    )


def _rebuild_untrusted(
    problem: str, expected: str, found: str, action: str, rule: str
) -> UntrustedInputError:
    return UntrustedInputError(problem, expected=expected, found=found, action=action, rule=rule)
