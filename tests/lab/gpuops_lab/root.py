# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nodes' root file systems: a Debian 13 root, and a layer per containerd and CRIU, built into the cache."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence

from gpuops_lab.config import LabError, cache_dir

PACKAGES = (
    "busybox-static",
    "ca-certificates",
    "containerd",
    "criu",
    "docker-registry",
    "iproute2",
    "iptables",
    "openssh-server",
    "procps",
    "python3",
    "python3-grpcio",
    "python3-protobuf",
    "python3-venv",
    "runc",
    "zstd",
)
ROOT_SUITE = "trixie"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Suites that are tried in this order for a containerd of that generation; none: the one of the root itself.
VERSIONS: dict[str, tuple[str, ...]] = {
    "1.6": ("bookworm",),
    "1.7": (),
    "2.1": ("forky", "sid"),
}
# The suites of a CRIU of that version, tried in this order; what it depends on may come from those after the first.
CRIU_VERSIONS: dict[str, tuple[tuple[str, ...], ...]] = {
    "4.1": (),
    "4.2": (("forky",), ("sid",)),
    "4.3": (("experimental", "sid"), ("sid",), ("forky",)),
}
USUAL_CRIU = "4.2"
# Others than the root's: the package whose version counts, what is unpacked, and the suites as above. GPUOPS_RUNC and
# GPUOPS_PYTHON choose one.
OTHERS: dict[str, tuple[str, tuple[str, ...], dict[str, tuple[tuple[str, ...], ...]]]] = {
    "RUNC": ("runc", ("runc",), {"1.3": (("forky",), ("sid",)), "1.4": (("experimental", "sid"), ("sid",))}),
    "PYTHON": (
        "python3",
        ("python3", "python3-grpcio", "python3-protobuf", "python3-venv"),
        {"3.14": (("forky",), ("sid",))},
    ),
}
# Packages that only some nodes need: a layer of their own above the root.
EXTRAS: dict[str, tuple[str, ...]] = {"podman": ("podman",), "cni": ("containernetworking-plugins",)}
# Others than the root's suite has; GPUOPS_PODMAN chooses one.
EXTRA_VERSIONS: dict[str, dict[str, tuple[tuple[str, ...], ...]]] = {
    "podman": {"5.8": (("forky",), ("sid",)), "6": (("experimental", "sid"), ("sid",))}
}
# What a layer's packages say of themselves; dpkg's own status is the root's.
STATUS_DIRECTORY = "var/lib/dpkg/status.d"
EXCLUDED = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")
# Raise this when the way of building changes without the recipe's other values changing.
RECIPE = 1


def lower_directories(version: str, criu: str = "") -> tuple[str, ...]:
    """The read-only layers of a node with that containerd and CRIU, topmost first; builds what the cache lacks.

    Without ``criu`` the environment's GPUOPS_CRIU decides. Raises LabError when a version is unknown or something
    cannot be built.
    """
    criu = criu or os.environ.get("GPUOPS_CRIU") or USUAL_CRIU
    for program, wanted, known in (("containerd", version, sorted(VERSIONS)), ("CRIU", criu, sorted(CRIU_VERSIONS))):
        if wanted not in known:
            raise LabError(f"{program} {wanted} is unknown to the lab; choose one of {', '.join(known)}")
    root = root_directory()
    layers = [root]
    if VERSIONS[version]:
        layers.insert(0, _build_containerd(version, root))
    if CRIU_VERSIONS[criu]:
        layers.insert(0, _build_package("criu", criu, ("criu",), CRIU_VERSIONS[criu], root))
    for program, (package, packages, versions) in OTHERS.items():
        chosen = os.environ.get(f"GPUOPS_{program}")
        if chosen and chosen not in versions:
            raise LabError(f"{package} {chosen} is unknown to the lab; choose one of {', '.join(versions)}")
        if chosen:
            layers.insert(0, _build_package(package, chosen, packages, versions[chosen], root))
    return tuple(map(str, layers))


def extra_directory(name: str) -> pathlib.Path:
    """The read-only layer with the packages of that extra and what they depend on beyond the root; builds it.

    Raises LabError when it cannot be built.
    """
    root = root_directory()
    wanted = os.environ.get(f"GPUOPS_{name.upper()}")
    if wanted:
        known = EXTRA_VERSIONS.get(name, {})
        if wanted not in known:
            raise LabError(f"{name} {wanted} is unknown to the lab; choose one of {', '.join(known)}")
        return _build_package(name, wanted, EXTRAS[name], known[wanted], root)

    def build(target: pathlib.Path) -> None:
        _unpack_packages(EXTRAS[name], (ROOT_SUITE,), root, target)
        # A network that containerd's CRI plugin would take for its own.
        shutil.rmtree(target / "etc/cni", ignore_errors=True)

    return _cached(f"extra-{name}", [RECIPE, ROOT_SUITE, PACKAGES, EXTRAS[name], EXCLUDED], build)


