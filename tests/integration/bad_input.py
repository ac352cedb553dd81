# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every kind of bad input gets: its codes, and how a refusal has to look."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Callable

#: What may be wrong -> the values of ``failure.code`` that say so. Where there are two, one problem is met in two
#: places (a document and a stream; a tar of CRIU images and an image archive); no code says two things.
CODES: Mapping[str, tuple[str, ...]] = {
    "socket absent": ("socket_absent",),
    "not permitted": ("socket_permission",),
    "something that is not containerd answers": ("not_containerd",),
    "nobody answers, or the daemon stops in the middle": ("daemon_unavailable",),
    "namespace without the image": ("checkpoint_absent",),
    "image that is no checkpoint": ("not_a_checkpoint",),
    "index without CRIU images": ("checkpoint_without_criu",),
    "CRIU images incomplete": ("criu_images_incomplete",),
    "index without base image": ("base_image_unknown",),
    "spec unreadable": ("spec_unreadable",),
    "spec invalid": ("spec_invalid",),
    "blob missing": ("blob_missing",),
    "blob truncated": ("blob_truncated", "blob_size_mismatch"),
    "blob of wrong digest": ("blob_digest", "digest_mismatch"),
    "base image absent": ("base_image_absent",),
    "base image moved": ("base_image_moved",),
    "unknown snapshotter": ("snapshotter_unknown",),
    "runtime not listed": ("runtime_refused",),
    "runtime not installed": ("runtime_absent",),
    "container of another owner": ("container_not_ours",),
    "container from another checkpoint": ("container_other_checkpoint",),
    "bind source missing": ("mount_source_missing",),
    "bind source of another kind": ("mount_source_kind",),
    "symbolic link as bind source": ("mount_source_symlink",),
    "network namespace of a process": ("network_invalid",),
    "network namespace that is gone": ("netns_missing",),
    "file that is no network namespace": ("netns_invalid",),
    "CRIU missing": ("criu_missing",),
    "iptables-restore missing": ("iptables_restore_missing",),
    "staging disk too small": ("staging_no_space",),
    "archive: name that leads out": ("tar_unsafe_name",),
    "archive: link": ("archive_link",),
    "archive: link or device": ("tar_unsafe_type",),
    "archive: bomb": ("archive_bomb", "expansion_limit"),
    "archive: data behind its end": ("tar_trailing_data",),
    "archive: no tar": ("tar_not_a_tar", "archive_unreadable"),
    "metadata unreadable": ("metadata_unreadable",),
    "metadata not JSON": ("metadata_not_json",),
    "metadata lacks keys": ("metadata_incomplete",),
    "metadata of wrong types": ("metadata_invalid",),
    "task paused": ("task_paused",),
    "process dies at once": ("process_died",),
    "snapshot used": ("snapshot_used",),
}
_SENTENCE_END = re.compile(r"[.!?] (?=[A-Z])")


class Refuses:
    """``refuses(name, params, what, *words)``: the module refuses, and the node is as before.

    ``what`` is a key of :data:`CODES`, ``words`` have to be in the message: the object, the cause. With ``modes`` not
    given it is called in check mode first, then for real; both have to refuse in the same words.
    """

    def __init__(self, expect_failure: Callable[..., dict[str, Any]], unchanged: Callable[..., Any]) -> None:
        self._expect_failure = expect_failure
        self._unchanged = unchanged

    def __call__(
        self,
        name: str,
        params: Mapping[str, Any],
        what: str,
        *words: str,
        modes: tuple[bool, ...] = (True, False),
        outcome: str = "terminal",
        code: str = "",
    ) -> dict[str, Any]:
        codes = (code,) if code else CODES[what][:1]
        with self._unchanged():
            results = [self._expect_failure(name, dict(params), codes[0], check=check) for check in modes]
        assert len({result["msg"] for result in results}) == 1, [result["msg"] for result in results]
        check_wording(results[-1], words)
        assert results[-1]["failure"]["outcome"] == outcome, results[-1]
        assert not results[-1].get("changed"), results[-1]
        return results[-1]


def check_wording(result: Mapping[str, Any], words: tuple[str, ...]) -> None:
    """One sentence that has the words in it, then one that says what to do."""
    hint = str(result["failure"]["hint"])
    message = str(result["msg"])[: -len(hint)].strip()
    for text in (message, hint):
        assert text.endswith(".") and "\n" not in text, repr(text)
    assert not _SENTENCE_END.search(message), f"more than one sentence: {message!r}"
    for word in words:
        assert word in message, f"{word!r} is not in {message!r}"
