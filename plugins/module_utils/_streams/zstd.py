# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""zstd streams: by Python's own module (3.14) or backports.zstd, which the role's venv has, else by ``zstd``."""

from __future__ import annotations

import importlib
import os
import selectors
import shutil
import subprocess
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import IO, Any

from .._core.errors import InputError, NodeError

_PIPE_READ = 1 << 20
_STDERR_LIMIT = 2048
_STDERR_READS = 4


def library() -> Any:
    """The module that speaks zstd within this process; None where there is none."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


def truncated(what: str) -> InputError:
    """The error for a compressed stream that ends too early."""
    return InputError(
        "compression_truncated",
        f"{what} ends in the middle of its compressed data.",
        "Transfer or create it again: it is incomplete.",
    )


def invalid(what: str, detail: str) -> InputError:
    """The error for a compressed stream that cannot be decoded; ``detail`` is the decoder's reason."""
    return InputError(
        "compression_invalid",
        f"{what} cannot be decompressed: {detail}.",
        "Transfer or create it again: its compressed data is damaged.",
    )


def decompress(chunks: Iterable[bytes], what: str, program: str | None = None) -> Generator[bytes, None, None]:
    """Decompress a zstd stream; ``program`` (path or name) forces the program.

    Raises InputError ``compression_invalid`` or ``compression_truncated``; NodeError ``zstd_missing`` when
    this Python has no decoder and there is no such program.
    """
    module = library() if program is None else None
    if module is not None:
        return _with_library(module, chunks, what)
    found = shutil.which(program or "zstd")
    if found is None:
        raise NodeError(
            "zstd_missing",
            f"{what} is compressed with zstd, and this node has neither the zstd program nor backports.zstd.",
            "Install zstd on the node, or give the archive uncompressed or compressed with gzip.",
        )
    return _with_program(chunks, what, found)


def compress(module: Any, chunks: Iterable[bytes], size: int) -> Generator[bytes, None, None]:
    """One frame of ``size`` bytes that names its size and has a checksum, as the program writes it.

    ``module``: what ``library`` found. By one thread: more take 60 MiB and, with as many processors, 8 MiB each.
    Raises its ``ZstdError`` where the bytes are not that many.
    """
    engine = module.ZstdCompressor(options={module.CompressionParameter.checksum_flag: 1})
    engine.set_pledged_input_size(size)
    for chunk in chunks:
        piece = engine.compress(chunk)
        if piece:
            yield piece
    yield engine.flush()


def _with_library(module: Any, chunks: Iterable[bytes], what: str) -> Generator[bytes, None, None]:
    source = (chunk for chunk in chunks if chunk)  # an empty one would be the end
    pending = next(source, b"")
    while pending:
        engine = module.ZstdDecompressor()
        while not engine.eof:
            if engine.needs_input and not pending:
                pending = next(source, b"")
                if not pending:
                    raise truncated(what)
            try:
                piece = engine.decompress(pending, _PIPE_READ)
            except module.ZstdError as error:
                raise invalid(what, str(error)) from error
            pending = b""
            if piece:
                yield piece
        pending = engine.unused_data or next(source, b"")


def _with_program(chunks: Iterable[bytes], what: str, program: str) -> Generator[bytes, None, None]:
    status, reason = yield from through_program([program, "-d", "-c", "-q"], chunks)
    if status != 0:
        if "premature" in reason or "unexpected end" in reason:
            raise truncated(what)
        raise invalid(what, reason or f"zstd ended with status {status}")


def through_program(command: Sequence[str], chunks: Iterable[bytes]) -> Generator[bytes, None, tuple[int, str]]:
    """What a program makes of ``chunks``; returns its exit status and the first line that it wrote to stderr.

    The program is fed and drained from this one thread, so that an error in ``chunks`` surfaces here.
    """
    # A step knows no AnsibleModule, whose run_command could not stream either.
    process = subprocess.Popen(  # pylint: disable=ansible-bad-function
        command,
        bufsize=0,  # closing must never flush, thus never block or fail
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    complaint: list[bytes] = []
    try:
        # To the pump, an empty chunk is the end.
        yield from _pump(process, (chunk for chunk in chunks if chunk), complaint)
        status = process.wait()
    finally:
        if process.poll() is None:
            process.kill()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        process.wait()
    return status, b"".join(complaint).decode("utf-8", "replace").strip().partition("\n")[0].strip(" .\r")


def _pump(process: subprocess.Popen[bytes], chunks: Iterator[bytes], complaint: list[bytes]) -> Iterator[bytes]:
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
    if stdin is None or stdout is None or stderr is None:
        raise RuntimeError("zstd was started without pipes")
    os.set_blocking(stdin.fileno(), False)
    pending = memoryview(b"")
    with selectors.DefaultSelector() as selector:
        selector.register(stdin, selectors.EVENT_WRITE)
        selector.register(stdout, selectors.EVENT_READ)
        selector.register(stderr, selectors.EVENT_READ)
        while not stdout.closed:
            for key, _events in selector.select():
                if key.fileobj is stdout:
                    piece = os.read(stdout.fileno(), _PIPE_READ)
                    if piece:
                        yield piece
                    else:
                        selector.unregister(stdout)
                        stdout.close()
                elif key.fileobj is stderr:
                    text = os.read(stderr.fileno(), _STDERR_LIMIT)
                    if not text:
                        selector.unregister(stderr)
                    elif len(complaint) < _STDERR_READS:
                        complaint.append(text)
                else:
                    pending = pending or memoryview(next(chunks, b""))
                    sent = _send(stdin, pending)
                    if sent is None:
                        selector.unregister(stdin)
                        stdin.close()
                    else:
                        pending = pending[sent:]


def _send(pipe: IO[bytes], data: memoryview) -> int | None:
    """Bytes that the pipe took; None when there is nothing left to send or nobody to read it."""
    if not data:
        return None
    try:
        return os.write(pipe.fileno(), data)
    except BlockingIOError:
        return 0
    except BrokenPipeError:
        return None  # zstd gave up: its exit status says so
