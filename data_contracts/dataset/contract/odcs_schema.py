"""The JSON schema of the Open Data Contract Standard v3.2.0, as its own package ships it.

The package's models drop unknown nested keys without a word, so the schema speaks first, and what
it refuses is reported with the path of the key.
"""

import json
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft201909Validator
from jsonschema.exceptions import ValidationError

from data_contracts.dataset.contract.refused_key import KeyRefusedError

API_VERSION = "v3.2.0"

_UNKNOWN_KEY_CHECKS = ("additionalProperties", "unevaluatedProperties")


@cache
def _validator() -> Draft201909Validator:
    schema = files("open_data_contract_standard").joinpath("schema.json").read_text("utf-8")
    return Draft201909Validator(json.loads(schema))


def refuse_unless_odcs(document: Any) -> None:
    """Raise KeyRefusedError for the first thing in `document` that is not ODCS v3.2.0."""
    errors = sorted(_validator().iter_errors(document), key=_unknown_keys_first)
    if errors:
        raise _refusal(errors[0])
    if document["apiVersion"] != API_VERSION:
        raise KeyRefusedError("apiVersion", API_VERSION, ascii(document["apiVersion"])[:40])


def _unknown_keys_first(error: ValidationError) -> tuple[bool, int, str]:
    """Unknown keys at the deepest place come first: a typo inside also upsets its parents."""
    return (
        error.validator not in _UNKNOWN_KEY_CHECKS,
        -len(error.absolute_path),
        error.json_path,
    )


def _refusal(error: ValidationError) -> KeyRefusedError:
    path = error.json_path.removeprefix("$").removeprefix(".")
    if error.validator in _UNKNOWN_KEY_CHECKS and isinstance(error.instance, dict):
        unknown = [key for key in error.instance if repr(key) in error.message]
        name = unknown[0] if unknown else "?"
        where = f"{path}.{name}" if path else name
        return KeyRefusedError(where[:200], f"a key of ODCS {API_VERSION}", "an unknown key")
    return KeyRefusedError(path or "the document", f"ODCS {API_VERSION}", error.message[:160])
