"""One message of a conversation as data have it: who says what, and nothing that says more.

What is dropped of a message may be what the answer rests on, or what says that it is not to be
learned. So a message may have role and content, keys that are known to say nothing of either, and
empty ones; any other is refused, whatever it is called.
"""

from math import isnan
from typing import Any

from data_contracts.dataset.forms.form import LineRefusedError
from data_contracts.shown_text import is_blank

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
"""What names of roles mean."""

_KEYS = (("role", "content"), ("from", "value"))
_NOTES = frozenset(
    {
        *("name", "id", "_id", "uuid", "message_id", "msg_id", "parent_id", "parent_message_id"),
        *("conversation_id", "turn_id", "user_id", "author_id", "speaker_id", "session_id"),
        *("turn", "index", "idx", "position", "order", "rank", "number"),
        *("timestamp", "time", "date", "datetime", "created", "created_at", "create_time"),
        *("updated", "updated_at", "update_time", "sent_at"),
        *("lang", "language", "locale", "model", "model_name", "source", "tags"),
        *("length", "tokens", "token_count", "num_tokens", "characters"),
        *("score", "rating", "likes", "hash", "sha256"),
    }
)
"""Keys beside role and content that say nothing of what is said."""

_LEARNED = frozenset(
    {
        *("weight", "loss_weight", "loss", "compute_loss", "train", "training", "train_on"),
        *("trainable", "is_trainable", "learn", "learnable"),
    }
)
"""With these other trainers say of a turn how much it counts; here every turn of the assistant
counts the same, and no other does."""

_NOT_LEARNED = frozenset({"mask", "masked", "ignore", "is_masked"})
_YES, _NO = frozenset({"1", "1.0", "true", "yes"}), frozenset({"0", "0.0", "false", "no"})


def said_in(message: Any) -> tuple[str, Any]:
    """Role and content, under either of their names and as the data have them.

    Raises LineRefusedError for what is no message, and for one with more than that.
    """
    if not isinstance(message, dict):
        raise LineRefusedError("has a message that is no object")
    known = [keys for keys in _KEYS if isinstance(message.get(keys[0]), str)]
    if not known:
        raise LineRefusedError("has a message without role and content")
    with_text = [keys for keys in known if isinstance(message.get(keys[1]), str)]
    role, content = (with_text or known)[0]
    is_learned = ROLES.get(message[role]) == "assistant"
    for key, value in message.items():
        if key in (role, content) or _says_nothing(value):
            continue
        if key in _LEARNED | _NOT_LEARNED:
            _require_learned(key, value, is_learned=is_learned)
        elif not _is_note(key, value) and not _repeats(key, value, message[role]):
            raise LineRefusedError("has a message with tool calls, or with more than its text")
    return message[role], message[content]


def _require_learned(key: str, value: Any, *, is_learned: bool) -> None:
    wanted = _NO if key in _NOT_LEARNED else _YES
    if is_learned and str(value).strip().lower() not in wanted:
        found = "has a message that says it is not to be learned, or not as others are"
        raise LineRefusedError(found)


def _is_note(key: str, value: Any) -> bool:
    """A note has one value, or several; an object may hold anything."""
    values = value if isinstance(value, list) else [value]
    return key in _NOTES and not any(isinstance(each, dict | list) for each in values)


def _repeats(key: str, value: Any, role: str) -> bool:
    """The role under its other name."""
    is_role = any(key == name for name, _ in _KEYS)
    return is_role and isinstance(value, str) and ROLES.get(value) == ROLES.get(role, "")


def _says_nothing(value: Any) -> bool:
    """Absent ones come as null, in tables as objects of nulls, and of numbers as none."""
    if isinstance(value, dict):
        return all(map(_says_nothing, value.values()))
    if isinstance(value, list):
        return all(map(_says_nothing, value))
    if isinstance(value, float):
        return isnan(value)
    return value is None or (isinstance(value, str) and is_blank(value))
