"""Values as they are written into the TOML files that people then edit."""

import json


def toml_string(value: object) -> str:
    """`str(value)` as a TOML basic string with its quotes, whatever is in it (TOML 1.0).

    Raises UnicodeEncodeError for half a character, which no UTF-8 file can hold.
    """
    text = str(value)
    text.encode("utf-8")
    # The escapes of JSON are among TOML's; of what TOML wants escaped, JSON leaves out only DEL.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
