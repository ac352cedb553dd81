# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The adaptation of OCI specs."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core import labels
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError
from ansible_collections.gpuops.restore.plugins.module_utils._oci import spec_adapt, spec_namespaces
from ansible_collections.gpuops.restore.tests.unit.helpers.specs import KUBELET_POD, OLD_CGROUP, SHM, cri_spec, ctr_spec

CONFIG = "/var/lib/gpuops-restore/work/k8s.io/train/criu.conf"


def adaptation(**values: Any) -> spec_adapt.Adaptation:
    """A usual adaptation, with some values of one's own."""
    usual: dict[str, Any] = {
        "container_id": "train",
        "cgroups_path": "system.slice:gpuops-restore:train",
        "criu_config_path": CONFIG,
    }
    return spec_adapt.Adaptation(**{**usual, **values})


def namespace(spec: dict[str, Any], kind: str) -> Any:
    """The entry of one type, or None."""
    return next((entry for entry in spec["linux"]["namespaces"] if entry["type"] == kind), None)


def test_a_pods_container_leaves_its_pod_and_keeps_the_rest() -> None:
    original = cri_spec()
    before = copy.deepcopy(original)
    adapted = spec_adapt.adapt(original, adaptation(network="/run/netns/train"))
    spec = adapted.spec

    assert original == before
    assert "/proc/" not in json.dumps(spec["linux"]["namespaces"])
    assert namespace(spec, "ipc") == {"type": "ipc"}
    assert namespace(spec, "uts") == {"type": "uts"}
    assert namespace(spec, "network") == {"type": "network", "path": "/run/netns/train"}
    assert [entry["type"] for entry in spec["linux"]["namespaces"]] == [
        entry["type"] for entry in before["linux"]["namespaces"]
    ]
    assert spec["linux"]["cgroupsPath"] == "system.slice:gpuops-restore:train"
    assert spec["annotations"] == {
        "example.com/team": "vision",
        "example.com/webhook-token": "t0ps3cret",
        "org.criu.config": CONFIG,
    }
    assert "hooks" not in spec
    assert spec["process"] == before["process"]
    assert spec["mounts"] == before["mounts"]
    assert spec["linux"]["resources"] == before["linux"]["resources"]
    assert spec_adapt.mount_label(spec) == "system_u:object_r:container_file_t:s0:c1,c2"
    assert spec_adapt.mount_label(ctr_spec()) is None

    changes, warnings = "\n".join(adapted.changes), "\n".join(adapted.warnings)
    for part in (
        "/proc/1234/ns/ipc",
        "/proc/1234/ns/uts",
        "/proc/1234/ns/net",
        OLD_CGROUP,
        "cdi.k8s.io/nvidia",
    ):
        assert part in changes
    assert SHM in warnings
    assert "nvidia-cdi-hook" in warnings
    assert all(sentence.endswith(".") for sentence in adapted.changes + adapted.warnings)


def test_adapting_twice_changes_nothing_more() -> None:
    wanted = adaptation(network="/run/netns/train", env={"A": "b"})
    once = spec_adapt.adapt(cri_spec(), wanted)
    twice = spec_adapt.adapt(once.spec, wanted)
    assert twice.spec == once.spec
    assert twice.changes == []


def test_a_container_without_a_pod_hardly_changes() -> None:
    adapted = spec_adapt.adapt(ctr_spec(), adaptation(cgroups_path="/gpuops-restore/c"))
    expected = ctr_spec()
    expected["linux"]["cgroupsPath"] = "/gpuops-restore/c"
    expected["annotations"] = {"org.criu.config": CONFIG}
    assert adapted.spec == expected
    assert adapted.warnings == []


