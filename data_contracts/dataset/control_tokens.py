"""Text that is spelled like a control token of a language model: the end of a turn, a role, a tool.

In a record it is left from a scraped chat, or was put there to steer the model. Training takes it
as text, whatever the base model's vocabulary says (`silo_agent.training.ranks.record_text`); here
such records are counted. By shape, and not by the tokens of one model: an outcome is of the data
and the contract, and stays the same whichever model a plan names.
"""

import re

_WORDS = "bos|eos|pad|unk|mask|s|think|tool_call|tool_response|tools|sep|cls|human|bot"
_CONTROL = re.compile(
    "|".join(
        (
            # <|im_end|>, <|eot_id|>, and the same with fullwidth bars
            r"<\|[^\s<>|]{1,60}\|>",
            r"<\uff5c[^\s<>\uff5c]{1,60}\uff5c>",
            # <start_of_turn>, <end_of_image>, <unused7>, <extra_id_0>, <reserved_token_3>
            r"<(?:start|end)_of_[a-z_]{1,30}>",
            r"<(?:unused|extra_id_|reserved_token_|special_token_)[0-9]{1,5}>",
            # <s>, </s>, <bos>, <think>
            rf"</?(?:{_WORDS})>",
            # [INST], [/INST], [TOOL_CALLS], [CLS], <<SYS>>
            r"\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_[A-Z]{4,9}|THINK|BOS|EOS)\]",
            r"\[(?:CLS|SEP|MASK|PAD|UNK)\]",
            r"<</?SYS>>",
        )
    )
)
_FIRST_SIGNS = ("<", "[")


def spells_control_token(text: str) -> bool:
    """Whether `text` holds something of such a shape."""
    return any(sign in text for sign in _FIRST_SIGNS) and _CONTROL.search(text) is not None
