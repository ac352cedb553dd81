# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What captures, restores and failures have left on the node, in Prometheus' text format for node_exporter."""

from __future__ import annotations

import contextlib
import datetime
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .._containerd.client import Client
from .._core import errors
from .._core.errors import NodeError
from .._restore import records
from . import look

#: Name and help of each metric, in the order of the file.
METRICS = {
    "gpuops_capture_timestamp_seconds": "When the newest checkpoint of the workload on this node was captured here.",
    "gpuops_capture_bytes": "Bytes of CRIU images in that checkpoint, GPU memory among them.",
    "gpuops_checkpoints": "Checkpoints on this node that were captured here.",
    "gpuops_restore_timestamp_seconds": "When the workload was last restored on this node.",
    "gpuops_restore_outage_seconds": "From the container to restored GPU memory in that restore.",
    "gpuops_restore_seconds": "All phases of that restore together.",
    "gpuops_restore_gpu_bytes": "Bytes of GPU memory that it brought back.",
    "gpuops_failures": "Failed restores of the workload whose evidence is kept on this node.",
    "gpuops_failure_timestamp_seconds": "When a restore of the workload last failed on this node.",
}


def text(samples: Sequence[tuple[str, Mapping[str, str], float]]) -> str:
    """The file. Metrics without a sample are left out."""
    lines = []
    for name, what in METRICS.items():
        found = sorted(
            f"{name}{{{','.join(f'{key}={_quoted(value)}' for key, value in labels.items())}}} {value:.15g}"
            for metric, labels, value in samples
            if metric == name
        )
        if found:
            lines += [f"# HELP {name} {what}", f"# TYPE {name} gauge", *found]
    return "".join(f"{line}\n" for line in lines)


def gather(client: Client, staging_dir: str) -> str:
    """The text for this node. Raises what containerd's calls raise."""
    return text(
        [
            *_captures(client.namespace, look.checkpoints(client)),
            *_restores(records.all_receipts(staging_dir)),
            *_failures(records.all_failures(staging_dir)),
        ]
    )


def _captures(namespace: str, checkpoints: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, dict[str, str], float]]:
    newest: dict[str, tuple[float, Mapping[str, Any]]] = {}
    here = [checkpoint for checkpoint in checkpoints if checkpoint["captured_here"]]
    for checkpoint in here:
        moment = _seconds(checkpoint["taken_at"])
        # Another name of the same checkpoint is no other one.
        if moment is not None and moment > newest.get(checkpoint["container"], (0.0, {}))[0]:
            newest[checkpoint["container"]] = (moment, checkpoint)
    for container, (moment, checkpoint) in newest.items():
        labels = {"namespace": namespace, "workload": container}
        yield "gpuops_capture_timestamp_seconds", labels, moment
        yield "gpuops_capture_bytes", labels, float(checkpoint["size"])
    yield "gpuops_checkpoints", {"namespace": namespace}, float(len({one["digest"] for one in here}))


def _restores(receipts: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, dict[str, str], float]]:
    for receipt in receipts:
        moment = _seconds(receipt.get("finished_at"))
        if moment is None:
            continue
        labels = {"namespace": _inner(receipt, "container", "namespace"), "workload": str(receipt.get("name", ""))}
        yield "gpuops_restore_timestamp_seconds", labels, moment
        for metric, part, key in (
            ("gpuops_restore_outage_seconds", "seconds", "window"),
            ("gpuops_restore_seconds", "seconds", "total"),
            ("gpuops_restore_gpu_bytes", "gpu", "bytes"),
        ):
            value = (receipt.get(part) or {}).get(key)
            if isinstance(value, (int, float)):
                yield metric, labels, float(value)


def _failures(failures: Sequence[records.Failure]) -> Iterator[tuple[str, dict[str, str], float]]:
    last: dict[tuple[str, str], tuple[float, records.Failure]] = {}
    counts: dict[tuple[str, str], int] = {}
    for failure in failures:
        key = (failure.namespace, failure.name)
        counts[key] = counts.get(key, 0) + 1
        moment = _seconds(failure.document.get("failed_at"))
        if moment is not None and moment >= last.get(key, (0.0, failure))[0]:
            last[key] = (moment, failure)
    for (namespace, name), count in counts.items():
        yield "gpuops_failures", {"namespace": namespace, "workload": name}, float(count)
    for (namespace, name), (moment, failure) in last.items():
        labels = {"namespace": namespace, "workload": name}
        for label in ("code", "outcome"):
            labels[label] = _inner(failure.document, "failure", label)
        yield "gpuops_failure_timestamp_seconds", labels, moment


def _inner(document: Mapping[str, Any], part: str, key: str) -> str:
    inner = document.get(part)
    return str(inner.get(key, "")) if isinstance(inner, Mapping) else ""


def _seconds(moment: object) -> float | None:
    """Seconds since 1970 of a time in a document of ours; None for what is none."""
    try:
        found = datetime.datetime.strptime(str(moment), "%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        return None
    return found.replace(tzinfo=datetime.timezone.utc).timestamp()


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def present(path: str, wanted: str, check: bool) -> bool:
    """The file has that text; whether that changes it. Raises NodeError ``metrics_unwritable``, ``disk_full``."""
    try:
        if _read(path) == wanted:
            return False
        if check:
            # What a write would meet.
            os.stat(os.path.dirname(path) or ".")
        else:
            _write(path, wanted)
    except OSError as error:
        raise _unwritable(path, error) from error
    return True


def absent(path: str, check: bool) -> bool:
    """There is no such file; whether that changes it. Raises NodeError ``metrics_unwritable``."""
    if not os.path.lexists(path):
        return False
    if not check:
        try:
            os.unlink(path)
        except OSError as error:
            raise _unwritable(path, error) from error
    return True


def _read(path: str) -> str | None:
    """None for what is no file of ours: others may write in the directory, and a link is replaced, not followed."""
    try:
        with open(
            os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK), encoding="utf-8"
        ) as stream:
            return stream.read()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    except OSError:
        if os.path.islink(path):
            return None
        raise


def _write(path: str, wanted: str) -> None:
    """node_exporter, which reads only names that end with .prom, sees the old text or the new one."""
    number, partial = tempfile.mkstemp(prefix=".gpuops-", dir=os.path.dirname(path))
    try:
        with open(number, "w", encoding="utf-8") as stream:
            stream.write(wanted)
            os.fchmod(stream.fileno(), 0o644)
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
        raise


def _unwritable(path: str, error: OSError) -> NodeError:
    if errors.is_full(error):
        return errors.disk_full(f"The metrics file {path}", error)
    return NodeError(
        "metrics_unwritable",
        f"The metrics file {path} cannot be read, written or removed: {error.strerror}.",
        "Set path to a file in the directory that node_exporter reads (--collector.textfile.directory), and make it.",
        details={"path": path},
    )
