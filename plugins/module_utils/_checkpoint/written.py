# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a container has written that its layer cannot say: attributes, access lists, names that mean something else.

containerd's comparison writes ``security.capability`` alone into a layer, and a file called ``.wh.NAME`` in one means
that NAME was deleted (image-spec, layer.md). So the layer has such files under another name, and a record beside it
tells what each is called, and owner, mode and attributes of all of them. A restore goes through it once the layer is
applied: it puts back what lacks, and tells what it cannot.

The record is compressed lines, one for each file, in the order of the capture's walk: written and read one by one, so
that neither takes more memory where there are more files.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import hashlib
import io
import json
import os
import stat as stat_module
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

from .._containerd import content
from .._containerd.client import Client
from .._core import strict_json
from .._core.errors import InputError, NodeError
from .._core.strict_json import StrictJsonError
from .._host import private_mount
from .._oci.image import Descriptor
from . import differences
from .differences import Difference

#: What a name begins with that a layer takes for a deletion.
RESERVED = ".wh."
#: What may be taken over. Not security.*, which is the node's own matter but for capabilities, which layers have.
_KINDS = ("user.", "trusted.", "system.posix_acl_")
_OVERLAYS_OWN = ("trusted.overlay.", "user.overlay.")
_CAPABILITY = "security.capability"
#: Bytes of the record as it is stored, and of a line. A file has at most 64 KiB of names, and a value as much.
LONGEST = 64 << 20
_LONGEST_LINE = 8 << 20
#: Bytes of all lines: as many files as anybody has.
_LONGEST_ALL = 4 << 30
_CHUNK = 1 << 16
#: Of zlib, for gzip without a time: the same files give the same record.
_GZIP = 31
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_KINDS = {
    stat_module.S_IFREG: "a file",
    stat_module.S_IFDIR: "a directory",
    stat_module.S_IFLNK: "a link",
    stat_module.S_IFIFO: "a pipe",
    stat_module.S_IFCHR: "a device",
    stat_module.S_IFBLK: "a block device",
}


def is_carried(attribute: str) -> bool:
    """Whether an extended attribute of that name goes along."""
    return attribute.startswith(_KINDS) and not attribute.startswith(_OVERLAYS_OWN)


class Entry(NamedTuple):
    """One file. Paths are below the root, with no slash before them; the root itself is empty."""

    path: str
    #: Kind and permissions.
    mode: int
    uid: int
    gid: int
    attributes: Mapping[str, bytes]
    #: In the layer, where that is another.
    name: str = ""


class Record:
    """The lines, in a file without a name below ``directory``."""

    def __init__(self, directory: str | None = None) -> None:
        self._file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115
        self._compressor = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
        self._is_complete = False
        self.entries = 0

    def note(self, path: str, stat: os.stat_result, attributes: Mapping[str, bytes], name: str = "") -> None:
        """A file with those of its attributes that go along; a directory with another name before what is in it."""
        found = {_quoted(one): base64.b64encode(value).decode() for one, value in attributes.items() if is_carried(one)}
        line = [_quoted(path), stat.st_mode, stat.st_uid, stat.st_gid, found, _quoted(name)]
        text = json.dumps(line, separators=(",", ":"), sort_keys=True).encode() + b"\n"
        self._file.write(self._compressor.compress(text))
        self.entries += 1

    def complete(self) -> tuple[str, int]:
        """Digest and size of what is to be stored; nothing is noted any more."""
        if not self._is_complete:
            self._file.write(self._compressor.flush())
            self._is_complete = True
        hasher, size = hashlib.sha256(), 0
        for chunk in self.chunks():
            hasher.update(chunk)
            size += len(chunk)
        return f"sha256:{hasher.hexdigest()}", size

    def chunks(self) -> Iterator[bytes]:
        """What is stored, from its beginning; to be called when it is complete."""
        self._file.seek(0)
        while chunk := self._file.read(_CHUNK):
            yield chunk