@pytest.mark.parametrize(
    ("entry", "network", "fresh", "expected"),
    [
        ({"type": "network", "path": "/proc/9/ns/net"}, "host", "", "/proc/1/ns/net"),
        ({"type": "network", "path": "/proc/9/ns/net"}, "none", "/run/netns/f", "/run/netns/f"),
        ({"type": "network", "path": "/proc/9/ns/net"}, None, "/run/netns/f", "/run/netns/f"),
        ({"type": "network", "path": "//proc/9/ns/net"}, None, "/run/netns/f", "/run/netns/f"),
        ({"type": "network", "path": "/run/netns/cni-1"}, None, "/run/netns/f", "/run/netns/cni-1"),
        ({"type": "network", "path": "/var/run/netns/cni-1"}, "none", "/run/netns/f", "/run/netns/f"),
        ({"type": "network", "path": "/var/run/netns/cni-1"}, "/run/netns/x", "", "/run/netns/x"),
        ({"type": "network"}, None, "", ""),
        ({"type": "network"}, "none", "/run/netns/f", ""),
        (None, None, "", None),
        (None, "host", "", None),
    ],
)
def test_network(entry: Any, network: str | None, fresh: str, expected: str | None) -> None:
    spec = ctr_spec()
    spec["linux"]["namespaces"] = [{"type": "pid"}] + ([entry] if entry else [])
    adapted = spec_adapt.adapt(spec, adaptation(network=network, fresh_netns=fresh)).spec
    found = namespace(adapted, "network")
    assert (found.get("path", "") if found else None) == expected
    needs = spec_namespaces.needs_fresh_netns(spec, network)
    assert needs is (expected == "/run/netns/f")


@pytest.mark.parametrize(
    ("entry", "network", "code"),
    [
        ({"type": "network", "path": "/proc/9/ns/net"}, None, "network_path_required"),
        ({"type": "network", "path": "/run/netns/a"}, "none", "network_path_required"),
        ({"type": "network", "path": "/run/netns/a"}, "/proc/7/ns/net", "network_invalid"),
        ({"type": "network", "path": "/run/netns/a"}, "bridge", "network_invalid"),
        ({"type": "network"}, "host", "network_unmovable"),
        ({"type": "network"}, "/run/netns/x", "network_unmovable"),
        (None, "none", "network_unmovable"),
        (None, "cni:/etc/cni/net.d/x.conflist", "network_unmovable"),
        ({"type": "network"}, "cni:x.conflist", "network_invalid"),
        (None, "/run/netns/x", "network_unmovable"),
    ],
)
def test_networks_that_criu_cannot_give_are_refused(entry: Any, network: str | None, code: str) -> None:
    spec = ctr_spec()
    spec["linux"]["namespaces"] = [{"type": "pid"}] + ([entry] if entry else [])
    with pytest.raises(InputError) as caught:
        spec_adapt.adapt(spec, adaptation(network=network))
    assert caught.value.code == code
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("entry", "path"), [({"type": "network"}, ""), ({"type": "network", "path": "/run/netns/a"}, "/run/netns/f")]
)
def test_a_network_that_cni_makes_anew(entry: dict[str, str], path: str) -> None:
    """Only what the operator says names a configuration, never the checkpoint."""
    spec = ctr_spec()
    spec["linux"]["namespaces"] = [{"type": "pid"}, entry]
    spec["annotations"] = {labels.CNI: "/etc/stranger"}
    assert labels.CNI not in spec_adapt.adapt(spec, adaptation()).spec["annotations"]
    config = "/etc/cni/net.d/x.conflist"
    assert spec_namespaces.needs_fresh_netns(spec, f"cni:{config}") is bool(path)
    adapted = spec_adapt.adapt(spec, adaptation(network=f"cni:{config}", fresh_netns=path and "/run/netns/f"))
    assert adapted.spec["annotations"][labels.CNI] == config
    assert (namespace(adapted.spec, "network") or {}).get("path", "") == path
    assert any(config in change for change in adapted.changes)


@pytest.mark.parametrize(
    ("entry", "path"), [({"type": "network"}, ""), ({"type": "network", "path": "/run/netns/a"}, "/run/netns/a")]
)
def test_a_network_that_a_command_makes_anew(entry: dict[str, str], path: str) -> None:
    """Only what the operator says names a program, never the checkpoint."""
    spec = ctr_spec()
    spec["linux"]["namespaces"] = [{"type": "pid"}, entry]
    spec["annotations"] = {labels.NETWORK_COMMAND: '["/bin/stranger"]'}
    assert labels.NETWORK_COMMAND not in spec_adapt.adapt(spec, adaptation()).spec["annotations"]
    adapted = spec_adapt.adapt(spec, adaptation(network_command=("/sbin/net", "up now")))
    assert json.loads(adapted.spec["annotations"][labels.NETWORK_COMMAND]) == ["/sbin/net", "up now"]
    assert (namespace(adapted.spec, "network") or {}).get("path", "") == path
    assert any("/sbin/net" in change for change in adapted.changes)


