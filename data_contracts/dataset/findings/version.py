"""What decides a finding besides data and contract: this code and the libraries that it asks."""

import platform
from importlib.metadata import version

import rfc8785

from data_contracts.protocol.artifact import digest_of_bytes

FINDINGS_VERSION = 9
"""Raised whenever the same data would give other findings, so that no old outcome is used."""

_LIBRARIES = (
    "great-expectations",
    "license-expression",
    "numpy",
    "phonenumbers",
    "pillow",
    "presidio-analyzer",
    "pyarrow",
    "tldextract",
)


def detectors_version() -> str:
    """SHA-256 that names this code's version, Python's, and that of every library asked."""
    versions = [[name, version(name)] for name in _LIBRARIES]
    return digest_of_bytes(rfc8785.dumps([FINDINGS_VERSION, platform.python_version(), versions]))
