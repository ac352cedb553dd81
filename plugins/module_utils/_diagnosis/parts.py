# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The second step, where no entry of the table is sure: which part of a workload it was that failed, and no cause.

CRIU's error lines name the file of its source, or its prefix for that file; a file that serves many parts (the start of
a restore, the parasite, utilities) and the sentences of runc and containerd tell it by their words.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from re import Pattern

from .._criu import known_limits
from .._criu.log import Origin


@dataclass(frozen=True)
class Part:
    """One part of a workload, or of what saves and restores it."""

    #: ``unknown-NAME`` is the kind.
    name: str
    #: What failed; completes "It failed at ...".
    what: str
    #: Completes "That usually depends on ...".
    depends: str
    #: What to look at, as a sentence.
    look: str
    #: Names of CRIU's source files without their ending, which deal with nothing else.
    sources: frozenset[str] = frozenset()
    #: What CRIU puts before its messages there.
    prefixes: frozenset[str] = frozenset()
    #: Words that tell it in other files, and of other programs.
    words: Pattern[str] | None = None

    @property
    def kind(self) -> str:
        return f"unknown-{self.name}"


def _part(
    name: str, what: str, depends: str, look: str, sources: str = "", words: str = "", prefixes: str = ""
) -> Part:
    return Part(
        name,
        what,
        depends,
        look,
        frozenset(sources.split()),
        frozenset(prefixes.split("|")) if prefixes else frozenset(),
        re.compile(words, re.IGNORECASE) if words else None,
    )


