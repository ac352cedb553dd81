# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import stat
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._containerd import client as containerd_client
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import (
    RETRYABLE,
    TERMINAL,
    UNKNOWN,
    AlreadyExistsError,
    DeadlineError,
    NodeError,
    NotFoundError,
    PreconditionError,
    RestoreError,
    RpcError,
    UnavailableError,
    UnimplementedError,
)
from ansible_collections.gpuops.restore.tests.unit.helpers.clock import Clock
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import put
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd, running

pytestmark = pytest.mark.every_python

GET = "containerd.services.containers.v1.Containers/Get"
DELETE = "containerd.services.containers.v1.Containers/Delete"
READ = "containerd.services.content.v1.Content/Read"


# --- what is sent


def test_namespace_and_lease_go_with_every_call(fake: FakeContainerd, client: Client) -> None:
    with client.using_lease("outer"):
        with client.using_lease("inner"):
            client.call("containerd.services.leases.v1.Leases/List")
        client.call("containerd.services.leases.v1.Leases/List")
    client.call("containerd.services.leases.v1.Leases/List")
    assert [call.metadata["containerd-namespace"] for call in fake.seen] == ["tests"] * 3
    assert [call.metadata.get("containerd-lease") for call in fake.seen] == ["inner", "outer", None]


def test_a_lease_ends_with_its_block_also_on_failure(fake: FakeContainerd, client: Client) -> None:
    with pytest.raises(NotFoundError), client.using_lease("mine"):
        client.call(GET, id="nothing")
    client.call("containerd.services.leases.v1.Leases/List")
    assert [call.metadata.get("containerd-lease") for call in fake.seen] == ["mine", None]


def test_streams_carry_namespace_and_lease_too(fake: FakeContainerd, client: Client) -> None:
    digest, _size = put(fake.state, b"data")
    with client.using_lease("mine"):
        assert b"".join(part.data for part in client.server_stream(READ, digest=digest)) == b"data"
    assert fake.seen[-1].metadata["containerd-lease"] == "mine"
    assert fake.seen[-1].metadata["containerd-namespace"] == "tests"


def test_an_address_may_be_a_unix_url(fake: FakeContainerd) -> None:
    with Client(f"unix://{fake.address}", "tests") as found:
        assert found.address == fake.address


def test_large_messages_pass_both_ways(fake: FakeContainerd, client: Client) -> None:
    text = "x" * (20 << 20)
    record = {"id": "large", "labels": {"text": text}}
    client.call("containerd.services.containers.v1.Containers/Create", container=record)
    assert client.call(GET, id="large").container.labels["text"] == text


def test_the_peer_is_the_process_that_listens(client: Client) -> None:
    assert client.peer_pid() == os.getpid()


# --- each status


@pytest.mark.parametrize(
    ("status", "kind", "code", "outcome"),
    [
        ("NOT_FOUND", NotFoundError, "not_found", TERMINAL),
        ("ALREADY_EXISTS", AlreadyExistsError, "already_exists", TERMINAL),
        ("FAILED_PRECONDITION", PreconditionError, "failed_precondition", TERMINAL),
        ("UNAVAILABLE", UnavailableError, "daemon_unavailable", RETRYABLE),
        ("DEADLINE_EXCEEDED", DeadlineError, "deadline_exceeded", UNKNOWN),
        ("UNIMPLEMENTED", UnimplementedError, "not_implemented", TERMINAL),
        ("PERMISSION_DENIED", RpcError, "permission_denied", TERMINAL),
        ("RESOURCE_EXHAUSTED", RpcError, "resource_exhausted", RETRYABLE),
        ("ABORTED", RpcError, "aborted", RETRYABLE),
        ("CANCELLED", RpcError, "cancelled", UNKNOWN),
        ("UNKNOWN", RpcError, "rpc_failed", UNKNOWN),
        ("INTERNAL", RpcError, "rpc_failed", UNKNOWN),
        ("INVALID_ARGUMENT", RpcError, "rpc_failed", UNKNOWN),
        ("OUT_OF_RANGE", RpcError, "rpc_failed", UNKNOWN),
        ("UNAUTHENTICATED", RpcError, "rpc_failed", UNKNOWN),
        ("DATA_LOSS", RpcError, "rpc_failed", UNKNOWN),
    ],
)
def test_every_status_has_its_class_code_and_outcome(
    fake: FakeContainerd, client: Client, status: str, kind: type[RpcError], code: str, outcome: str
) -> None:
    fake.fail("Containers/Delete", status, "open ../x: why.")
    with pytest.raises(RpcError) as caught:
        client.call(DELETE, id="x")
    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.outcome) == (code, outcome)
    assert caught.value.rpc == DELETE
    assert caught.value.details == {"status": status, "text": "open ../x: why."}
    assert f"answered {status} to Containers/Delete: open ../x: why." in caught.value.message
    assert not caught.value.message.endswith("..")


