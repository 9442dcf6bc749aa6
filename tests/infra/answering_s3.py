"""An S3 server on loopback that gives every request the same answer, right or wrong."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from infra.storage.s3_client import S3Settings
from tests.loopback_server import serving


@dataclass
class SameAnswer:
    """What is answered, and each request: method and path, headers, body."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    endpoint_url: str = ""
    on_request: Callable[[], object] = lambda: None

    @property
    def settings(self) -> S3Settings:
        """How to connect; any credential will do."""
        return S3Settings(endpoint_url=self.endpoint_url, access_key="anyone", secret_key="secret")


def error_body(code: str, more: str = "") -> bytes:
    """An error as S3 words it."""
    return f"<Error><Code>{code}</Code><Message>no</Message>{more}</Error>".encode()


@contextmanager
def always(
    status: int, body: bytes = b"", headers: dict[str, str] | None = None
) -> Iterator[SameAnswer]:
    """The server, for as long as the block runs; `headers` replace Date where they name it."""
    answer = SameAnswer(status, body, headers or {})
    with serving(_handler(answer)) as answer.endpoint_url:
        yield answer


def _handler(answer: SameAnswer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer.on_request()
            answer.requests.append((f"{self.command} {self.path}", dict(self.headers.items())))
            answer.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", "0"))))
            self.send_response_only(answer.status)
            headers = {"Date": self.date_time_string(), "Content-Length": str(len(answer.body))}
            for name, value in (headers | answer.headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        do_HEAD = do_PUT = do_POST = do_GET  # noqa: N815 - names that http.server asks for

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    return Handler
