# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""CRIU's dump of a task that stands still: what CRIU is told, its turn with the node's configuration, and the call."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from .._containerd import messages, tasks
from .._containerd.client import Client
from .._core.errors import RETRYABLE, RestoreError, RpcError, combined
from .._criu import dump_config, image_files
from .._criu.dump_turns import Turn
from .._diagnosis import failure as criu_failure
from .._host import cgroup
from . import mounts, needs, unlinked_files, volumes as memory_volumes
from .mark import Mark, MarkFile
from .needs import Found, Need
from .params import CaptureParams, CaptureResult
from .preflight import Subject
from .unlinked_files import UnlinkedFile

_CHECKPOINT_OPTIONS = "containerd.runc.v1.CheckpointOptions"


class Dump:
    """One dump. ``images`` and ``work``: the directories of CRIU's images and of its log."""

    def __init__(self, client: Client, params: CaptureParams, subject: Subject, images: str, work: str) -> None:
        self._client = client
        self._params = params
        self._images = images
        self._work = work
        #: What was last found of the task; whoever looks again says so here.
        self.subject = subject
        #: CRIU's links for deleted files, by their paths.
        self.linked: dict[str, UnlinkedFile] = {}
        #: What CRIU was told.
        self.needs: list[Need] = []
        #: While the task is paused.
        self._found = Found()
        #: With the node's configuration of CRIU.
        self._turn = Turn()

    def in_turn(self) -> AbstractContextManager[object]:
        """What has to wait for other dumps does so before anything stands still; most of it is the same then."""
        lines = self._lines(needs.needs(self.subject.found, self._params.criu))
        return self._turn.held(lines) if self._config().shared else nullcontext()

    def seconds(self) -> float:
        """How long it may take: what is on the GPUs comes into the processes' own memory first."""
        return self._params.dump_seconds(self._client, self.subject.memory_bytes + self.subject.gpus.vram)

    def take(self, result: CaptureResult) -> None:
        """Carry it out; what CRIU is told is in the result.

        Raises RestoreError ``criu_dump_failed`` and others, and what :func:`needs.problems` finds by now.
        """
        criu, subject, access = self._params.criu, self.subject, self._params.access
        tgids = cgroup.tgids_of(subject.task.pid, access.proc, access.cgroup_root)
        kept = memory_volumes.devices(subject.memory_volumes)
        self._found = needs.look(subject.container, subject.task.pid, tgids, access.proc, subject.root, kept)
        since = needs.problems(subject.container, self._found, criu)
        if since:
            # It had none a moment ago.
            error = combined(since)
            error.outcome = RETRYABLE
            raise error
        self.needs = needs.needs(self._found, criu)
        result.unlinked_files = [file.result() for file in self._found.unlinked]
        result.criu_options = [need.result() for need in self.needs]
        config = self._config()
        if not config.writable:
            # What has to stand there does, or the preflight would have refused.
            self._call_criu()
            return
        lines = self._lines(self.needs)
        if config.shared:
            self._turn.take(lines)
        with config.for_dump(lines):
            self._call_criu()
        self._turn.end()

    @contextmanager
    def links(self, mark: Mark, mark_file: MarkFile) -> Iterator[None]:
        """CRIU's links for deleted files, which went with the end of the dump, are there while the layer is taken."""
        try:
            remaps = image_files.link_remaps(self._images)
        except (OSError, image_files.UnreadableError) as error:
            raise RestoreError(
                "link_remap_failed",
                f"The dump of {self._params.container_id} cannot be searched for deleted files: {error}.",
                "Look at the disk of staging_dir, then run again.",
            ) from error
        links = self.linked = unlinked_files.links_of_layer(remaps, self._found.unlinked)
        if not links:
            yield
            return
        mark_file.write(replace(mark, links=tuple(links)))
        with unlinked_files.linked(mark.pid, links, self._params.access.proc):
            yield
        mark_file.write(mark)

    def options(self, images: str = "", work: str = "") -> Any:
        """As runc takes them, and a checkpoint records them."""
        criu = self._params.criu
        told = {need.option for need in self.needs}
        return messages.message(
            _CHECKPOINT_OPTIONS,
            exit=False,
            open_tcp=needs.TCP_ESTABLISHED in told,
            external_unix_sockets=needs.EXT_UNIX_SK in told,
            terminal=criu.shell_job,
            file_locks=needs.FILE_LOCKS in told,
            empty_namespaces=list(criu.empty_namespaces),
            image_path=images,
            work_path=work,
        )

    def _config(self) -> dump_config.DumpConfig:
        return dump_config.config_of(self.subject.container.spec, self.subject.container.labels)

    def _lines(self, found: list[Need]) -> list[str]:
        return [*needs.lines(found, self._params.criu), *mounts.external(self.subject.taken)]

    def _call_criu(self) -> None:
        container_id, spec = self._params.container_id, self.subject.container.spec
        options = self.options(self._images, self._work)
        packed = messages.pack(_CHECKPOINT_OPTIONS, options.SerializeToString())
        begun = time.time()
        try:
            tasks.checkpoint(self._client, container_id, packed, self.seconds())
        except RpcError as error:
            log = criu_failure.dump_log(spec, self._work, begun)
            raise criu_failure.explain_dump(container_id, error, log) from error