@pytest.mark.parametrize(
    ("entry", "network", "command"),
    [
        ({"type": "network"}, None, ("net",)),
        ({"type": "network"}, None, ("",)),
        ({"type": "network"}, None, ("/sbin/net", "a\0b")),
        ({"type": "network"}, "cni:/etc/cni/net.d/x.conflist", ("/sbin/net",)),
        ({"type": "network", "path": "/run/netns/a"}, "host", ("/sbin/net",)),
        (None, None, ("/sbin/net",)),
    ],
)
def test_commands_that_can_make_no_network(entry: Any, network: str | None, command: tuple[str, ...]) -> None:
    spec = ctr_spec()
    spec["linux"]["namespaces"] = [{"type": "pid"}, *([entry] if entry else [])]
    with pytest.raises(InputError) as caught:
        spec_adapt.adapt(spec, adaptation(network=network, network_command=command))
    assert caught.value.code == "network_invalid"


def test_a_lost_network_is_a_warning() -> None:
    adapted = spec_adapt.adapt(cri_spec(), adaptation(fresh_netns="/run/netns/fresh"))
    assert any("/run/netns/fresh" in warning and "empty" in warning for warning in adapted.warnings)


def test_network_sysctls_do_not_go_to_the_nodes_network() -> None:
    spec = cri_spec()
    spec["linux"]["sysctl"] = {"net.core.somaxconn": "1024", "kernel.shmmax": "1"}
    with pytest.raises(InputError) as caught:
        spec_adapt.adapt(spec, adaptation(network="host"))
    assert caught.value.code == "network_sysctl"
    assert "kernel" not in caught.value.message