def entries(chunks: Iterable[bytes]) -> Iterator[Entry]:
    """Those of a stranger's record, as it is stored. Raises InputError ``written_invalid``."""
    try:
        for line in _lines(chunks):
            yield _entry(strict_json.parse(line, _LONGEST_LINE))
    except (StrictJsonError, binascii.Error, ValueError, zlib.error) as error:
        raise _invalid(str(error)) from error


def read(client: Client, descriptor: Descriptor) -> Iterator[Entry]:
    """From the content store, verified before the first is given. Raises InputError ``written_invalid`` and those of
    reading a blob."""
    if descriptor.size > LONGEST:
        raise _invalid(f"it has {descriptor.size} bytes, and at most {LONGEST} are read")
    content.verify(client, descriptor.digest, descriptor.size)
    return entries(content.read(client, descriptor.digest, descriptor.size))


def lay(found: Iterable[Entry], mounts: Iterable[Any]) -> list[Difference]:
    """Have the files of a snapshot whose layer is applied be as they were, by its mounts (``containerd.types.Mount``);
    what cannot be, the first of many.

    Through a mount of ours, since a file whose attributes alone were changed may not be in the layer. Raises InputError
    ``written_invalid``, NodeError ``written_not_laid``.
    """
    made = list(mounts)
    unlike: list[Difference] = []
    try:
        if len(made) != 1:
            raise OSError(f"its root file system consists of {len(made)} mounts")
        private_mount.within(
            made[0].type, made[0].source, list(made[0].options), lambda root: _lay(found, root, unlike)
        )
    except OSError as error:
        raise NodeError(
            "written_not_laid",
            f"Names and attributes of what the container has written cannot be put into its snapshot: {error}.",
            "Use a snapshotter whose file system has extended attributes, such as the one that the container had.",
        ) from error
    return unlike


def _lay(found: Iterable[Entry], root: int, unlike: list[Difference]) -> None:
    places = _Places(root)
    try:
        for entry in found:
            directory, name = places.of(entry)
            if entry.name:
                os.rename(entry.name, name, src_dir_fd=directory, dst_dir_fd=directory)
            now = _give(entry, directory, name) if directory >= 0 else None
            if now != _kind(entry.mode) and len(unlike) < differences.MOST:
                what = f"the file /{entry.path[:200]}"
                unlike.append(Difference(differences.FILES, what, "", _kind(entry.mode), now, (entry.path,)))
    finally:
        places.close()


def _kind(mode: int) -> str:
    return _FILE_KINDS.get(stat_module.S_IFMT(mode), "something else")


def _give(entry: Entry, directory: int, name: str) -> str | None:
    """Have a file be as it was if it is of its kind; the kind that it is, None where it is gone."""
    try:
        stat = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        if entry.attributes:
            raise _invalid(f"its file {entry.path[:200]!r} is not in the layer") from None
        return None
    if stat_module.S_IFMT(stat.st_mode) != stat_module.S_IFMT(entry.mode):
        return _kind(stat.st_mode)
    path = f"/proc/self/fd/{directory}/{name}"
    if (stat.st_uid, stat.st_gid) != (entry.uid, entry.gid):
        kept = os.getxattr(path, _CAPABILITY, follow_symlinks=False) if _is_capable(path) else b""
        os.chown(name, entry.uid, entry.gid, dir_fd=directory, follow_symlinks=False)
        if kept:
            os.setxattr(path, _CAPABILITY, kept, follow_symlinks=False)
        stat = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if stat.st_mode != entry.mode and not stat_module.S_ISLNK(stat.st_mode):
        os.chmod(path, stat_module.S_IMODE(entry.mode))
    for attribute, value in entry.attributes.items():
        os.setxattr(path, attribute, value, follow_symlinks=False)
    return _kind(entry.mode)


def _is_capable(path: str) -> bool:
    return _CAPABILITY in os.listxattr(path, follow_symlinks=False)