def package_versions(layers: Sequence[pathlib.Path], packages: Sequence[str]) -> dict[str, str]:
    """The version of each package that is installed in these layers, topmost first."""
    found: dict[str, str] = {}
    for layer in layers:
        for status in (layer / "var/lib/dpkg/status", *sorted((layer / STATUS_DIRECTORY).glob("*"))):
            for block in status.read_text().split("\n\n") if status.exists() else ():
                fields = dict(re.findall(r"^(Package|Version): (.*)$", block, re.MULTILINE))
                if fields.get("Package") in packages:
                    found.setdefault(fields["Package"], fields["Version"])
    return found


def host_mirrors(targets: str) -> tuple[str, str | None]:
    """(Debian mirror, security mirror or None) out of the text of `apt-get indextargets`; LabError without a mirror."""
    main: str | None = None
    security: str | None = None
    unlabelled: str | None = None
    for block in targets.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        address = fields.get("Repo-URI", "").rstrip("/")
        if address and "Origin" not in fields and "security" not in address:
            # Before the first apt-get update apt knows addresses only.
            unlabelled = unlabelled or address
        if fields.get("Origin") != "Debian" or not address:
            continue
        if fields.get("Label") == "Debian-Security":
            security = security or address
        elif fields.get("Label") == "Debian":
            main = main or address
    main = main or unlabelled
    if main is None:
        raise LabError("apt of this machine knows no mirror of Debian; add one to its sources and run apt-get update")
    return main, security


def _apt_targets() -> str:
    result = subprocess.run(
        ["apt-get", "indextargets", "Created-By: Packages"], capture_output=True, text=True, check=False
    )
    return result.stdout if result.returncode == 0 else ""


def root_directory() -> pathlib.Path:
    """The Debian root, without any layer."""
    recipe = [RECIPE, ROOT_SUITE, PACKAGES, EXCLUDED]

    def build(target: pathlib.Path) -> None:
        mirror, security = host_mirrors(_apt_targets())
        sources = [f"deb {mirror} {ROOT_SUITE} main", f"deb {mirror} {ROOT_SUITE}-updates main"]
        if security:
            sources.append(f"deb {security} {ROOT_SUITE}-security main")
        command = ["mmdebstrap", "--mode=root", "--variant=minbase", "--quiet", f"--keyring={KEYRING}"]
        command += ['--aptopt=APT::Install-Recommends "false"', f"--include={','.join(PACKAGES)}"]
        command += [f"--dpkgopt=path-exclude={pattern}" for pattern in EXCLUDED]
        _run([*command, ROOT_SUITE, str(target), *sources], "the Debian root")
        for version, suites in VERSIONS.items():
            if not suites:
                _check_version(target / "usr/bin/containerd", version, target)
        # Every node has its own.
        for path in (*target.glob("etc/ssh/ssh_host_*"), target / "etc/hostname", target / "etc/resolv.conf"):
            path.unlink(missing_ok=True)

    return _cached("root", recipe, build)


def _build_containerd(version: str, root: pathlib.Path) -> pathlib.Path:
    def build(target: pathlib.Path) -> None:
        mirror, _ = host_mirrors(_apt_targets())
        failures = []
        for suite in VERSIONS[version]:
            try:
                _unpack_binaries(_download("containerd", suite, mirror, target / "apt"), target)
                _check_version(target / "usr/bin/containerd", version, root)
            except LabError as error:
                failures.append(f"{suite}: {error}")
                continue
            finally:
                shutil.rmtree(target / "apt", ignore_errors=True)
            return
        raise LabError(f"no suite offers containerd {version}: {'; '.join(failures)}")

    return _cached(f"containerd-{version}", [RECIPE, version, VERSIONS[version]], build)


def _build_package(
    package: str, version: str, packages: Sequence[str], choices: Sequence[Sequence[str]], root: pathlib.Path
) -> pathlib.Path:
    """A layer with these packages, of the first choice of suites whose ``package`` is of that version."""

    def build(target: pathlib.Path) -> None:
        failures = []
        for suites in choices:
            _unpack_packages(packages, suites, root, target)
            found = package_versions((target,), (package,)).get(package, "none")
            if re.match(re.escape(version) + r"[.-]", found):
                # A network that containerd's CRI plugin would take for its own.
                shutil.rmtree(target / "etc/cni", ignore_errors=True)
                return
            failures.append(f"{suites[0]}: {found}")
            for path in target.iterdir():
                shutil.rmtree(path)
        raise LabError(f"no suite offers {package} {version}: {'; '.join(failures)}")

    recipe = [RECIPE, version, choices, PACKAGES, EXCLUDED]
    return _cached(f"{package}-{version}", recipe if package == "criu" else [*recipe, packages], build)


