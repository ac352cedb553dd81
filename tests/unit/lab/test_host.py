# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab reads from the host: its cgroup hierarchies and its Debian mirror."""

from __future__ import annotations

import pytest
from gpuops_lab import cgroups, root
from gpuops_lab.config import LabError

HYBRID = """\
29 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
30 29 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
31 29 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory,clone_children
32 29 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
33 29 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
34 29 0:28 / /elsewhere/memory rw - cgroup cgroup rw,memory
35 29 0:28 /part /elsewhere/part rw - cgroup cgroup rw,pids
"""
OWN = "4:name=systemd:/\n3:memory:/a:b\n2:cpu,cpuacct:/\n5:pids:/\n0::/\n"


def test_hybrid_hierarchies_once_each_with_the_options_that_mount_them() -> None:
    assert cgroups.hierarchies(HYBRID, OWN) == [
        cgroups.Hierarchy("/sys/fs/cgroup/cpu,cpuacct", "cpu,cpuacct", False),
        cgroups.Hierarchy("/sys/fs/cgroup/memory", "memory", False),
        cgroups.Hierarchy("/sys/fs/cgroup/systemd", "none,name=systemd", False),
        cgroups.Hierarchy("/sys/fs/cgroup/unified", "", True),
    ]


def test_pure_v2_puts_processes_into_a_leaf() -> None:
    (entry,) = cgroups.hierarchies("29 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "0::/user.slice\n")
    assert str(entry.procs("n1")) == "/sys/fs/cgroup/gpuops-lab/n1/init/cgroup.procs"


def target(address: str, label: str, origin: str = "Debian") -> str:
    return f"MetaKey: x\nOrigin: {origin}\nLabel: {label}\nRepo-URI: {address}\n"


def test_mirrors_are_the_hosts() -> None:
    text = "\n".join(
        [
            target("http://third.example/debian/", "Debian", origin="Third"),
            target("http://mirror.example/debian/", "Debian"),
            target("http://other.example/debian/", "Debian"),
            target("http://mirror.example/security/", "Debian-Security"),
        ]
    )
    assert root.host_mirrors(text) == ("http://mirror.example/debian", "http://mirror.example/security")


def test_before_the_first_update_the_addresses_have_to_do() -> None:
    text = "Repo-URI: http://mirror.example/debian-security/\n\nRepo-URI: http://mirror.example/debian/"
    assert root.host_mirrors(text) == ("http://mirror.example/debian", None)


def test_without_any_mirror_it_says_what_to_do() -> None:
    with pytest.raises(LabError, match="no mirror of Debian"):
        root.host_mirrors("")
