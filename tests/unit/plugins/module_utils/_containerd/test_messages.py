# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._containerd import messages
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import NodeError

pytestmark = pytest.mark.every_python


def test_a_method_has_its_path_messages_and_streams() -> None:
    method = messages.api().method("containerd.services.tasks.v1.Tasks/Start")
    assert method.path == "/containerd.services.tasks.v1.Tasks/Start"
    assert method.request(container_id="a").container_id == "a"
    assert method.response(pid=7).pid == 7
    assert (method.client_streaming, method.server_streaming) == (False, False)


@pytest.mark.parametrize(
    ("name", "streams"), [("Info", (False, False)), ("Read", (False, True)), ("Write", (True, True))]
)
def test_streaming_sides_are_known_with_every_protobuf(name: str, streams: tuple[bool, bool]) -> None:
    method = messages.api().method(f"containerd.services.content.v1.Content/{name}")
    assert (method.client_streaming, method.server_streaming) == streams


def test_protobuf_without_its_compiled_part() -> None:
    """As Debian has it for Python 3.14."""
    script = (
        "from google.protobuf.internal import api_implementation\n"
        f"from {messages.__name__} import api, message\n"
        "method = api().method('containerd.services.content.v1.Content/Write')\n"
        "sent = method.request(ref='a', total=1 << 40).SerializeToString()\n"
        "back = method.request.FromString(sent)\n"
        "print(api_implementation.Type(), method.client_streaming, method.server_streaming, back.ref, back.total)\n"
    )
    environment = {**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment)
    assert done.stdout.split() == ["python", "True", "True", "a", str(1 << 40)], done.stderr


@pytest.mark.parametrize("path", ["containerd.services.tasks.v1.Tasks/Fly", "no.such.Service/Get"])
def test_an_unknown_method_is_a_key_error(path: str) -> None:
    with pytest.raises(KeyError):
        messages.api().method(path)


def test_an_unknown_message_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        messages.api().message("containerd.types.Nothing")


def test_messages_of_messages_maps_and_lists_can_be_given_as_fields() -> None:
    target = messages.message("containerd.types.Descriptor", digest="sha256:1", size=3, annotations={"a": "b"})
    image = messages.message("containerd.services.images.v1.Image", name="n", target=target, labels={"c": "d"})
    again = type(image).FromString(image.SerializeToString())
    assert (again.target.size, dict(again.target.annotations), dict(again.labels)) == (3, {"a": "b"}, {"c": "d"})


def test_a_field_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        messages.message("containerd.types.Mount", nonsense=1)


def test_the_type_url_is_bare_as_containerd_writes_it() -> None:
    packed = messages.pack("containerd.runc.v1.Options", b"\x48\x01")
    assert packed.type_url == "containerd.runc.v1.Options"
    options = messages.message("containerd.runc.v1.Options")
    options.ParseFromString(packed.value)
    assert options.systemd_cgroup is True


def test_newer_fields_of_the_daemon_are_ignored() -> None:
    known = messages.message("containerd.types.Mount", type="bind").SerializeToString()
    newer = known + b"\xf2\x07\x03new"  # field 126, three bytes
    assert messages.api().message("containerd.types.Mount").FromString(newer).type == "bind"


def test_the_pool_is_private() -> None:
    """Another user of the same message names in one process, as grpcio-status is of google.rpc.Status."""
    code = (
        "from google.protobuf import descriptor_pool, descriptor_pb2\n"
        "file = descriptor_pb2.FileDescriptorProto(name='other.proto', package='google.rpc')\n"
        "file.message_type.add(name='Status')\n"
        "descriptor_pool.Default().AddSerializedFile(file.SerializeToString())\n"
        "from ansible_collections.gpuops.restore.plugins.module_utils._containerd import messages\n"
        "print(messages.message('google.rpc.Status', code=3).code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("3\n", "")


def test_a_node_without_grpc_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "GRPC_TRACEBACK", "ImportError: no grpc")
    with pytest.raises(NodeError, match="cannot import grpcio") as caught:
        messages.Api()
    assert (caught.value.code, caught.value.details["missing"]) == ("dependency_missing", ["grpcio"])