def _unpack_packages(packages: Sequence[str], suites: Sequence[str], root: pathlib.Path, target: pathlib.Path) -> None:
    """Into the target: packages of the first suite and what they depend on beyond the root, of any of the suites."""
    mirror, _ = host_mirrors(_apt_targets())
    apt = target / "apt"
    options = _apt_options(apt, suites, mirror, root / "var/lib/dpkg/status")
    _run(["apt-get", *options, "--quiet", "update"], f"the package list of {' '.join(suites)}")
    wanted = ["--download-only", "--no-install-recommends", "--yes", f"--target-release={suites[0]}", *packages]
    _run(["apt-get", *options, "--quiet", "install", *wanted], f"{' '.join(packages)} of {suites[0]}")
    (target / STATUS_DIRECTORY).mkdir(parents=True)
    for package in sorted((apt / "cache/archives").glob("*.deb")):
        _run(["dpkg-deb", "--extract", str(package), str(target)], f"the package {package.name}")
        status = _run(["dpkg-deb", "--field", str(package)], f"the package {package.name}")
        (target / STATUS_DIRECTORY / package.name.split("_")[0]).write_text(status)
    shutil.rmtree(apt)
    for pattern in EXCLUDED:
        shutil.rmtree(target / pattern.strip("/*"), ignore_errors=True)


def _download(package: str, suite: str, mirror: str, directory: pathlib.Path) -> pathlib.Path:
    """The newest .deb of that suite, verified by apt against the archive's key, with a state of its own."""
    (directory / "deb").mkdir(parents=True, exist_ok=True)
    (directory / "status").touch()
    arguments = _apt_options(directory, (suite,), mirror, directory / "status")
    _run(["apt-get", *arguments, "--quiet", "update"], f"the package list of {suite}")
    _run(["apt-get", *arguments, "--quiet", "download", package], f"{package} of {suite}", directory / "deb")
    files = sorted((directory / "deb").glob("*.deb"))
    if len(files) != 1:
        raise LabError(f"apt-get downloaded {len(files)} files for {package} of {suite}, not one")
    return files[0]


def _apt_options(directory: pathlib.Path, suites: Sequence[str], mirror: str, status: pathlib.Path) -> list[str]:
    """What makes apt-get work in that directory, with these suites, for a system with that dpkg status."""
    for part in ("lists/partial", "cache/archives/partial"):
        (directory / part).mkdir(parents=True, exist_ok=True)
    (directory / "sources.list").write_text(
        "".join(f"deb [signed-by={KEYRING}] {mirror} {suite} main\n" for suite in suites)
    )
    options = {
        "Dir::State": directory,
        "Dir::State::lists": directory / "lists",
        "Dir::State::status": status,
        "Dir::Cache": directory / "cache",
        "Dir::Etc::sourcelist": directory / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::Etc::preferences": "-",
        "Dir::Etc::preferencesparts": "-",
        "APT::Default-Release": "",
        "APT::Sandbox::User": "root",
        # It reads the root's dpkg status and changes nothing there; several layers are built at a time.
        "Debug::NoLocking": "true",
    }
    return [f"-o{key}={value}" for key, value in options.items()]


def _unpack_binaries(package: pathlib.Path, target: pathlib.Path) -> None:
    """Only usr/bin: a /lib directory of an older package would hide the root's link of that name."""
    unpacked = target / "apt" / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    _run(["dpkg-deb", "--extract", str(package), str(unpacked)], f"the package {package.name}")
    shutil.rmtree(target / "usr", ignore_errors=True)
    (target / "usr").mkdir()
    (unpacked / "usr/bin").rename(target / "usr/bin")


def _check_version(binary: pathlib.Path, version: str, root: pathlib.Path) -> None:
    """Run it with the root's C library: the host's may be older."""
    loader = sorted((root / "usr").glob("lib*/ld-linux*.so.*"))
    prefix = (
        [str(loader[0]), "--library-path", ":".join(map(str, (root / "usr/lib").glob("*-linux-gnu")))] if loader else []
    )
    output = subprocess.run([*prefix, str(binary), "--version"], capture_output=True, text=True, check=False).stdout
    words = output.split()
    if len(words) < 3 or not words[2].lstrip("v").startswith(version + "."):
        raise LabError(f"{version} was expected and the archive has {' '.join(words[:3]) or 'nothing that runs'}")


def _run(command: list[str], what: str, directory: pathlib.Path | None = None) -> str:
    """What it prints."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, cwd=directory, check=False)
    except FileNotFoundError:
        raise LabError(f"{command[0]} is not installed; run tests/lab/prerequisites.sh") from None
    if result.returncode:
        status = f"{command[0]}, status {result.returncode}"
        raise LabError(f"{what} could not be made ({status}):\n{result.stderr[-2000:]}")
    return result.stdout


def _cached(name: str, recipe: object, build: Callable[[pathlib.Path], None]) -> pathlib.Path:
    """The directory of that recipe; built under a temporary name and renamed: it is whole or absent."""
    key = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:12]
    target = cache_dir() / f"{name}-{key}"
    if target.is_dir():
        return target
    with cache_lock(name):
        if not target.is_dir():
            temporary = cache_dir() / f".{name}-{key}.partial"
            if temporary.exists():
                shutil.rmtree(temporary)
            temporary.mkdir(mode=0o755)
            build(temporary)
            temporary.chmod(0o755)
            temporary.rename(target)
    return target


@contextlib.contextmanager
def cache_lock(name: str) -> Iterator[None]:
    """Two labs that build the same thing at once: the second waits and finds it built."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    handle = os.open(cache_dir() / f".{name}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
