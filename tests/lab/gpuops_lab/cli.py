# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's command line."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys
from collections.abc import Callable, Sequence

from gpuops_lab import boot, config, inventory, listing, node, root, workload
from gpuops_lab.config import LabError, Node


def main(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit status. 255: the lab itself failed, the reason is on stderr."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except (LabError, OSError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 255


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lab", description="Test nodes with containerd and sshd on this machine.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], int], text: str, *names: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=command)
        for argument in names:
            sub.add_argument(argument)
        return sub

    up = add("up", _up, "make and start nodes")
    up.add_argument("--nodes", type=int, default=1, metavar="N")
    up.add_argument("--containerd", choices=sorted(root.VERSIONS), default="1.7")
    up.add_argument("--criu", choices=sorted(root.CRIU_VERSIONS), default="", help="its version, if not the usual one")
    up.add_argument("--name", default="node", metavar="PREFIX", help="nodes are PREFIX1, PREFIX2, ...")
    up.add_argument("--layer", type=pathlib.Path, action="append", default=[], help="a directory whose files they have")
    up.add_argument("--inventory", type=pathlib.Path, metavar="FILE", help="write an Ansible inventory of these nodes")
    down = add("down", _down, "remove nodes and all that they left")
    down.add_argument("nodes", nargs="*", metavar="NODE")
    down.add_argument("--all", action="store_true", help="every node of this machine")
    show = add("list", _list, "the nodes of this machine")
    show.add_argument("--json", action="store_true")
    text = add("inventory", _inventory, "print an Ansible inventory")
    text.add_argument("nodes", nargs="*", metavar="NODE")
    execute = add("exec", _exec, "run a command in a node; its exit status is passed through", "node")
    execute.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- CMD ...")
    add("ssh-proxy", _ssh_proxy, "speak ssh with the node's sshd on stdin and stdout", "node")
    add("start-containerd", _start, "start containerd in a node", "node")
    stop = add("stop-containerd", _stop, "stop containerd in a node", "node")
    stop.add_argument("--kill", action="store_true", help="by SIGKILL")
    add("restart-containerd", _restart, "stop and start containerd in a node", "node")
    add("off", _off, "end a node as a loss of power does; reboot starts it again", "node")
    add("reboot", _reboot, "end a node as a loss of power does, and start it again", "node")
    add("image", _image, "put the workload image's OCI archive into a node and print its path there", "node")
    work = add("workload", _workload, "run the counter in a node", "node")
    work.add_argument("--id", required=True)
    work.add_argument("--mib", type=int, default=0, metavar="N", help="hold N MiB of memory")
    capture = add("checkpoint", _checkpoint, "capture a running container as a checkpoint image, with ctr", "node")
    capture.add_argument("--id", required=True)
    capture.add_argument("--ref", required=True)
    restore = add("restore", _restore, "restore a checkpoint image with ctr, for comparison", "node")
    restore.add_argument("--id", required=True)
    restore.add_argument("--ref", required=True)
    delete = add("delete", _delete, "remove a container and its task from a node, with ctr", "node")
    delete.add_argument("--id", required=True)
    add("cri-ok", _cri_ok, "restart containerd; fails when its CRI plugin is not ok then", "node")
    add("listing", _listing, "print as JSON what there is in a node", "node")
    add("diff", _diff, "compare two listings; fails when they differ", "before", "after")
    add("_boot", _boot, "internal: become a node", "node")
    return parser


def _up(options: argparse.Namespace) -> int:
    names = [f"{options.name}{number}" for number in range(1, options.nodes + 1)]
    layers = [str(layer.resolve(strict=True)) for layer in options.layer]
    nodes = node.up(names, options.containerd, criu=options.criu, layers=layers)
    if options.inventory:
        config.write_atomically(options.inventory, _inventory_of(nodes))
    return 0


def _down(options: argparse.Namespace) -> int:
    if not options.nodes and not options.all:
        raise LabError("name the nodes to remove, or give --all")
    for name in config.all_names() if options.all else options.nodes:
        node.down(name)
    return 0


def _list(options: argparse.Namespace) -> int:
    rows = [{"name": each.name, "containerd": each.containerd, "pid": each.pid} for each in config.all_nodes()]
    if options.json:
        print(json.dumps(rows, indent=1))
    else:
        for row in rows:
            state = f"pid {row['pid']}" if row["pid"] else "dead"
            print(f"{row['name']}\tcontainerd {row['containerd']}\t{state}")
    return 0


def _inventory_of(nodes: Sequence[Node]) -> str:
    return inventory.inventory_text({each.name: inventory.host_variables(each) for each in nodes})


def _inventory(options: argparse.Namespace) -> int:
    nodes = [config.load_node(name) for name in options.nodes] if options.nodes else config.all_nodes()
    print(_inventory_of(nodes), end="")
    return 0


def _exec(options: argparse.Namespace) -> int:
    command = options.argv[1:] if options.argv[:1] == ["--"] else options.argv
    if not command:
        raise LabError("give a command: lab exec NODE -- CMD ...")
    _replace(options.node, "enter", command)
    return 255


def _ssh_proxy(options: argparse.Namespace) -> int:
    _replace(options.node, "ssh", [])
    return 255


def _replace(name: str, script: str, arguments: Sequence[str]) -> None:
    target = config.load_node(name)
    target.inside("/")
    path = str(target.directory / script)
    os.execv(path, [path, *arguments])


def _start(options: argparse.Namespace) -> int:
    target = config.load_node(options.node)
    node.control(target, "start")
    node.await_containerd(target)
    return 0


def _stop(options: argparse.Namespace) -> int:
    node.control(config.load_node(options.node), "kill" if options.kill else "stop")
    return 0


def _restart(options: argparse.Namespace) -> int:
    node.restart(config.load_node(options.node))
    return 0


def _off(options: argparse.Namespace) -> int:
    node.off(config.load_node(options.node))
    return 0


def _reboot(options: argparse.Namespace) -> int:
    node.reboot(config.load_node(options.node))
    return 0


def _image(options: argparse.Namespace) -> int:
    print(workload.place_image(config.load_node(options.node)))
    return 0


def _workload(options: argparse.Namespace) -> int:
    workload.start(config.load_node(options.node), options.id, options.mib)
    return 0


def _checkpoint(options: argparse.Namespace) -> int:
    workload.checkpoint(config.load_node(options.node), options.id, options.ref)
    return 0


def _restore(options: argparse.Namespace) -> int:
    workload.restore(config.load_node(options.node), options.id, options.ref)
    return 0


def _delete(options: argparse.Namespace) -> int:
    workload.delete(config.load_node(options.node), options.id)
    return 0


def _cri_ok(options: argparse.Namespace) -> int:
    problems = workload.cri_problems(config.load_node(options.node))
    print("\n".join(problems), end="\n" if problems else "")
    return 1 if problems else 0


def _listing(options: argparse.Namespace) -> int:
    print(json.dumps(listing.listing(options.node), indent=1, sort_keys=True))
    return 0


def _diff(options: argparse.Namespace) -> int:
    before, after = (json.loads(pathlib.Path(name).read_text()) for name in (options.before, options.after))
    lines = listing.difference(before, after)
    print("\n".join(lines), end="\n" if lines else "")
    return 1 if lines else 0


def _boot(options: argparse.Namespace) -> int:
    boot.boot(config.load_node(options.node))
    return 0