#: Of parts whose words are in a message, the earlier one is meant.
PARTS: tuple[Part, ...] = (
    _part(
        "cuda",
        "the CUDA state of a process (CRIU's CUDA plugin, cuda-checkpoint or the driver)",
        "the driver's version, on the GPUs that the process sees, and on no other process that shares their memory",
        "Look at the processes' states (`cuda_process_info`) and at the kernel log for NVRM messages.",
        "cuda_plugin",
        r"\bcuda|cuCheckpoint|\bnvidia|\bNVRM\b|\bnvml\b",
        "cuda_plugin",
    ),
    _part(
        "amdgpu",
        "the state of an AMD GPU (CRIU's amdgpu plugin)",
        "the plugin being of CRIU's own version, the kernel's amdgpu driver, and GPUs of the same kind and topology",
        "Look at the plugin's own lines in the log and at the kernel log for amdgpu messages.",
        "amdgpu_plugin amdgpu_plugin_topology amdgpu_plugin_util amdgpu_plugin_drm amdgpu_plugin_dmabuf",
        r"amdgpu|\bkfd\b",
        "amdgpu_plugin",
    ),
    _part(
        "seccomp",
        "a seccomp filter of a process",
        "the kernel's CONFIG_SECCOMP_FILTER, CRIU's version, libseccomp of the runtime, and the profile in the spec",
        "Compare the lines Seccomp and Seccomp_filters of /proc/PID/status with the spec's linux.seccomp, and try it "
        "unconfined.",
        "seccomp",
        r"seccomp|\bscmp",
        "seccomp",
    ),
    _part(
        "security-labels",
        "a security label (AppArmor, SELinux)",
        "the profile or policy being loaded on this node, and CRIU and runc being built for that security module",
        "Compare /proc/PID/attr/current with the spec's apparmorProfile and selinuxLabel; see the audit log.",
        "lsm apparmor",
        r"apparmor|selinux|\blsm\b|security (?:label|module|context)|process label|mount label|keycreate",
    ),
    _part(
        "rseq",
        "restartable sequences (rseq) of a thread",
        "a kernel of 5.13 or newer and CRIU of 3.17 or newer, and on the C library that registers them",
        "Start the workload with GLIBC_TUNABLES=glibc.pthread.rseq=0 to see whether it is that.",
        words=r"\brseq",
    ),
    _part(
        "timers",
        "a timer of a process (POSIX timer, interval timer or timerfd)",
        "CRIU's version, the kernel's CONFIG_POSIX_TIMERS and CONFIG_CHECKPOINT_RESTORE, and on whom the timer "
        "notifies",
        "Look at /proc/PID/timers of the processes and at their timerfd descriptors; a profiler or an alarm is what "
        "mostly makes them.",
        "timer timerfd",
        r"timer_?fd|\bp?(?:posix[- _]?|i|interval )?timers?\b|\b[gs]etitimer|timer_create|timer_?slack|\btimerslack",
        "timerfd",
    ),
    _part(
        "terminals",
        "a terminal",
        "both of its ends being in the container, `terminal` in the spec, and a /dev/pts of the container's own",
        "List what is open on /dev/pts/*, /dev/tty and /dev/console (ls -l /proc/PID/fd); start the workload without "
        "a terminal.",
        "tty",
        r"\btty\w*|\bptys?\b|/dev/pts|\bptmx|\bpts\b|terminal|/dev/console|console[ -_]?socket|\bconsole\b|winsize|"
        r"termios|\bctty\b",
        "tty",
    ),
    _part(
        "shim",
        "the shim, containerd's helper of each task",
        "its program being of containerd's version and still there, and its socket",
        "Look at containerd's log of that moment, and for a shim that was killed.",
        words=r"\bshim\b|ttrpc",
    ),
    _part(
        "sockets-netlink",
        "a netlink socket",
        "there being no unread data in it, and the kernel's netlink_diag",
        "List them with ss -f netlink in the container's network namespace.",
        "sk-netlink",
        r"netlink (?:socket|sk|message|port)",
        "netlink",
    ),
    _part(
        "sockets-packet",
        "a packet socket",
        "its options and rings, the network device that it is bound to, and the kernel's af_packet_diag",
        "List them with ss -0 in the container's network namespace; a packet capture or a DHCP client has one.",
        "sk-packet",
        r"packet (?:socket|sk)|\bPF_PACKET|\bAF_PACKET|fanout",
        "packet",
    ),
    _part(
        "sockets-unix",
        "a unix socket",
        "both of its ends being in the container, and its path being there and free at the restore",
        "List them with ss -xp in the container's network namespace; one that leads outside has a peer that no process "
        "of the container holds.",
        "sk-unix",
        r"unix (?:sk|socket|stream|dgram)|\bAF_UNIX|\bSCM_|scm rights",
        "unix|sk unix",
    ),
    _part(
        "sockets-tcp",
        "a TCP connection",
        "`criu.tcp_established` and `criu.tcp`, the addresses and ports of the network namespace being the same and "
        "free, and the kernel's TCP repair mode",
        "List them with ss -tnp in the container's network namespace; `criu.tcp: close` restores without them.",
        "sk-tcp soccr libsoccr",
        r"\btcp(?:\b|_)|soccr",
        "tcp",
    ),
    _part(
        "sockets-inet",
        "a TCP, UDP or raw socket",
        "the kernel's version and CRIU's, and on the addresses, ports and devices of the network namespace",
        "List them with ss -anp in the container's network namespace.",
        "sk-inet",
        r"\binet6? |\budp\b|\bAF_INET|\bicmp\b|raw socket",
        "inet",
    ),
    _part(
        "tracing",
        "tracing a process and running CRIU's code in it (ptrace, parasite)",
        "no debugger or sandbox tracing it, kernel.yama.ptrace_scope, security modules, and CRIU knowing this kernel",
        "Look at TracerPid in /proc/PID/status of each process, at its state, and at the audit log.",
        "infect infect-rpc infect-util ptrace handle-elf handle-elf-host parasite-syscall seize parasite",
        r"ptrace|parasite|\binfect|\bseize|transport socket|\btracee?\b|\bdaemon(?:ize)? mode",
    ),
    _part(
        "sockets",
        "a socket",
        "its kind and options, the kernel's version and CRIU's, and the diag modules of the kernel",
        "List them with ss -anp (and -x, -0, -f netlink, --vsock) in the container's network namespace.",
        "sockets sk-queue",
        r"\bsockets?\b|\bsockopt|\bsk_?buf|\bvsock",
        "sockets|skqueue",
    ),
    _part(
        "network",
        "the container's network (its namespace, devices, addresses, routes, or the lock while CRIU works)",
        "who made the devices, iptables or nftables with their kernel modules, iproute2, and `network` of the restore",
        "Compare ip addr, ip route and the packet filter in the container's network namespace with the old node's.",
        "net netfilter libnetlink tun",
        r"\bnetns\b|network|ip6?tables|\bnft|netfilter|\bveth|\bmacvlan|\bbridge\b|\broutes?\b|\bipv[46]\b|\brtnl|"
        r"netlink|\bnet ?(?:ns|namespace|dev|device)|\bconntrack|\btuntap|\b(?:tun|tap) |\bcni\b|net_cls|ifindex|"
        r"\blinks? (?:up|down)|\bip address",
        "net|tun",
    ),
    _part(
        "cgroups",
        "the container's control group",
        "the node's cgroup version and driver, controllers that are there, limits of the spec that this node can keep, "
        "and `criu.manage_cgroups`",
        "Compare the spec's cgroupsPath and linux.resources with /sys/fs/cgroup on this node.",
        "cgroup cgroup-props",
        r"cgroup|\bcg(?:ns)?\b|cpuset|\bcontroller\b|\bcpu (?:shares|quota|period|weight)|\bfreez(?:e|er|ing)\b|\bthaw|"
        r"hugetlb[ .]limit|intel ?rdt|\bresctrl|\bclos(?:id)?\b|"
        r"\bblkio|memory\.(?:max|high|limit)|pids\.max|io\.(?:max|weight)|systemd",
        "cg|cg-prop",
    ),
    _part(
        "hooks",
        "a hook of the spec",
        "the hook's program, and what it expects on this node",
        "Run the hook's program by hand, and leave `allow_hooks` off where the checkpoint's hooks are not needed.",
        words=r"\bhooks?\b|createRuntime|createContainer|\bprestart|\bpoststart",
    ),
    _part(
        "sysctls",
        "a kernel setting (sysctl)",
        "the setting being there on this kernel, and writable in a namespace of the container's own",
        "Compare the spec's linux.sysctl with /proc/sys on this node.",
        "sysctl",
        r"sysctl|/proc/sys/(?!kernel/ns_last_pid)",
    ),
    _part(
        "memory-transfer",
        "memory pages on their way to or from the images (page pipes, page server, lazy pages)",
        "the images being complete, room on the disk, limits of pipes and open files, and the kernel's userfaultfd",
        "Look at the disk under the images, at the limit of open files, and whether the image has parents.",
        "page-xfer page-pipe uffd tls pagemap cr-dedup",
        r"userfault|\buffd|lazy[- ]pages?|page[- ](?:pipe|server|xfer)|\bsplice\b|page-read|\bdedup",
        "page-xfer|page-pipe|uffd|tls",
    ),
    _part(
        "watches",
        "a file watch (inotify, fanotify)",
        "the file system's file handles (overlayfs gives none to older CRIU), and the watched path being there",
        "Look at the lines inotify and fanotify of /proc/PID/fdinfo/*; `force-irmap` in `criu.extra` looks paths up.",
        "fsnotify irmap",
        r"inotify|fanotify|fsnotify|irmap|file handle",
        "fsnotify|irmap",
    ),
    _part(
        "file-locks",
        "a file lock or lease",
        "the lock being free at the restore, `criu.file_locks`, and its file being on a file system with locks",
        "Compare /proc/locks with the inodes that the container has open.",
        "file-lock",
        r"\bflocks?\b|file[- ]locks?|posix lock|ofd lock|\bleases?\b|\blocks? (?:info|entry|type)",
    ),
    _part(
        "mounts",
        "a mount or a file system",
        "the mounts being those of the checkpoint with their kinds, sources and propagation, and on CRIU's mount "
        "engine",
        "Compare the spec's mounts and /proc/PID/mountinfo with the checkpoint's; `mntns-compat-mode` in `criu.extra` "
        "has CRIU use its older engine.",
        "mount mount-v2 filesystems autofs",
        r"mount|\bmnt(?:ns|-v2)?\b|pivot_root|overlay|\btmpfs|rootfs|propagation|\bautofs|file ?system|open_tree|"
        r"statfs|"
        r"masked path|read-?only path|make \S+ (?:read-?only|r?(?:private|shared|slave|unbindable))|\bfuse\b",
        "mnt|mnt-v2",
    ),
    _part(
        "namespaces",
        "a namespace",
        "which namespaces are the container's own and which are given by path, the mappings of a user namespace, and "
        "CRIU taking no nested ones but of mounts",
        "Compare /proc/PID/ns/* of all processes of the container with each other and with the spec's "
        "linux.namespaces.",
        "namespaces uts_ns timens",
        r"namespace|\b(?:user|pid|uts|time|ipc|cgroup)_?ns\b|\bns\b|\bsetns|\b[ug]id[_ ]?map\w*|\bid[- ]?map\w*|"
        r"unshare|new[ug]idmap|"
        r"nsexec|"
        r"\buts\b|timens|hostname",
    ),
    _part(
        "container-start",
        "the start of the container's first process by the runtime",
        "the runtime's own program, and what it sets up for the process before CRIU or the program gets it",
        "Look at the runtime's sentence, at containerd's log of that moment, and try a new container of the same spec.",
        words=r"bootstrap data|\bsync pipe|error pipe|\bsync (?:\"|from)|exec fifo|init process|procError|"
        r"container init",
    ),
    _part(
        "signals",
        "the signal handling of a process (handlers, masks, pending signals, signalfd)",
        "CRIU's version, the kernel's, and the process's bitness",
        "Look at SigPnd, ShdPnd, SigBlk and SigCgt in /proc/PID/status of the processes.",
        "sigact sigframe signalfd sigaction_compat",
        r"sig(?:action|act|procmask|altstack|info|set|frame|mask|queue|return|nal ?fd|pending)|rt_sig|\bsignals\b|"
        r"(?:pending|blocked|queued|masked?|inject\w*|send|deliver\w*) (?:a )?(?:posix )?signal|signal (?:queue|mask|"
        r"handler|stack|frame|action)",
    ),
    _part(
        "event-descriptors",
        "an event descriptor (eventfd, epoll, pidfd)",
        "what it refers to being in the container too, and CRIU's version",
        "Look at /proc/PID/fdinfo of descriptors that are anon_inode.",
        "eventfd eventpoll pidfd",
        r"eventfd|epoll|eventpoll|\bpidfds?\b|anon_inode",
        "eventfd|epoll|pidfd",
    ),
    _part(
        "pipes",
        "a pipe or a FIFO",
        "fs.pipe-max-size and fs.pipe-user-pages-hard, and both of its ends being in the container",
        "List the pipes (ls -l /proc/PID/fd) and who holds their other ends.",
        "pipes fifo",
        r"\bpipes?\b|\bfifos?\b|pipe_?buf",
    ),
    _part(
        "limits",
        "a resource limit of a process",
        "the limits of containerd's service and fs.nr_open, and CAP_SYS_RESOURCE",
        "Compare /proc/PID/limits with the spec's process.rlimits and the limits of containerd's service.",
        words=r"\brlimi[tr]|\b[gsp]etrlimit|prlimit|RLIMIT_|\bulimit",
    ),
    _part(
        "credentials",
        "the user, groups or capabilities of a process",
        "the spec's capabilities and user namespace mappings, and containerd running as root with all capabilities",
        "Compare Uid, Gid, Groups and Cap* in /proc/PID/status with the spec's process.user and capabilities.",
        words=r"capabilit|\bcaps?\b|\bCAP_|\bcap(?:inh|prm|eff|bnd|amb)\b|set(?:res)?[ug]id|[sg]etgroups|\bgroups\b|\b[eus]?[ug]ids?\b|securebits|"
        r"credential|\bcreds?\b|no_new_privs|new privileges|keyring|session key|setup user|bounding set",
    ),
    _part(
        "vdso",
        "the vDSO, the kernel's page of code in each process",
        "CRIU knowing the vDSO of this kernel: older CRIU does not know that of newer kernels",
        "Update CRIU, or try an older kernel.",
        "vdso vdso-compat parasite-vdso util-vdso util-vdso-elf32 vdso-pie pie-util-vdso pie-util-vdso-elf32",
        r"vdso|vvar",
        "vdso",
    ),
    _part(
        "cpu",
        "a CPU's registers or features",
        "the node's CPU having what that of the checkpoint had (cpuinfo), and CRIU knowing its register state",
        "Compare /proc/cpuinfo (flags, model) with the old node's, and CRIU's version with the CPU's age.",
        "cpu thread_area shstk sigset",
        r"\bfpu|xsave|xfeature|\bcpuid\b|\bcpu (?:feat|flag|capab|instr|xfeat|vendor|model|has)|\bregisters?\b|"
        r"\bregs(?:et)?\b|gs_?base|fs_?base|shadow stack|shstk|"
        r"\bgcs\b|\bamx\b|\bldt\b|thread_area|32-bit|ia32|compat mode",
        "cpu|x86",
    ),
    _part(
        "aio",
        "an asynchronous I/O context",
        "fs.aio-max-nr, and the context being idle at the dump",
        "Compare fs.aio-nr with fs.aio-max-nr.",
        "aio",
        r"\baio\b|\bring (?:setup|remap)|iocbs?\b|io_(?:setup|submit|getevents)|\bio_uring",
    ),
    _part(
        "bpf",
        "a BPF map or program",
        "its type, and the kernel's BPF system calls",
        "List them with bpftool; CRIU takes only arrays and hashes.",
        "bpfmap",
        r"\be?bpf",
    ),
    _part(
        "ipc",
        "System V IPC or a POSIX message queue",
        "the IPC namespace being the container's own, and the kernel's limits kernel.shm*, sem and msg*",
        "List them with ipcs in the container's IPC namespace, and /dev/mqueue.",
        "ipc_ns",
        r"\bipc|\bmqueue|message queue|\bsemaphore|\b(?:shm|sem|msg)(?:get|ctl|at|op|snd|rcv)\b|\bsysv|System V",
    ),
    _part(
        "memory",
        "a memory area of a process",
        "room for it (the container's limit, vm.overcommit_memory, vm.max_map_count, huge pages), and the file that it "
        "maps being there and the same",
        "Compare /proc/PID/maps of the processes with those sysctls and the cgroup's memory.max; see the kernel log.",
        "mem shmem memfd secretmem hugetlb pagemap-cache rst-malloc",
        r"\bvmas?\b|\bmappings?\b|\bmmap|\bmunmap|\bmremap|\bremap|\bmadvise|\bmprotect|\bmlock|memfd|\bshm(?:em)?\b|"
        r"secret ?mem|huge ?(?:page|tlb)|"
        r"pagemap|\bpages?\b|\bbrk\b|\bheap\b|PR_SET_MM|\bauxv|premap|\bmemory\b|\b[sm]mapp?s\b|"
        r"address space|\bVMA|\bprctl failed|soft.?dirty|ksm\b|\bthp\b|bootstrap",
        "pagemap-cache",
    ),
    _part(
        "snapshots",
        "a snapshot, the container's root file system in containerd",
        "the snapshotter of the checkpoint being there, its base being unpacked, and room on its disk",
        "List them with `ctr snapshots ls`, and see containerd's log.",
        words=r"snapshot|\bunpack|apply (?:layer|diff)",
    ),
    _part(
        "content",
        "content or an image in containerd's store",
        "its blobs being there and protected from collection, and their media types being known",
        "List them with `ctr content ls` and `ctr images check`.",
        words=r"\bblobs?\b|\bcontent\b|\bmanifest|\bdigest|media ?type|\bingest|\bimage (?:ref|name|pull|config)|"
        r"pull(?:ing)? (?:\w+ )?image|sha256:",
    ),
    _part(
        "devices",
        "a device of the container",
        "the device's node and numbers on this node, and the spec's device rules",
        "Compare the spec's linux.devices and resources.devices with /dev on this node.",
        words=r"\bdevices?\b|\bmknod|\bcdi\b|major|rdev",
    ),
    _part(
        "images",
        "the checkpoint's CRIU images",
        "the images being complete and unchanged, and CRIU being at least the version that wrote them",
        "Look at the images with crit, compare CRIU's version with the checkpoint's, and stage it again.",
        "image image-desc protobuf protobuf-desc img-streamer stats bfd",
        r"\bimages?\b|\bimg\b|\.img\b|\bmagic\b|protobuf|\binventory|\bpb_|\bunpack",
        "bfd",
    ),
    _part(
        "plugins",
        "a plugin of CRIU",
        "the plugin being of the same CRIU version as at the checkpoint",
        "Look into CRIU's plugin directory (/usr/lib/criu).",
        "plugin",
        r"\bplugins?\b",
    ),
    _part(
        "scripts",
        "a script, or the answer of the runtime, that CRIU waited for",
        "what the runtime does at that moment: hooks, the network, the cgroup",
        "Look at the runtime's own error and at containerd's log of that moment.",
        "action-scripts cr-service",
        r"\bscripts?\b|\bRPC client|\bnotify\b|service socket",
    ),
    _part(
        "files",
        "an open file of a process",
        "the root file system and the volumes having the files of the checkpoint, unchanged and at the same paths",
        "Compare ls -l /proc/PID/fd and /proc/PID/maps of the processes with the files that are there.",
        "files files-reg files-ext file-ids fdstore kcmp-ids servicefd external",
        r"\bfiles?\b|\bfds?\b|\bfd=|descriptor|\bghost|link[_-]remap|\bunlink|\bcwd\b|\bchroot|\bexe\b|\binode|"
        r"\bpath\b|"
        r"\bdir(?:ectory|s)?\b|fdinfo|\breadlink|\bxattr|\b[fl]?stat\b|\bchown|\bownership|\bperms\b|\brmrf",
        "sfd",
    ),
    _part(
        "kernel-features",
        "a look at what this kernel can do",
        "the kernel having CONFIG_CHECKPOINT_RESTORE and what belongs to it, and CRIU knowing kernels of its age",
        "Run `criu check --all` on this node.",
        "kerndat cr-check sysfs_parse",
        r"\bkerndat|kernel (?:feature|config|support)|CONFIG_",
    ),
    _part(
        "options",
        "an option of CRIU",
        "the option being known to CRIU of this version",
        "Look at `criu` of the call, /etc/criu/default.conf and /etc/criu/runc.conf.",
        "config crtools",
        r"\boptions?\b|configuration file|\bargument for\b",
    ),
    _part(
        "runtime-program",
        "starting a program",
        "the program being there, executable, and on the PATH of containerd's service",
        "Look for the program that the line names on this node.",
        words=r"fork/exec|executable file not found|\bexecv\w*|exec format|exec: \"",
    ),
    _part(
        "processes",
        "a process or thread of the tree (its start, ids, session or state)",
        "its ids being free in the PID namespace, limits of processes, its session's leader being in the container, "
        "and "
        "no thread being a zombie",
        "Compare ps -eLo pid,tid,ppid,sid,pgid,stat of the container with the line, and kernel.pid_max and the pids "
        "limit.",
        "pstree pidfd-store cr-restore cr-dump cr-exec restorer proc_parse clone-noasan",
        r"\bforks?\b|\bclone\d?\b|\bthreads?\b|zombie|\bsessions?\b|\b[sg]id\b|\bpgid|\bpids?\b|\btasks?\b|children|"
        r"\bprocess(?:es)?\b|waitpid|\bwait4|\bsched|\bnice\b|affinity|personality|\bcomm\b|exit code",
    ),
)

