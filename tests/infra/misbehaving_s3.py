"""An S3 server on loopback that breaks one promise at a time."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Literal

from infra.storage.s3_client import S3Settings
from tests.loopback_server import serving

Fault = Literal["breaks_off", "ignores_range", "ignores_conditions", "conflicts_once"]


@dataclass
class MisbehavingS3:
    """Objects by path; `breaks_off` ends every answer after 1,000 bytes of its body."""

    fault: Fault
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    endpoint_url: str = ""

    @property
    def settings(self) -> S3Settings:
        """How to connect; any credential will do."""
        return S3Settings(endpoint_url=self.endpoint_url, access_key="any", secret_key="any-secret")


@contextmanager
def running(fault: Fault) -> Iterator[MisbehavingS3]:
    """The server, for as long as the block runs."""
    storage = MisbehavingS3(fault)
    with serving(_handler(storage)) as storage.endpoint_url:
        yield storage


def _handler(storage: MisbehavingS3) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        # With 1.0 the client would wait a second for the 100 Continue that it asks for.
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            storage.requests.append("HEAD")
            data = storage.objects.get(self.path)
            self._answer(404 if data is None else 200, data or b"", with_body=False)

        def do_GET(self) -> None:
            storage.requests.append(self.headers.get("Range", "GET"))
            data = storage.objects.get(self.path)
            if data is None:
                self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
                return
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if asked is None or storage.fault == "ignores_range":
                self._answer(200, data)
                return
            start, end = int(asked[1]), int(asked[2]) + 1
            self._answer(206, data[start:end], content_range=f"bytes {start}-{end - 1}/{len(data)}")

        def do_PUT(self) -> None:
            storage.requests.append("PUT")
            data = self.rfile.read(int(self.headers["Content-Length"]))
            if storage.fault == "conflicts_once" and storage.requests == ["PUT"]:
                self._answer(409, b"<Error><Code>ConditionalRequestConflict</Code></Error>")
            elif storage.fault != "ignores_conditions" and self.path in storage.objects:
                self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
            else:
                storage.objects[self.path] = data
                self._answer(200, b"")

        def _answer(
            self, status: int, body: bytes, content_range: str = "", with_body: bool = True
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if content_range:
                self.send_header("Content-Range", content_range)
            self.end_headers()
            if with_body:
                is_cut = storage.fault == "breaks_off" and len(body) > 1000
                self.wfile.write(body[:1000] if is_cut else body)
                self.close_connection = is_cut

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Requests are in `storage.requests`; the test output stays clean."""

    return Handler