class _Places:
    """The directories of files, each opened without following a link; their times stay as they are."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._path: str | None = None
        self._directory = -1
        self._times = (0, 0)

    def of(self, entry: Entry) -> tuple[int, str]:
        """The directory of a file, less than 0 where there is none, and its name there. What a stranger wants to change
        has to be there."""
        path, _slash, name = entry.path.rpartition("/")
        if path != self._path:
            self.close()
            try:
                self._open(path)
            except OSError as error:
                if entry.attributes or entry.name:
                    why = f"its file {entry.path[:200]!r} is not in the layer ({error.strerror})"
                    raise _invalid(why) from error
                return -1, name
        return self._directory, name or "."

    def _open(self, path: str) -> None:
        directory = os.open(".", _OPEN, dir_fd=self._root)
        try:
            for part in path.split("/") if path else ():
                below = os.open(part, _OPEN, dir_fd=directory)
                os.close(directory)
                directory = below
            found = os.fstat(directory)
        except BaseException:
            os.close(directory)
            raise
        self._path, self._directory, self._times = path, directory, (found.st_atime_ns, found.st_mtime_ns)

    def close(self) -> None:
        """Leave the present directory."""
        if self._directory < 0:
            return
        directory, self._path, self._directory = self._directory, None, -1
        try:
            os.utime(directory, ns=self._times)
        finally:
            os.close(directory)


class _Chunks(io.RawIOBase):
    """A stream of what comes in pieces."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        super().__init__()
        self._chunks = iter(chunks)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = next(self._chunks, b"")
        taken = self._rest[: len(buffer)]
        buffer[: len(taken)] = taken
        self._rest = self._rest[len(taken) :]
        return len(taken)


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    seen = 0
    try:
        with gzip.GzipFile(fileobj=io.BufferedReader(_Chunks(chunks)), mode="rb") as stream:
            while line := stream.readline(_LONGEST_LINE + 1):
                seen += len(line)
                if len(line) > _LONGEST_LINE or seen > _LONGEST_ALL:
                    raise ValueError("it is too long")
                yield line
    except (EOFError, gzip.BadGzipFile) as error:
        raise ValueError(str(error)) from error


def _entry(line: Any) -> Entry:
    if not isinstance(line, list) or len(line) != 6:
        raise ValueError("a line does not have its six parts")
    path, mode, uid, gid, attributes, name = line
    if not all(isinstance(text, str) for text in (path, name)) or not isinstance(attributes, dict):
        raise ValueError("a line has no path, name or attributes")
    if not all(isinstance(number, int) and 0 <= number < 1 << 32 for number in (mode, uid, gid)):
        raise ValueError("mode or owner of a file is no number")
    found = {_attribute(one): _value(value) for one, value in attributes.items()}
    return Entry(_path(path), mode, uid, gid, found, _renamed(_path(path), _name(name)))


def _quoted(text: str) -> str:
    return quote_from_bytes(os.fsencode(text))


def _path(text: str) -> str:
    path = os.fsdecode(unquote_to_bytes(text))
    if "\0" in path or (path and any(part in ("", ".", "..") for part in path.split("/"))):
        raise ValueError(f"{path[:200]!r} is no path below a root")
    return path


def _attribute(text: str) -> str:
    name = os.fsdecode(unquote_to_bytes(text))
    if "\0" in name or not is_carried(name):
        raise ValueError(f"{name[:200]!r} is no attribute that a checkpoint may set")
    return name


def _value(value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError("an attribute has no text")
    return base64.b64decode(value, validate=True)


def _name(text: str) -> str:
    return os.fsdecode(unquote_to_bytes(text))


def _renamed(path: str, name: str) -> str:
    if name and (
        not path.rpartition("/")[2].startswith(RESERVED) or "/" in name or "\0" in name or name in (".", "..")
    ):
        raise ValueError(f"{path[:200]!r} is no name that a layer cannot have")
    return name


def _invalid(why: str) -> InputError:
    return InputError(
        "written_invalid",
        f"What the checkpoint says of the files that its container has written is not valid: {why}.",
        "The image is damaged: make, import or pull it again.",
    )