#: Files of CRIU's source that serve many parts: their words tell it, and the part that they belong to else.
_MIXED = frozenset(
    [
        "util",
        "restorer",
        "parasite",
        "parasite-syscall",
        "cr-restore",
        "cr-dump",
        "cr-exec",
        "proc_parse",
        "seize",
        "infect",
        "pstree",
        "crtools",
        "cr-service",
        "sockets",
    ]
)
#: What may be meant where the words of these files are looked at; any part of CRIU's where a file is not here.
_WITHIN: Mapping[str, frozenset[str]] = {
    "sockets": frozenset(part.name for part in PARTS if part.name.startswith("sockets")),
    "cr-service": frozenset(("images", "scripts", "options", "network")),
    "crtools": frozenset(("images", "options", "plugins")),
    "pstree": frozenset(("processes", "images", "namespaces")),
    "seize": frozenset(("cgroups", "tracing", "processes", "seccomp")),
    "infect": frozenset(("cpu", "signals", "tracing", "seccomp", "rseq")),
}
#: Of which CRIU knows nothing.
_NOT_CRIUS = frozenset(("shim", "hooks", "container-start", "snapshots", "content", "runtime-program"))
_CRIUS = frozenset(part.name for part in PARTS if part.name not in _NOT_CRIUS)
#: What the code for one architecture deals with.
_ARCH = frozenset(("cpu", "signals", "vdso", "tracing", "memory", "ipc"))
_BY_SOURCE: Mapping[str, Part] = {source: part for part in PARTS for source in part.sources}
_BY_PREFIX: Mapping[str, Part] = {prefix: part for part in PARTS for prefix in part.prefixes}
_FAILURE = re.compile(
    r"\b(?:error|fail(?:s|ed|ure)?|unable|can ?not|can't|could(?: not|n't)|not|no|in(?:valid|correct|sufficient)|"
    r"denied|refused?|"
    r"un(?:known|supported|expected)|missing|wrong|bad|mismatch|out of|exceed(?:s|ed)?|timed? ?out|must|exists|busy)\b",
    re.IGNORECASE,
)
_ERROR_NUMBER = re.compile(
    "(?:" + "|".join(re.escape(os.strerror(number)) for number in sorted(errno.errorcode)) + ')(?=[).;:\\s"]|$)',
    re.IGNORECASE,
)
_AROUND = re.compile(
    r"^(?:rpc error: code = \w+ desc = |failed to (?:create|start) (?:shim |containerd )?task: |"
    r"OCI runtime \w+ failed: |"
    r"runc did not terminate successfully: (?:exit status \d+: )?|(?:runc|crun) \w+ failed: |\w+: (?=OCI runtime)|"
    r"unable to start container process: |error during container init: |Error response from daemon: )+|(?:: unknown)+$"
)
#: The kernel's or the system's log, a registry, or what CRIU's restorer says beside its errors: no runtime's sentence.
_ELSEWHERE = re.compile(r"^pie: |^\[ *\d+\.\d+\]|^\w{3} +\d+ \d\d:\d\d:\d\d |https?://")
_PREFIX = re.compile(r"([a-z][\w -]{1,14}?): ")