def test_a_failing_stream_is_translated_too(fake: FakeContainerd, client: Client) -> None:
    with pytest.raises(NotFoundError) as caught:
        list(client.server_stream(READ, digest="sha256:none"))
    assert caught.value.rpc == READ


# --- deadlines


def test_a_hanging_call_ends_at_its_deadline(fake: FakeContainerd, client: Client) -> None:
    given = []
    fake.on("Containers/Delete", lambda context: given.append(context.time_remaining()))
    fake.hang("Containers/Delete")
    with pytest.raises(DeadlineError) as caught:
        client.call(DELETE, timeout=0.2, id="x")
    assert caught.value.outcome == UNKNOWN
    # gRPC rounds up.
    assert len(given) == 1 and given[0] < 0.3, "the daemon is told the deadline of this call, not the client's"
    assert fake.count("Containers/Delete") == 1


def test_the_clients_own_timeout_holds_where_none_is_given(fake: FakeContainerd) -> None:
    fake.hang("Containers/Get")
    with Client(fake.address, "tests", timeout=0.2) as found, pytest.raises(DeadlineError):
        found.call(GET, id="x")


def test_a_hanging_stream_ends_at_its_deadline(fake: FakeContainerd, client: Client) -> None:
    fake.hang("Content/Read")
    with pytest.raises(DeadlineError):
        list(client.server_stream(READ, timeout=0.2, digest="sha256:x"))


RESET = "Received RST_STREAM with error code 8"


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("name", ["Tasks/Wait", "Content/Read"])
def test_a_stream_that_the_daemon_resets_at_the_deadline_has_met_it(
    fake: FakeContainerd, name: str, early: bool
) -> None:
    """On a busy node containerd 2.1 notices the deadline before this process does."""
    clock = Clock()
    fake.on(name, lambda _context: clock.sleep(9.0 if early else 10.0))
    fake.fail(name, "CANCELLED", RESET)
    path = f"containerd.services.{'tasks' if name == 'Tasks/Wait' else 'content'}.v1.{name}"
    with Client(fake.address, "tests", clock=clock, sleep=clock.sleep) as found:
        call = (
            found.call if name == "Tasks/Wait" else lambda *args, **fields: list(found.server_stream(*args, **fields))
        )
        with pytest.raises(RpcError) as caught:
            call(path, timeout=10.0)
    assert (caught.value.code == "cancelled") is early
    assert isinstance(caught.value, DeadlineError) is not early


def test_an_abandoned_stream_is_cancelled(fake: FakeContainerd, client: Client) -> None:
    ended = threading.Event()
    digest, _size = put(fake.state, b"x" * (40 << 20))
    fake.on("Content/Read", lambda context: context.add_callback(ended.set))
    for _part in client.server_stream(READ, digest=digest):
        break
    assert ended.wait(30)


# --- the daemon restarts


def test_a_read_is_repeated_when_its_connection_breaks(fake: FakeContainerd, client: Client) -> None:
    fake.drop("Containers/Get", times=2)
    with pytest.raises(NotFoundError):
        client.call(GET, id="x")
    assert fake.count("Containers/Get") == 3


def test_a_change_in_flight_is_not_repeated(fake: FakeContainerd, client: Client) -> None:
    fake.drop("Containers/Delete", times=1)
    with pytest.raises(UnavailableError):
        client.call(DELETE, id="x")
    assert fake.count("Containers/Delete") == 1


@pytest.mark.parametrize(
    "text", ["recvmsg:Connection reset by peer", "dial unix /shim: connect: connection refused", "Socket closed"]
)
def test_a_text_about_connections_does_not_make_a_change_repeatable(
    fake: FakeContainerd, client: Client, text: str
) -> None:
    fake.fail("Containers/Delete", "UNAVAILABLE", text)
    with pytest.raises(UnavailableError):
        client.call(DELETE, id="x")
    assert fake.count("Containers/Delete") == 1


def notice(client: Client) -> None:
    """Have gRPC know that its connection broke; older releases first write a call to it, which then is in doubt."""
    client._reopen()


