# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How an archive is compressed: not at all, with gzip, or with zstd."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Generator, Iterable

from .._core.errors import NodeError
from .._streams import zstd

NONE, GZIP, ZSTD = "none", "gzip", "zstd"
#: Memory images are large: the fast level takes a third of the default's time for a few per cent more bytes.
_GZIP_LEVEL = 1


def compressed(chunks: Iterable[bytes], compression: str, size: int) -> Generator[bytes, None, None]:
    """A stream of ``size`` bytes as it is stored. Raises NodeError ``zstd_missing``, ``archive_write_failed``."""
    if compression == GZIP:
        yield from gzipped(chunks)
    elif compression == ZSTD:
        yield from _zstd(chunks, size)
    else:
        yield from chunks


def gzipped(chunks: Iterable[bytes]) -> Generator[bytes, None, None]:
    """A gzip stream without name and time: the same bytes give the same stream."""
    engine = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    for chunk in chunks:
        piece = engine.compress(chunk)
        if piece:
            yield piece
    yield engine.flush()


def _zstd(chunks: Iterable[bytes], size: int) -> Generator[bytes, None, None]:
    program = shutil.which("zstd")
    if program is not None:
        # It has all processors. With its size announced, the frame names it.
        status, reason = yield from zstd.through_program([program, "-q", "-c", "-T0", f"--stream-size={size}"], chunks)
        if status != 0:
            raise _failed(reason or f"it ended with status {status}")
        return
    module = zstd.library()
    if module is None:
        raise NodeError(
            "zstd_missing",
            "The archive is to be compressed with zstd, and this node has neither the zstd program nor backports.zstd.",
            "Install zstd on the node, or set compression to gzip or none.",
        )
    try:
        yield from zstd.compress(module, chunks, size)
    except module.ZstdError as error:
        raise _failed(str(error)) from error


def _failed(reason: str) -> NodeError:
    return NodeError(
        "archive_write_failed",
        f"zstd could not write the archive: {reason.rstrip('.')}.",
        "Mend that, or set compression to gzip or none.",
    )
