"""A stream of bytes under a passphrase: whoever lacks it reads nothing and changes nothing.

The key is scrypt's of the passphrase (RFC 7914). Bytes go in chunks of ChaCha20-Poly1305 (RFC
8439), each with a nonce of its number and of whether it is the last, as in the STREAM construction
(Hoang, Reyhanitabar, Rogaway, Vizar 2015): chunks that are changed, exchanged, cut off or added are
noticed.
"""

import secrets
from typing import BinaryIO, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from data_contracts.errors import ConsortiaError

MAGIC = b"consortia-sealed-1\n"
SALT_BYTES = 16
PREFIX_BYTES = 7
CHUNK_BYTES = 64 * 1024
TAG_BYTES = 16
SCRYPT_COST = 2**15
"""With r = 8: 32 MiB and about 0.1 s for each guess."""


class ByteSink(Protocol):
    """Takes bytes; nothing is whole before `finish`."""

    def write(self, data: bytes) -> object: ...

    def finish(self) -> None: ...


class ByteSource(Protocol):
    """Gives exactly the next `count` bytes, or fewer at the end."""

    def read(self, count: int) -> bytes: ...


class PlainSink:
    """Bytes as they are."""

    def __init__(self, file: BinaryIO) -> None:
        self.write = file.write

    def finish(self) -> None:
        """Nothing is held back."""


class SealingSink:
    """Encrypts what is written."""

    def __init__(self, file: BinaryIO, passphrase: str) -> None:
        salt, prefix = secrets.token_bytes(SALT_BYTES), secrets.token_bytes(PREFIX_BYTES)
        self._file, self._cipher, self._prefix = file, _cipher(passphrase, salt), prefix
        self._number, self._held = 0, bytearray()
        file.write(MAGIC + salt + prefix)

    def write(self, data: bytes) -> None:
        """A full chunk leaves once it is known that it is not the last."""
        self._held += data
        while len(self._held) > CHUNK_BYTES:
            self._put(bytes(self._held[:CHUNK_BYTES]), is_last=False)
            del self._held[:CHUNK_BYTES]

    def finish(self) -> None:
        """The last chunk, marked as such."""
        self._put(bytes(self._held), is_last=True)
        self._held.clear()

    def _put(self, chunk: bytes, *, is_last: bool) -> None:
        nonce = _nonce(self._prefix, self._number, is_last=is_last)
        self._file.write(self._cipher.encrypt(nonce, chunk, MAGIC))
        self._number += 1


class UnsealingSource:
    """Decrypts a file that `SealingSink` wrote, after its magic; ConsortiaError for another."""

    def __init__(self, file: BinaryIO, passphrase: str) -> None:
        salt, self._prefix = file.read(SALT_BYTES), file.read(PREFIX_BYTES)
        self._file, self._cipher = file, _cipher(passphrase, salt)
        self._number, self._held = 0, bytearray()
        self._ahead = file.read(CHUNK_BYTES + TAG_BYTES)

    def read(self, count: int) -> bytes:
        """Only bytes whose chunk was found whole."""
        while len(self._held) < count and self._ahead:
            chunk, self._ahead = self._ahead, self._file.read(CHUNK_BYTES + TAG_BYTES)
            self._held += self._opened(chunk, is_last=not self._ahead)
        data = bytes(self._held[:count])
        del self._held[:count]
        return data

    def _opened(self, chunk: bytes, *, is_last: bool) -> bytes:
        nonce = _nonce(self._prefix, self._number, is_last=is_last)
        self._number += 1
        try:
            return self._cipher.decrypt(nonce, chunk, MAGIC)
        except InvalidTag:
            raise ConsortiaError(
                "encrypted file",
                expected="the bytes that were written with this passphrase",
                found="another passphrase, or bytes that were changed or cut off",
                action="give the passphrase that it was written with, or take another copy",
            ) from None


def _cipher(passphrase: str, salt: bytes) -> ChaCha20Poly1305:
    key = Scrypt(salt=salt, length=32, n=SCRYPT_COST, r=8, p=1).derive(passphrase.encode())
    return ChaCha20Poly1305(key)


def _nonce(prefix: bytes, number: int, *, is_last: bool) -> bytes:
    return prefix.ljust(PREFIX_BYTES, b"\0") + number.to_bytes(4, "big") + bytes([is_last])