@pytest.mark.parametrize(("path", "name"), [(GET, "Containers/Get"), (DELETE, "Containers/Delete")])
def test_a_call_while_the_daemon_is_down_waits_for_it(fake: FakeContainerd, path: str, name: str) -> None:
    clock = Clock(5.0, fake.start)
    with Client(fake.address, "tests", 5, reconnect_seconds=10, clock=clock, sleep=clock.sleep) as found:
        fake.stop()
        notice(found)
        with pytest.raises(NotFoundError):
            found.call(path, id="x")
        assert fake.count(name) == 1


def test_a_call_while_the_socket_file_is_gone_waits_too(fake: FakeContainerd) -> None:
    clock = Clock(5.0, fake.start)
    with Client(fake.address, "tests", 5, reconnect_seconds=10, clock=clock, sleep=clock.sleep) as found:
        fake.stop()
        notice(found)
        os.unlink(fake.address)
        with pytest.raises(NotFoundError):
            found.call(DELETE, id="x")


def test_the_client_works_on_after_a_restart(fake: FakeContainerd, client: Client) -> None:
    fake.stop()
    fake.start()
    with pytest.raises(NotFoundError):
        client.call(GET, id="x")
    with client.using_lease("l"):
        client.call("containerd.services.leases.v1.Leases/List")
    assert fake.seen[-1].metadata["containerd-lease"] == "l"


def test_waiting_for_the_daemon_is_bounded(fake: FakeContainerd) -> None:
    clock = Clock()
    with Client(fake.address, "tests", 5, reconnect_seconds=2, clock=clock, sleep=clock.sleep) as found:
        fake.stop()
        notice(found)
        with pytest.raises(UnavailableError) as caught:
            found.call(DELETE, id="x")
    assert 2.0 <= clock.now <= 2.2
    assert (caught.value.code, caught.value.outcome) == ("daemon_unavailable", RETRYABLE)


def test_opening_waits_for_a_daemon_that_comes_up(fake: FakeContainerd) -> None:
    fake.stop()
    clock = Clock(5.0, fake.start)
    with Client(fake.address, "tests", reconnect_seconds=10, clock=clock, sleep=clock.sleep) as found:
        assert found.peer_pid() == os.getpid()
    assert 5.0 <= clock.now <= 5.2


# --- what is not a containerd


def test_no_socket(tmp_path: Path) -> None:
    clock = Clock()
    with pytest.raises(NodeError) as caught:
        Client(str(tmp_path / "none.sock"), "tests", clock=clock, sleep=clock.sleep)
    assert 3.0 <= clock.now <= 3.2, "a daemon that restarts takes its socket away for a moment"
    assert (caught.value.code, caught.value.outcome) == ("socket_absent", TERMINAL)
    assert "none.sock" in caught.value.message


def test_nobody_listens(tmp_path: Path) -> None:
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as left:
        left.bind(str(tmp_path / "left.sock"))
    clock = Clock()
    with pytest.raises(NodeError) as caught:
        Client(str(tmp_path / "left.sock"), "tests", reconnect_seconds=10, clock=clock, sleep=clock.sleep)
    assert 10.0 <= clock.now <= 10.2
    assert (caught.value.code, caught.value.outcome) == ("daemon_unavailable", RETRYABLE)
    assert "Connection refused" in caught.value.message


def as_nobody(address: str) -> str:
    """What an unprivileged user is told, in a process of its own."""
    ours, theirs = os.pipe()
    with warnings.catch_warnings():
        # The parent has threads: nothing but this may happen in the child.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        signal.alarm(5)
        text = "no error"
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            Client(address, "tests", reconnect_seconds=0.1)
        except RestoreError as error:
            text = f"{error.code}: {error.message}"
        finally:
            os.write(theirs, text.encode())
            os._exit(0)
    os.close(theirs)
    with open(ours, encoding="utf-8") as stream:
        text = stream.read()
    os.waitpid(child, 0)
    return text


@pytest.mark.parametrize(("directory_mode", "socket_mode"), [(0o711, 0o600), (0o700, 0o666)])
def test_no_permission(directory_mode: int, socket_mode: int) -> None:
    directory = tempfile.mkdtemp()
    try:
        address = os.path.join(directory, "c.sock")
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener:
            listener.bind(address)
            listener.listen(1)
            os.chmod(address, socket_mode)
            os.chmod(directory, directory_mode)
            text = as_nobody(address)
    finally:
        shutil.rmtree(directory)
    assert text.startswith("socket_permission: ")
    assert "65534" in text and address in text


