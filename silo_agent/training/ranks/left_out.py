"""Records of which nothing reaches a model, counted by their reasons.

Those without room for an answer are none of them: how long a sequence is, the plan says.
"""

from silo_agent.training.ranks.token_shard import REFUSALS

_UNTELLABLE = "untellable"
_COUNTED_AS = {"template": "refused", "border": "without_border", "length": "too_long_apart"}
_WORDS = {
    "refused": "conversations that the base model's chat template refuses or does not render "
    "whole, as some refuse a system message or two turns of one side in a row",
    "without_border": "conversations for which its chat template gives no border before an answer",
    "too_long_apart": "conversations whose answers, each told behind all that comes before it, "
    "are too long",
    _UNTELLABLE: "records that spell control tokens of the base model and cannot be told as text",
}


class LeftOut:
    """Counts what a packer leaves out; `counts` are fields of `PackingCounts`."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(_WORDS, 0)

    @property
    def total(self) -> int:
        """Of all reasons."""
        return sum(self.counts.values())

    def add(self, size: int, flags: int) -> None:
        """One of `size` tokens, with the flags of the shard."""
        reasons = [_COUNTED_AS[why] for why, flag in REFUSALS.items() if flags & flag]
        # What can be told has tokens, if only some that nothing can be learned from.
        for reason in reasons or [_UNTELLABLE] * (size == 0):
            self.counts[reason] += 1

    def in_words(self, of: int) -> list[str]:
        """A phrase for each reason that there was, of so many records."""
        return [f"{n} of {of} {_WORDS[reason]}" for reason, n in self.counts.items() if n]
