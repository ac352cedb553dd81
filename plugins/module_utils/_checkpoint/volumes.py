# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Memory volumes in a checkpoint image: the content of tmpfs mounts that came from outside of the container.

CRIU only notes that such a mount was there. Each is a blob of its own beside CRIU's images, a tar of the whole tree; an
annotation of its descriptor says where it was, and how the file system was made.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._core import labels, strict_json
from .._core.errors import InputError
from .._core.strict_json import StrictJsonError
from .._oci.image import Descriptor

MEDIA_TYPE = "application/vnd.gpuops.restore.memory-volume.v1.tar"
ANNOTATION = labels.PREFIX + "memory-volume"
#: Which are meant, instead of the destinations of some: all that are in memory and writable; none.
AUTO, NONE = "auto", "none"
#: Flags of a mount that are taken over.
FLAGS = ("nosuid", "nodev", "noexec")


@dataclass(frozen=True)
class MemoryVolume:
    """One of them. ``mode``, ``uid`` and ``gid`` are of its top directory."""

    #: Of the content; without this annotation.
    descriptor: Descriptor
    #: In the container.
    destination: str
    #: Of the bind, as the spec has it.
    source: str
    #: Bytes of memory that its files took.
    used: int
    #: Most bytes that the file system may hold; None where that was not recorded, 0 for no bound.
    size: int | None = None
    #: The same of files.
    inodes: int | None = None
    mode: int = 0o1777
    uid: int = 0
    gid: int = 0
    #: Of FLAGS.
    flags: tuple[str, ...] = FLAGS
    #: The container that was captured.
    container: str = ""
    #: Other containers that had it too.
    shared: tuple[str, ...] = ()
    #: Those of them that stood still while this was taken.
    paused: tuple[str, ...] = ()
    #: It has links of CRIU for deleted files of this container.
    links: bool = False

    @property
    def digest(self) -> str:
        """Of the content."""
        return self.descriptor.digest

    @classmethod
    def read(cls, descriptor: Descriptor) -> MemoryVolume:
        """From a child of a checkpoint's index. Raises InputError ``memory_volume_invalid``."""
        try:
            document = strict_json.parse_object(descriptor.annotations.get(ANNOTATION, ""))
        except StrictJsonError as error:
            raise _invalid(descriptor, str(error)) from error
        destination, source = document.get("destination"), document.get("source")
        for path in (destination, source):
            if not isinstance(path, str) or not path.startswith("/") or posixpath.normpath(path) != path:
                raise _invalid(descriptor, f"{str(path)[:120]!r} is no path")
        mode = _number(descriptor, document, "mode")
        return cls(
            descriptor=descriptor.bare(),
            destination=str(destination),
            source=str(source),
            used=_number(descriptor, document, "used") or 0,
            size=_number(descriptor, document, "size"),
            inodes=_number(descriptor, document, "inodes"),
            mode=cls.mode if mode is None else mode & 0o7777,
            uid=_number(descriptor, document, "uid", 32) or 0,
            gid=_number(descriptor, document, "gid", 32) or 0,
            flags=tuple(flag for flag in _texts(descriptor, document, "flags", FLAGS) if flag in FLAGS),
            container=str(document.get("container") or ""),
            shared=_texts(descriptor, document, "shared"),
            paused=_texts(descriptor, document, "paused"),
            links=bool(document.get("links")),
        )

    def annotated(self) -> Descriptor:
        """The descriptor for the index."""
        document = {
            "destination": self.destination,
            "source": self.source,
            "used": self.used,
            "size": self.size,
            "inodes": self.inodes,
            "mode": self.mode,
            "uid": self.uid,
            "gid": self.gid,
            "flags": list(self.flags),
            "container": self.container,
            "shared": list(self.shared),
            "paused": list(self.paused),
            "links": self.links,
        }
        text = json.dumps(document, separators=(",", ":"), sort_keys=True)
        return Descriptor(MEDIA_TYPE, self.descriptor.digest, self.descriptor.size, {ANNOTATION: text})

    def shown(self) -> dict[str, Any]:
        """As modules return it."""
        return {
            "destination": self.destination,
            "digest": self.descriptor.digest,
            "size": self.descriptor.size,
            "used": self.used,
            "shared": list(self.shared),
        }


def chosen(wish: tuple[str, ...], destination: str, auto: bool) -> bool:
    """Whether an option ``memory_volumes`` means the volume at ``destination``; ``auto``: what AUTO says of it."""
    return auto if AUTO in wish else destination in wish


def check_wish(wish: tuple[str, ...]) -> None:
    """Raise InputError ``memory_volumes_invalid`` for an option that makes no sense."""
    alone = {AUTO, NONE} & set(wish)
    paths = [one for one in wish if one not in (AUTO, NONE)]
    if (alone and len(wish) > 1) or any(not path.startswith("/") or posixpath.normpath(path) != path for path in paths):
        raise InputError(
            "memory_volumes_invalid",
            f"memory_volumes is {', '.join(wish)}: neither auto or none alone, nor plain absolute paths.",
            "Give auto, none, or where the volumes are in the container, such as [/dev/shm].",
        )


def _number(descriptor: Descriptor, document: Mapping[str, Any], key: str, bits: int = 62) -> int | None:
    value = document.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < (1 << bits) - 1:
        raise _invalid(descriptor, f"{key} is no number that can be")
    return value


def _texts(
    descriptor: Descriptor, document: Mapping[str, Any], key: str, default: tuple[str, ...] = ()
) -> tuple[str, ...]:
    value = document.get(key)
    if value is None:
        return default
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise _invalid(descriptor, f"{key} is no list of texts")
    return tuple(value)


def _invalid(descriptor: Descriptor, why: str) -> InputError:
    return InputError(
        "memory_volume_invalid",
        f"What the checkpoint says of its memory volume {descriptor.digest} is not valid: {why}.",
        "The image is damaged: make, import or pull it again.",
    )