@contextlib.contextmanager
def listener(directory: Path, answer: bytes) -> Iterator[str]:
    """Accepts; answers nothing and closes, or whatever is asked with ``answer``."""
    address = str(directory / "other.sock")
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(address)
    bound.listen(8)

    def serve() -> None:
        while True:
            try:
                connection, _peer = bound.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                if answer:
                    connection.recv(1 << 16)
                    connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield address
    finally:
        bound.shutdown(socket.SHUT_RDWR)
        bound.close()
        thread.join()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", b"\0" * 4096])
def test_something_else_listens(tmp_path: Path, answer: bytes) -> None:
    with listener(tmp_path, answer) as address, pytest.raises(NodeError) as caught:
        Client(address, "tests", timeout=2, reconnect_seconds=0.5)
    assert (caught.value.code, caught.value.outcome) == ("not_containerd", TERMINAL)
    assert address in caught.value.message


def test_another_grpc_server_listens(tmp_path: Path) -> None:
    with running(str(tmp_path), without=("Version",)) as other, pytest.raises(NodeError) as caught:
        Client(other.address, "tests")
    assert caught.value.code == "not_containerd"
    assert "UNIMPLEMENTED" in caught.value.message


def test_a_daemon_that_hangs_is_not_called_something_else(fake: FakeContainerd) -> None:
    fake.hang("Version/Version")
    with pytest.raises(NodeError) as caught:
        Client(fake.address, "tests", timeout=0.2)
    assert (caught.value.code, caught.value.outcome) == ("daemon_unavailable", RETRYABLE)


def test_a_daemon_that_goes_while_hands_are_shaken(fake: FakeContainerd) -> None:
    def go(context: Any) -> None:
        gone = threading.Event()
        context.add_callback(gone.set)
        threading.Thread(target=fake.stop, daemon=True).start()
        # Its answer must not be faster than its end.
        gone.wait(30)

    fake.on("Version/Version", go)
    with pytest.raises(NodeError) as caught:
        Client(fake.address, "tests", timeout=2, reconnect_seconds=0.4)
    assert (caught.value.code, caught.value.outcome) == ("daemon_unavailable", RETRYABLE)


def test_a_service_that_the_daemon_lacks(tmp_path: Path) -> None:
    with running(str(tmp_path), without=("Containers",)) as other, Client(other.address, "tests") as found:
        caught = pytest.raises(UnimplementedError, found.call, GET, id="x")
    assert "plugin is disabled" in caught.value.remedy


def test_reads_are_named_as_such_and_nothing_else() -> None:
    """A method that changes something must never get into this set."""
    assert {"Create", "Delete", "Start", "Kill", "Apply", "Prepare", "Commit", "Update", "Exec", "Remove"}.isdisjoint(
        containerd_client._READS
    )


def test_the_socket_that_the_fake_serves_is_one(fake: FakeContainerd) -> None:
    assert stat.S_ISSOCK(os.stat(fake.address).st_mode)


# --- full disks


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("containerd.services.diff.v1.Diff/Apply", "snapshots_no_space"),
        ("containerd.services.snapshots.v1.Snapshots/Prepare", "snapshots_no_space"),
        ("containerd.services.diff.v1.Diff/Diff", "content_no_space"),
        ("containerd.services.content.v1.Content/Info", "content_no_space"),
        ("containerd.services.leases.v1.Leases/List", "containerd_no_space"),
        ("containerd.services.tasks.v1.Tasks/Create", "containerd_no_space"),
    ],
)
@pytest.mark.parametrize("text", ["write /a/b: no space left on device", "mkdir /a: disk quota exceeded"])
def test_a_full_disk_has_its_own_code_and_is_retryable(
    fake: FakeContainerd, client: Client, call: str, code: str, text: str
) -> None:
    fake.fail(call.rsplit(".", 1)[1], "UNKNOWN", text)
    with pytest.raises(RpcError) as caught:
        client.call(call)
    assert (caught.value.code, caught.value.outcome) == (code, RETRYABLE)
    assert text in caught.value.message and "Free space" in caught.value.remedy


@pytest.mark.parametrize(
    "text",
    [
        "write /sys/fs/cgroup/cpuset/a/cgroup.procs: no space left on device",
        "inotify_add_watch: no space left on device",
    ],
)
def test_what_is_no_disk_is_not_taken_for_one(fake: FakeContainerd, client: Client, text: str) -> None:
    fake.fail("Tasks/Create", "UNKNOWN", text)
    with pytest.raises(RpcError) as caught:
        client.call("containerd.services.tasks.v1.Tasks/Create")
    assert caught.value.code == "rpc_failed"