def test_shared_and_unmapped_namespaces() -> None:
    shared = ctr_spec()
    shared["linux"]["namespaces"][0]["path"] = "/proc/77/ns/pid"
    with pytest.raises(InputError) as caught:
        spec_adapt.adapt(shared, adaptation())
    assert caught.value.code == "pid_namespace_shared"

    user = ctr_spec()
    user["linux"]["namespaces"].append({"type": "user", "path": "/proc/77/ns/user"})
    with pytest.raises(InputError) as caught:
        spec_adapt.adapt(user, adaptation())
    assert caught.value.code == "user_namespace_unmapped"
    user["linux"]["uidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    assert namespace(spec_adapt.adapt(user, adaptation()).spec, "user") == {"type": "user"}

    assert spec_namespaces.mapped_root(user) is None
    user["linux"]["gidMappings"] = [{"containerID": 5, "hostID": 1, "size": 1}, {"hostID": 200000, "size": 65536}]
    assert spec_namespaces.mapped_root(user) == (100000, 200000)
    assert spec_namespaces.mapped_root(ctr_spec()) is None

    host_pid = ctr_spec()
    del host_pid["linux"]["namespaces"][0]
    assert any("process ids" in warning for warning in spec_adapt.adapt(host_pid, adaptation()).warnings)


def test_mounts_follow_their_mapping_at_path_boundaries_and_the_longest_wins() -> None:
    spec = cri_spec()
    spec["mounts"].append({"destination": "/other", "type": "none", "source": "/data-2/x", "options": ["bind"]})
    spec["mounts"].append({"destination": "/third", "type": "bind", "source": "/data/x", "options": []})
    adapted = spec_adapt.adapt(
        spec,
        adaptation(
            network="host",
            mounts={KUBELET_POD: "/srv/pod", f"{KUBELET_POD}/etc-hosts": "/etc/hosts", "/data": "/d"},
        ),
    )
    sources = {mount["destination"]: mount["source"] for mount in adapted.spec["mounts"]}
    assert sources["/data"] == "/srv/pod/volumes/kubernetes.io~csi/data/mount"
    assert sources["/etc/hosts"] == "/etc/hosts"
    assert sources["/other"] == "/data-2/x"
    assert sources["/third"] == "/d/x"
    assert sources["/proc"] == "proc"


def test_a_mapping_for_nothing_names_the_sources_there_are() -> None:
    with pytest.raises(InputError) as caught:
        spec_adapt.adapt(cri_spec(), adaptation(network="host", mounts={"/var/lib/kubelet/pods/1b4e": "/x"}))
    assert caught.value.code == "mount_mapping_unused"
    assert SHM in caught.value.message


@pytest.mark.parametrize("mapping", [{"data": "/x"}, {"/a/../b": "/x"}, {SHM: "/x/"}, {SHM: "x"}, {SHM: "//x"}])
def test_mappings_are_plain_paths(mapping: dict[str, str]) -> None:
    with pytest.raises(InputError) as caught:
        spec_adapt.adapt(cri_spec(), adaptation(network="host", mounts=mapping))
    assert caught.value.code == "mount_mapping_invalid"


def test_what_the_spec_does_not_name_is_added_by_its_place() -> None:
    added = {"/lib/libcuda.so.1": "/srv/libcuda.so.1"}
    adapted = spec_adapt.adapt(ctr_spec(), adaptation(added_mounts=added))
    bound = {"destination": "/lib/libcuda.so.1", "type": "bind", "source": "/srv/libcuda.so.1"}
    assert adapted.spec["mounts"][-1] == {**bound, "options": ["bind", "rprivate"]}
    told = "The mount at /lib/libcuda.so.1, which the spec does not name, comes from /srv/libcuda.so.1."
    assert told in adapted.changes


@pytest.mark.parametrize("added", [{"/proc": "/x"}, {"lib": "/x"}, {"/lib/": "/x"}, {"/lib": "x"}])
def test_what_is_added_is_not_there_yet_and_has_plain_paths(added: dict[str, str]) -> None:
    with pytest.raises(InputError) as caught:
        spec_adapt.adapt(ctr_spec(), adaptation(added_mounts=added))
    assert caught.value.code == "mount_mapping_invalid"


def test_binds_below_proc_are_told_to_criu_alone() -> None:
    """runc makes some of them; the annotation is ours, whatever the original has there."""
    spec = ctr_spec()
    before = len(spec["mounts"])
    for place, source in (("/proc/driver/nvidia/params", "/old/params"), ("/proc/cpuinfo", "/srv/cpuinfo")):
        spec["mounts"].append({"destination": place, "type": "bind", "source": source, "options": ["rbind"]})
    spec["annotations"] = {"io.gpuops.restore/external-mounts": '{"/": "/"}'}
    adapted = spec_adapt.adapt(spec, adaptation(mounts={"/old": "/new"})).spec
    assert spec_adapt.external_mounts(adapted) == {"/proc/driver/nvidia/params": "/new/params"}
    assert [mount["destination"] for mount in adapted["mounts"][before:]] == ["/proc/cpuinfo"]
    again = spec_adapt.adapt({**spec, "mounts": spec["mounts"][:before]}, adaptation()).spec
    assert spec_adapt.external_mounts(again) == {}
    assert "io.gpuops.restore/external-mounts" not in again["annotations"]


def test_annotations_and_hooks_stay_where_allowed() -> None:
    adapted = spec_adapt.adapt(
        cri_spec(),
        adaptation(
            network="host",
            allow_hooks=True,
            allow_annotations=("cdi.k8s.io/*", "io.kubernetes.cri.container-name", "io.kubernetes.cri"),
        ),
    )
    assert adapted.spec["hooks"] == cri_spec()["hooks"]
    assert sorted(name for name in adapted.spec["annotations"] if not name.startswith("example")) == [
        "cdi.k8s.io/nvidia",
        "io.kubernetes.cri.container-name",
        "org.criu.config",
    ]


def test_cri_o_annotations_go() -> None:
    spec = ctr_spec()
    spec["annotations"] = {"io.kubernetes.cri-o.SandboxID": "x", "io.container.manager": "cri-o"}
    assert sorted(spec_adapt.adapt(spec, adaptation()).spec["annotations"]) == [
        "io.container.manager",
        "org.criu.config",
    ]


def test_environment_is_replaced_not_doubled_and_not_told() -> None:
    adapted = spec_adapt.adapt(cri_spec(), adaptation(network="host", env={"HF_TOKEN": "v4lue", "EXTRA": "1"}))
    env = adapted.spec["process"]["env"]
    assert [item for item in env if item.startswith("HF_TOKEN")] == ["HF_TOKEN=v4lue"]
    assert "EXTRA=1" in env
    assert "PATH=/usr/bin" in env
    assert "v4lue" not in "\n".join(adapted.changes)
    for name in ("", "A=B", "A\0"):
        with pytest.raises(InputError) as caught:
            spec_adapt.adapt(ctr_spec(), adaptation(env={name: "x"}))
        assert caught.value.code == "env_invalid"


def test_the_root_is_the_snapshot() -> None:
    spec = ctr_spec()
    spec["root"] = {"path": "/var/lib/containers/storage/overlay/ab/merged", "readonly": True}
    adapted = spec_adapt.adapt(spec, adaptation())
    assert adapted.spec["root"] == {"path": "rootfs", "readonly": True}
    assert any("/var/lib/containers" in change for change in adapted.changes)


def test_cgroups_below_kubepods_are_refused() -> None:
    for path, code in (
        ("/kubepods/burstable/x", "cgroups_path_kubepods"),
        ("kubepods-burstable.slice:cri-containerd:x", "cgroups_path_kubepods"),
        ("", "cgroups_path_invalid"),
        ("relative", "cgroups_path_invalid"),
    ):
        with pytest.raises(InputError) as caught:
            spec_adapt.adapt(ctr_spec(), adaptation(cgroups_path=path))
        assert caught.value.code == code


def broken(path: str, value: Any) -> dict[str, Any]:
    """A pod's spec with one value replaced, or removed if the value is Ellipsis."""
    spec: Any = cri_spec()
    *parents, last = path.split(".")
    place = spec
    for key in parents:
        place = place[int(key)] if key.isdigit() else place[key]
    if value is ...:
        del place[last]
    else:
        place[int(last) if last.isdigit() else last] = value
    result: dict[str, Any] = spec
    return result


@pytest.mark.parametrize(
    "spec",
    [
        None,
        [],
        "{}",
        {},
        broken("ociVersion", ...),
        broken("process", ...),
        broken("root", ...),
        broken("linux", ...),
        broken("root", {}),
        broken("process.args", "sh"),
        broken("process.env", [1]),
        broken("process.terminal", "yes"),
        broken("process.oomScoreAdj", True),
        broken("mounts", {}),
        broken("mounts.0", "x"),
        broken("mounts.0", {"source": "x"}),
        broken("mounts.2.source", "relative"),
        broken("mounts.2.source", 5),
        broken("mounts.2.options", "rbind"),
        broken("annotations.x", 1),
        broken("hooks", []),
        broken("hooks.prestart", [{}]),
        broken("hooks.prestart", [{"path": "/x", "env": "A=b"}]),
        broken("linux.namespaces.0", {"type": "uts"}),
        broken("linux.namespaces.0", {"type": "nonsense"}),
        broken("linux.namespaces.0", {"type": "pid", "path": 3}),
        broken("linux.resources", []),
        broken("linux.devices.0", {"path": "/dev/x", "type": "c", "major": "195"}),
        broken("linux.cgroupsPath", 1),
        broken("linux.sysctl", ["net.core.somaxconn"]),
        broken("linux.sysctl", {"net.core.somaxconn": 5}),
        broken("linux.sysctl", "net"),
        broken("linux.resources.memory", [1]),
        broken("linux.uidMappings", [{"hostID": "0"}]),
        broken("process.capabilities", {"bounding": "CAP_SYS_ADMIN"}),
        broken("process.rlimits", [None]),
        broken("mounts.2.source", "/srv/a\0b"),
        broken("mounts.2.source", "/srv/\ud800"),
        broken("mounts.2.destination", "/srv/\udfff"),
        broken("mounts.2.options", ["rbind\0"]),
        broken("linux.devices.0.path", "/dev/a\0"),
        broken("linux.namespaces.0", {"type": "network", "path": "/run/netns/\ud800"}),
        broken("linux.sysctl", {"net.\0": "1"}),
        broken("hooks.unheard", [5]),
        broken("annotations", {"a\ud800": "x"}),
    ],
)
def test_what_is_no_spec_is_refused(spec: Any) -> None:
    with pytest.raises(InputError) as caught:
        spec_adapt.adapt(spec, adaptation(network="host"))
    assert caught.value.code == "spec_invalid"


#: A key of every struct of a spec, as it is spelled; where there is none in the sample, it is put there.
SPELLED = [
    "hooks",
    "annotations",
    "linux",
    "mounts",
    "process.args",
    "process.capabilities",
    "process.user.uid",
    "root.path",
    "hooks.createContainer",
    "hooks.createContainer.0.path",
    "mounts.0.source",
    "mounts.0.options",
    "linux.cgroupsPath",
    "linux.sysctl",
    "linux.seccomp",
    "linux.resources.devices",
    "linux.resources.memory.limit",
    "linux.namespaces.0.type",
    "linux.devices.0.path",
    "linux.maskedPaths",
]


def spelled(path: str, name: str) -> dict[str, Any]:
    """A pod's spec in which the last key of the path stands under another name as well."""
    spec: Any = cri_spec()
    place, (*parents, last) = spec, path.split(".")
    for key in parents:
        place = place[int(key)] if key.isdigit() else place[key]
    place[name] = copy.deepcopy(place.get(last))
    result: dict[str, Any] = spec
    return result


@pytest.mark.parametrize("path", SPELLED)
def test_a_key_that_go_takes_for_another_is_refused_in_every_struct(path: str) -> None:
    last = path.rpartition(".")[2]
    variants = {last.upper(), last.capitalize(), last.swapcase()}
    variants |= {last.replace("s", "\u017f"), last.replace("k", "\u212a")} - {last}
    for name in variants:
        with pytest.raises(InputError) as caught:
            spec_adapt.adapt(spelled(path, name), adaptation(network="host"))
        assert caught.value.code == "spec_invalid"
        assert repr(name) in caught.value.message and repr(last) in caught.value.message


def test_two_unknown_keys_that_are_one_to_go_are_refused() -> None:
    spec = cri_spec()
    spec["linux"].update({"later": 1, "Later": 2})
    with pytest.raises(InputError, match="one to Go"):
        spec_adapt.adapt(spec, adaptation(network="host"))


def test_maps_have_free_keys_and_unknown_fields_are_passed_on() -> None:
    spec = cri_spec()
    spec["annotations"].update({"Hooks": "x", "hooks": "y"})
    spec["linux"]["sysctl"] = {"net.ipv4.x": "1", "Net.ipv4.x": "2"}
    spec["linux"]["later"] = {"A": 1, "a": 2}
    adapted = spec_adapt.adapt(spec, adaptation(network="/run/netns/train")).spec
    assert adapted["annotations"]["Hooks"] == "x" and adapted["annotations"]["hooks"] == "y"
    assert adapted["linux"]["sysctl"] == spec["linux"]["sysctl"]
    assert adapted["linux"]["later"] == {"A": 1, "a": 2}


def test_canonical_text_and_digest_do_not_depend_on_order() -> None:
    spec = cri_spec()
    reordered = dict(reversed(list(spec.items())))
    assert spec_adapt.canonical({"b": [1, "ü"], "a": None}) == '{"a":null,"b":[1,"ü"]}'.encode()
    assert spec_adapt.digest(spec) == spec_adapt.digest(reordered)
    assert spec_adapt.digest(spec).startswith("sha256:")
    assert spec_adapt.digest(spec) != spec_adapt.digest(ctr_spec())
    with pytest.raises(InputError) as caught:
        spec_adapt.canonical({"a": float("nan")})
    assert caught.value.code == "spec_invalid"