def part_of(origin: Origin) -> Part | None:
    """The part that a message is about, or None where nothing tells it."""
    if not origin.source:
        text = bare(origin.text)
        return _prefixed(text) or (None if _ELSEWHERE.search(text) or not says_failure(text) else _worded(text))
    if origin.arch and origin.source != "infect":
        return _worded(origin.text, _ARCH) or _named("cpu")
    if origin.source in _MIXED:
        within = _WITHIN.get(origin.source, _CRIUS)
        return _worded(origin.text, within) or _BY_SOURCE.get(origin.source)
    return _BY_SOURCE.get(origin.source) or _prefixed(origin.text) or _worded(origin.text, _CRIUS)


def is_specific(origin: Origin) -> bool:
    """Whether the line itself tells it, and not only that the file has no other part."""
    return origin.source not in _MIXED or _worded(origin.text, _WITHIN.get(origin.source, _CRIUS)) is not None


def bare(sentence: str) -> str:
    """The runtime's own sentence, without what containerd and its shim put around it."""
    return _AROUND.sub("", sentence)


def says_failure(text: str) -> bool:
    """Whether a sentence of another program says that something went wrong."""
    return _FAILURE.search(text) is not None


def _prefixed(text: str) -> Part | None:
    found = _PREFIX.match(text)
    return _BY_PREFIX.get(found.group(1)) if found else None


def _worded(text: str, within: Container[str] | None = None) -> Part | None:
    # The kernel's own words for an error number (a "busy device", a "bad file descriptor") tell no part.
    said = _ERROR_NUMBER.sub("", text)
    for part in PARTS:
        if part.words is not None and (within is None or part.name in within) and part.words.search(said):
            return part
    return None


def _named(name: str) -> Part:
    return next(part for part in PARTS if part.name == name)


def remedy(part: Part, where: str | None, versions: Mapping[str, str]) -> str:
    """What it usually depends on, what is known of this node's versions, and what to look at."""
    known = known_limits.known_of(part.name, where, versions)
    sentences = [f"That usually depends on {part.depends}."]
    sentences += [f"Known of these versions there: {limit.cause} {limit.remedy}" for limit in known]
    return " ".join((*sentences, part.look))


def cause(part: Part) -> str:
    """What failed, and that nobody knows why."""
    return f"It failed at {part.what}; why is not known here."
