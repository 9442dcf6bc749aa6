"""The certificate as one self-contained page, and the file that it comes in.

As the page of a report: no script runs, nothing is fetched, every text is escaped, the same records
give the same bytes. The coordinator signs the digest of the page with the place of the records left
empty; embedded there are the memberships, the erasure and the certificate itself.
"""

import base64
import binascii
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Template

from aggregator.report.bundle import MAX_BUNDLE_BYTES, malformed
from aggregator.report.compliance_page.page import BUNDLE_ELEMENT_ID, Page, split_page
from aggregator.report.compliance_page.wording import day, moment
from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.artifact import digest_of_bytes
from data_contracts.protocol.dsse import to_base64
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Erasure, ErasureCertificate
from data_contracts.protocol.records.round_report import PageRef
from data_contracts.protocol.strict_json import parse_strict
from infra.page_templates import page_environment

RENDERER = 1
"""Version of words and layout; see `compliance_page.page.RENDERER`."""

FORMAT = "consortia-erasure-1"
TEMPLATE_NAME = "certificate.html.j2"
METHODS = {
    "replay": "The rounds that it counted in, and all that rest on them, were trained and merged "
    "again by the other institutions, from the last adapter that had no part of it.",
}


@dataclass(frozen=True)
class CertificateFile:
    """What a certificate comes with, as envelopes; nothing is verified here but the form."""

    certificate: bytes
    erasure: bytes
    memberships: tuple[bytes, ...]


def render(erasure: Erasure, certificate: ErasureCertificate) -> bytes:
    """What the page shows; `certificate.page` plays no part."""
    shown = _template().render(
        erasure=erasure,
        certificate=certificate,
        method=METHODS[certificate.method],
        bundle_element_id=BUNDLE_ELEMENT_ID,
    )
    return shown.encode()


def with_page(erasure: Erasure, certificate: ErasureCertificate) -> ErasureCertificate:
    """The certificate with its page's digest, for the coordinator to sign."""
    page = PageRef(renderer=RENDERER, digest=digest_of_bytes(render(erasure, certificate)))
    return certificate.model_copy(update={"page": page})


def certificate_stem(certificate: ErasureCertificate) -> str:
    """File name without its end."""
    return f"unlearned-{certificate.erased_silo}-{certificate.run}"


def written_page(
    erasure: Verified[Erasure],
    certificate: Verified[ErasureCertificate],
    memberships: tuple[bytes, ...],
) -> bytes:
    """The file with everything in it that an auditor needs offline."""
    content = {
        "certificate": to_base64(certificate.envelope),
        "erasure": to_base64(erasure.envelope),
        "format": FORMAT,
        "memberships": [to_base64(envelope) for envelope in memberships],
    }
    packed = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    return Page(render(erasure.record, certificate.record), packed).whole


def open_certificate(path: Path) -> tuple[CertificateFile, Page]:
    """As `read_certificate`, of a file."""
    with path.open("rb") as file:
        data = file.read(MAX_BUNDLE_BYTES + 1)
    if len(data) > MAX_BUNDLE_BYTES:
        raise malformed(f"at most {MAX_BUNDLE_BYTES} bytes", "more", "size")
    try:
        return read_certificate(data)
    except UntrustedInputError as error:
        raise error.in_file(path) from None


def read_certificate(data: bytes) -> tuple[CertificateFile, Page]:
    """The parts of a file; raises UntrustedInputError for another one."""
    page = split_page(data)
    parsed = parse_strict(page.bundle, MAX_BUNDLE_BYTES)
    fields = {"certificate", "erasure", "format", "memberships"}
    if not isinstance(parsed, dict) or set(parsed) != fields or parsed["format"] != FORMAT:
        raise malformed(f"a certificate of format {FORMAT}", "another file", "format")
    memberships = parsed["memberships"]
    if not isinstance(memberships, list):
        raise malformed("a list of memberships", "another value", "fields")
    found = CertificateFile(
        certificate=_decoded(parsed["certificate"]),
        erasure=_decoded(parsed["erasure"]),
        memberships=tuple(_decoded(each) for each in memberships),
    )
    return found, page


def _decoded(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise malformed("envelopes in base64", "another value", "base64") from None


@cache
def _template() -> Template:
    environment = page_environment(Path(__file__).parent, day, moment)
    return environment.get_template(TEMPLATE_NAME)
