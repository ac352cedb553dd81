# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Diagnosis entries: iptables and nftables, network namespaces, TCP, unix and other sockets."""

from __future__ import annotations

from ..._core.errors import RETRYABLE, TERMINAL
from ..._criu import known_limits
from ..entry import LIKELY, ROOT, SYMPTOM, Entry, entry, of_limit

NETWORK: tuple[Entry, ...] = (
    entry(
        "iptables-missing",
        "iptables",
        ROOT,
        TERMINAL,
        "iptables-restore is not installed where CRIU looks for it, and CRIU locks the network with it.",
        "Install iptables in the PATH of the containerd service, or put `network-lock=nftables` into the capture's "
        "`criu.extra`.",
        r'exec\w*\("?\S*ip6?tables\S*?"?, .*no such file',
        r"ip6?tables(?:-\w+)*: (?:command )?not found",
    ),
    entry(
        "iptables-chain-busy",
        "iptables",
        LIKELY,
        TERMINAL,
        "CRIU's chain cannot be deleted because something still refers to it; CRIU's rules were probably put in twice.",
        "Delete CRIU's chains from that network namespace and update CRIU, or put `network-lock=nftables` into the "
        "capture's `criu.extra`.",
        r"CHAIN_\w+ failed \(device or resource busy\)",
    ),
    entry(
        "xtables-lock",
        "iptables",
        ROOT,
        RETRYABLE,
        "Another program held the lock of iptables.",
        "Restore again; it was a matter of timing.",
        r"another app is currently holding the xtables lock",
    ),
    entry(
        "nftables-inet",
        "nftables",
        LIKELY,
        TERMINAL,
        "The kernel refused a rule of nftables; one without CONFIG_NF_TABLES_INET knows no tables of the family "
        "inet, and "
        "CRIU asks for one.",
        "Boot a kernel with CONFIG_NF_TABLES_INET, or put `network-lock=iptables` into the capture's `criu.extra` "
        "(CRIU "
        "4.0 or newer).",
        r"could not process rule: operation not supported",
    ),
    entry(
        "iptables-module",
        "kernel-feature",
        ROOT,
        TERMINAL,
        "The kernel lacks an iptables table, match or target that CRIU's network lock needs.",
        "Load the netfilter modules (xt_mark, ip_tables), or put `network-lock=nftables` into the capture's "
        "`criu.extra`.",
        r"can't initialize ip6?tables table",
        r"couldn't load (?:match|target) [`']",
        r"ip6?tables.*no chain/target/match by that name",
    ),
    entry(
        "iptables-second-restore",
        "iptables",
        LIKELY,
        TERMINAL,
        "The rule that locked a connection is not there to be removed; restoring the same checkpoint a "
        "second time in this network namespace does that.",
        "Restore it with `criu.tcp: close`, or put the lock rule back before the restore; a container of a network "
        "namespace given by path can also be restored in a fresh one (`network`).",
        # iptables' own "Bad rule" stands in the log of each good dump too.
        r"iptables configuration failed",
        where=("restore",),
    ),
    entry(
        "iptables-lock-failed",
        "iptables",
        LIKELY,
        TERMINAL,
        "CRIU could not lock the network with iptables.",
        "See iptables' own message in the log; mark matching (xt_mark) may be missing in the kernel.",
        r"locking network failed: iptables-restore returned",
    ),
    entry(
        "nftables-lock",
        "nftables",
        LIKELY,
        TERMINAL,
        "CRIU could not lock the network, or put its rules back, with nftables.",
        "Install nftables and a CRIU built with it, or put `network-lock=iptables` into the capture's `criu.extra`.",
        r"locking (?:network|connection) failed using nftables",
        r"built without libnftables",
        r"nft command error",
        r"unable to restore nftables",
    ),
    entry(
        "netns-missing",
        "netns",
        ROOT,
        TERMINAL,
        "The network namespace that the spec or the checkpoint names does not exist.",
        "Set `network` to the path of a namespace that exists, or make it.",
        r"requested network namespace \S+ does not exist",
        r"unable to find an external netns",
        r"/(?:proc/\d+/ns/net|run/netns/\S+|var/run/netns/\S+?):? .*no such file",
        sources="namespaces net files-reg",
    ),
    entry(
        "namespace-gone",
        "namespace",
        ROOT,
        TERMINAL,
        "A namespace that the spec gives by the path of a process does not exist: the process has ended, mostly with "
        "its "
        "pod.",
        "Take the checkpoint of a container with a namespace of its own, or restore while that process lives.",
        r"/proc/\d+/ns/(?!net\b)\w+: no such file",
    ),
    entry(
        "net-link-exists",
        "netns",
        ROOT,
        TERMINAL,
        "The network namespace already has a device of the checkpoint, and CRIU tried to create it again.",
        "Capture it anew with `criu.empty_namespaces: [network]`, or in a network namespace given by path, so that "
        "CRIU "
        "makes no devices; let no hook of the spec make them either.",
        r"can(?:'| )?(?:no)?t restore link",
        r"unable to restore network links",
        also=(r"ERROR -17 reported by netlink",),
    ),
    entry(
        "net-link-failed",
        "netns",
        LIKELY,
        TERMINAL,
        "A network device of the checkpoint could not be made again.",
        "Capture it anew with `criu.empty_namespaces: [network]`, or in a network namespace given by path, so that "
        "CRIU "
        "makes no devices.",
        r"can(?:'| )?(?:no)?t restore link",
        r"unable to restore network links",
        r"unknown peer net namespace",
        r"unsupported link \d+",
        r"unsupported link type",
    ),
    entry(
        "ip-tool-failed",
        "netns",
        SYMPTOM,
        TERMINAL,
        "The ip program failed while addresses, routes or rules were put back.",
        "See the program's own message in the log, and check that iproute2 is installed.",
        r"IP tool failed on",
        r"RTNETLINK answers: ",
    ),
    entry(
        "socket-foreign-netns",
        "netns",
        ROOT,
        TERMINAL,
        "A socket belongs to a network namespace other than the container's.",
        "Take the checkpoint with that namespace declared external, or close the socket first.",
        r"unable to dump a socket from an external network namespace",
        r"unable to find a network namespace",
    ),
    entry(
        "tcp-established-dump",
        "tcp",
        ROOT,
        TERMINAL,
        "A process has a TCP connection open, and dumping connections was not allowed.",
        "Set `criu.tcp_established: true` for the capture; the restore keeps them, or drops them with `criu.tcp: "
        "close`.",
        r"connected TCP socket, consider using",
    ),
    entry(
        "tcp-option-restore",
        "tcp",
        ROOT,
        TERMINAL,
        "The checkpoint holds TCP connections, and the restore was not told what to do with them.",
        "Set `criu.tcp: established` in the old network, or `criu.tcp: close` in any other.",
        r"connected TCP socket in image",
        r"need to set the --tcp-close option",
    ),
    entry(
        "tcp-in-flight",
        "tcp",
        ROOT,
        RETRYABLE,
        "A connection was being set up at the moment of the dump.",
        "Take the checkpoint again, with `criu.skip_in_flight` at `auto` or `true`.",
        r"in-flight connection \(l\)",
        r"in-flight connections can be ignored",
    ),
    entry(
        "tcp-repair",
        "tcp",
        LIKELY,
        TERMINAL,
        "The kernel did not let CRIU save or rebuild a TCP connection.",
        "Use `criu.tcp: close`, so that connections are closed and not rebuilt.",
        r"libsoccr_(?:save|restore)\(\) failed",
        r"can't turn TCP repair mode",
        r"failed to (?:un)?lock TCP connection",
        r"unable to set TCP_REPAIR",
        sources="sk-tcp sk-inet soccr net restorer",
    ),
    entry(
        "address-in-use",
        "address",
        ROOT,
        RETRYABLE,
        "An address or port of the checkpoint is already in use in this network namespace.",
        "Stop what listens there (often the original workload), or, for a container of a network namespace given by "
        "path, restore in another one (`network`).",
        r"can't (?:bind|listen on|connect) .*address already in use",
        sources="sk-inet sk-tcp sk-unix sockets util",
    ),
    entry(
        "tcp-ports-in-use",
        "tcp",
        LIKELY,
        RETRYABLE,
        "A connection of the checkpoint cannot be had again: its pair of addresses and ports is in use by another "
        "process, "
        "or its own address is not there any more.",
        "Look for it with ss -tnp and end what has it (often the original workload), or restore with `criu.tcp: "
        "close`.",
        r"can't connect inet socket back: cannot assign requested address",
    ),
    entry(
        "tcp-address-changed",
        "tcp",
        LIKELY,
        TERMINAL,
        "A connection of the checkpoint cannot be had again: this network namespace has another address than the one "
        "that "
        "the connection was made with.",
        "Restore where the old address is, or with `criu.tcp: close`, which drops the connections.",
        r"can't connect inet socket back: invalid argument",
    ),
    entry(
        "address-missing",
        "address",
        ROOT,
        TERMINAL,
        "An address or network device that a socket was bound to does not exist in this network namespace.",
        "Close connections with `criu.tcp: close`. A socket that listens needs its address: a container of a network "
        "namespace given by path is restored in one that has it (`network`), one with a network of its own gets none "
        "back.",
        r"can't (?:bind|connect (?!inet socket back)).*(?:cannot assign requested address|no such device)",
        r"couldn't find if(?:index|name) for",
        r"can't connect inet socket back: (?:network is unreachable|no route to host)",
    ),
    entry(
        "unix-external",
        "unix-socket",
        ROOT,
        TERMINAL,
        "A unix socket of the container is connected to a process outside of it.",
        "Close the connection first. One of datagrams CRIU takes with `criu.ext_unix_sk: true`, at capture and restore "
        "alike, if the socket outside has the same name in the container.",
        r"external socket is used",
        r"external socket found in image",
        r"can't dump half of stream unix connection",
        r"can't dump name-?less external socket",
        r"unix socket \d+ (?:without|with unreachable) peer",
        r"dangling connection \d+",
        r"unix socket \d+ without peer",
    ),
    entry(
        "unix-in-flight",
        "unix-socket",
        ROOT,
        RETRYABLE,
        "A unix socket connection was being set up at the moment of the dump.",
        "Take the checkpoint again.",
        r"in-flight connection on",
        r"write queue on an in-flight socket",
        r"closed in-flight socket",
    ),
    entry(
        "unix-bind",
        "unix-socket",
        LIKELY,
        TERMINAL,
        "A unix socket of the checkpoint cannot be bound at its path: the path is taken, or its directory is missing.",
        "Remove the stale socket file, or map the directory that held it in `mounts`.",
        r"can't bind (?:on socket )?id \S+ ino \d+ addr.*(?:address already in use|no such file|not a directory|"
        r"file exists)",
        r"ghost: can't (?:bind|access|create|rename).*(?:already in use|no such file|not a directory|file exists)",
    ),
    of_limit(known_limits.INET_SOCKET_OPTIONS, "version-mismatch", ROOT),
    entry(
        "socket-unsupported",
        "socket",
        ROOT,
        TERMINAL,
        "A process has a socket of a kind or protocol that CRIU does not support, such as multipath TCP.",
        "Switch it off in the application (for Go GODEBUG=multipathtcp=0) and take the checkpoint again.",
        r"unsupported proto \d+ for socket",
        r'consider using "?GODEBUG',
        r"can't dump \d+ inet socket",
        r"unsupported socket (?:family|type)",
        r"unknown socket collected",
        r"unsupported type \(\d+\) on socket",
    ),
    entry(
        "netlink-data",
        "socket",
        ROOT,
        RETRYABLE,
        "A netlink socket had unread data at the moment of the dump.",
        "Take the checkpoint again.",
        r"the socket has data to read",
    ),
    entry(
        "sock-diag-missing",
        "kernel-feature",
        ROOT,
        TERMINAL,
        "The kernel cannot list sockets of a kind: its diag module is missing.",
        "Load the modules tcp_diag, udp_diag, inet_diag, unix_diag, netlink_diag and af_packet_diag.",
        r"diag module missing",
        r"sockets \(family \d+ proto \d+\) are not collected",
    ),
)
