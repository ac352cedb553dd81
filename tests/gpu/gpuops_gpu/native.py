# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's usual containerd, runc and CRIU, of Debian, as a folder that runs on Ubuntu 24.04.

Layout below the target: ``bin`` (for containerd's PATH), ``native`` (programs behind a wrapper in ``bin``), ``lib``
(their libraries, without the C library: that is the host's), ``native.json`` (package versions).
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "lab"))

from gpuops_lab import root  # noqa: E402
from gpuops_lab.config import LabError  # noqa: E402

# The host's C library serves these: Go programs, and runc, whose libseccomp every Ubuntu has because apt needs it.
PLAIN = ("usr/bin/containerd", "usr/bin/ctr", "usr/bin/containerd-shim-runc-v2", "usr/sbin/runc")
# Program behind the wrapper, and the names that it is called by; xtables takes the name as its first argument.
WRAPPED = {
    "usr/sbin/criu": ("criu",),
    "usr/bin/ip": ("ip",),
    "usr/sbin/xtables-nft-multi": (
        "iptables",
        "iptables-restore",
        "iptables-save",
        "ip6tables",
        "ip6tables-restore",
        "ip6tables-save",
    ),
}
PACKAGES = ("containerd", "runc", "criu", "iptables", "iproute2")
EXTENSIONS = "usr/lib/x86_64-linux-gnu/xtables"
HOST_LIBRARIES = re.compile(r"(ld-linux|libc|libm|libdl|libpthread|librt|libresolv)[-.].*")
# Ubuntu 24.04.
HOST_GLIBC = (2, 39)
WRAPPER = """\
#!/bin/sh
here=${{0%/*}}
export LD_LIBRARY_PATH="$here/../lib${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}" XTABLES_LIBDIR="$here/../lib/xtables"
exec "$here/../native/{program}"{applet} "$@"
"""


def build(source: pathlib.Path, target: pathlib.Path) -> None:
    """Fill the target from a Debian root; raises LabError when something would not run on the host."""
    for name in ("bin", "native", "lib"):
        (target / name).mkdir(parents=True)
    for path in PLAIN:
        _copy(source / path, target / "bin")
    libraries: set[pathlib.Path] = set()
    for path, names in WRAPPED.items():
        program = _real(source, pathlib.Path("/", path))
        _copy(source / program.relative_to("/"), target / "native")
        libraries |= _libraries(source, program)
        for name in names:
            wrapper = target / "bin" / name
            applet = f" {name}" if len(names) > 1 else ""
            wrapper.write_text(WRAPPER.format(program=program.name, applet=applet))
            wrapper.chmod(0o755)
    for library in sorted(libraries):
        _copy(source / _real(source, library).relative_to("/"), target / "lib", library.name)
    shutil.copytree(source / EXTENSIONS, target / "lib" / "xtables", symlinks=True)
    for made in (*target.glob("bin/*"), *target.glob("native/*"), *target.glob("lib/*.so*")):
        _require_glibc(made)


def _real(source: pathlib.Path, path: pathlib.Path) -> pathlib.Path:
    """The file behind a path of that root, as a path of that root."""
    result = subprocess.run(["chroot", str(source), "readlink", "-f", str(path)], capture_output=True, text=True)
    if result.returncode:
        raise LabError(f"the lab's root has no {path}")
    return pathlib.Path(result.stdout.strip())


def _libraries(source: pathlib.Path, program: pathlib.Path) -> set[pathlib.Path]:
    result = subprocess.run(["chroot", str(source), "ldd", str(program)], capture_output=True, text=True)
    found = {pathlib.Path(path) for path in re.findall(r"=> (/\S+)", result.stdout)}
    if result.returncode or not found:
        raise LabError(f"ldd says nothing of {program}: {result.stderr.strip()}")
    return {path for path in found if not HOST_LIBRARIES.fullmatch(path.name)}


def _copy(source: pathlib.Path, directory: pathlib.Path, name: str = "") -> None:
    target = directory / (name or source.name)
    shutil.copyfile(source, target)
    target.chmod(0o755)


def _require_glibc(path: pathlib.Path) -> None:
    """Versions of the C library's symbols stand in the file as text."""
    found = {tuple(map(int, text.split(b"."))) for text in re.findall(rb"GLIBC_(2\.\d+)", path.read_bytes())}
    if found and max(found) > HOST_GLIBC:
        raise LabError(f"{path.name} needs glibc {'.'.join(map(str, max(found)))}, and Ubuntu 24.04 has 2.39")


@contextlib.contextmanager
def _merged(layers: Sequence[str]) -> Iterator[pathlib.Path]:
    """The lab's read-only layers, topmost first, as one root."""
    with tempfile.TemporaryDirectory() as directory:
        if len(layers) == 1:
            yield pathlib.Path(layers[0])
            return
        options = f"ro,lowerdir={':'.join(layers)}"
        subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", directory], check=True)
        try:
            yield pathlib.Path(directory)
        finally:
            subprocess.run(["umount", directory], check=True)


def main(target: pathlib.Path) -> None:
    """Fill the target from the lab's layers."""
    layers = root.lower_directories("1.7")
    with _merged(layers) as source:
        build(source, target)
    versions = root.package_versions([pathlib.Path(layer) for layer in layers], PACKAGES)
    (target / "native.json").write_text(json.dumps(versions, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main(pathlib.Path(sys.argv[1]))
    except LabError as error:
        sys.exit(f"gpu-bundle: {error}")
