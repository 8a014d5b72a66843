"""Uploaded code: gzip'd archives under control's home, named by the digest of their bytes. Never changed."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

from easel_contracts.errors import InvalidInput, NotFound, Refused
from easel_control.sources import archive

CHUNK_BYTES = 256 * 1024
GZIP = b"\x1f\x8b"


class CodeStore:
    """The directory of archives."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self.directory, self._max_bytes = directory, max_bytes
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def keep(self, chunks: AsyncIterator[bytes]) -> tuple[str, int]:
        """(digest, bytes) of what was sent; complete on disk when this returns. Raises InvalidInput."""
        scratch = self.directory / f".{uuid4().hex}.part"
        hashed, size = hashlib.sha256(), 0
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                async for chunk in chunks:
                    if not size and chunk[:2] != GZIP:
                        raise InvalidInput(
                            "the code is not a gzip'd tar archive", hint="`tar -czf - -C DIR .` makes one"
                        )
                    size += len(chunk)
                    if size > self._max_bytes:
                        limit = self._max_bytes // 2**20
                        raise InvalidInput(f"the code is larger than {limit} MiB", code="TOO_LARGE",
                                           hint="leave data and models out and mount them")  # fmt: skip
                    hashed.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            if not size:
                raise InvalidInput("nothing was sent; a gzip'd tar archive is expected")
            digest = f"sha256:{hashed.hexdigest()}"
            scratch.replace(archive(self.directory, digest))
        except OSError as error:
            raise Refused("CANNOT_KEEP", f"the code cannot be kept: {error.strerror}", "free some space") from error
        finally:
            scratch.unlink(missing_ok=True)
        return digest, size

    def read(self, digest: str) -> AsyncIterator[bytes]:
        """The archive in chunks; raises NotFound."""
        path = archive(self.directory, digest)
        if len(digest) != 71 or not digest[7:].isalnum() or not path.exists():
            raise NotFound("NO_SUCH_CODE", f"no archive {digest} is here", "upload the code again")
        return _chunks(path)

    def collect(self, in_use: set[str], keep_s: float) -> int:
        """Removes archives that nothing names and that are old, and what broken uploads left; says how many."""
        now, removed = time.time(), 0
        kept = {archive(self.directory, digest).name for digest in in_use}
        for path in self.directory.iterdir():
            if path.name not in kept and now - path.stat().st_mtime > keep_s:
                path.unlink(missing_ok=True)
                removed += 1
        return removed


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
