/* Copyright (c) 2026 the gpuops.restore contributors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * holder THING [ARGUMENT]: holds something that CRIU takes only when told to, or not at all, and counts ten times a second into
 * /var/count. What it can look at it looks at in every step, and ends when that is not as it was.
 *
 * unlinked MIB FILE   a file of that size without a name
 * flock, posix, ofd FILE   a lock on it; orphan FILE: by flock, in a child whose parent, which locked it, has ended
 * datagrams, stream PATH   a Unix socket that is connected there; pair: two that are connected to each other
 * listen PORT   a TCP socket that never accepts
 * uring, userfault, perf   a descriptor of that kind; socket FAMILY TYPE PROTOCOL: a socket of any kind
 * queue, queue-left   a POSIX message queue, open or left behind
 * namespace mnt|uts|ipc|net|pid|user|cgroup|time|children   a second process has one of its own
 * traced   a second process, which is traced by this one
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/perf_event.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

static const struct {
	const char *name;
	int flag;
} namespaces[] = {
	{"mnt", CLONE_NEWNS}, {"uts", CLONE_NEWUTS}, {"ipc", CLONE_NEWIPC}, {"net", CLONE_NEWNET}, {"pid", CLONE_NEWPID},
	{"user", CLONE_NEWUSER}, {"cgroup", CLONE_NEWCGROUP}, {"time", 0x80}, {"children", CLONE_NEWPID},
};

static void fail(const char *what)
{
	perror(what);
	exit(3);
}

static int checked(int result, const char *what)
{
	if (result < 0)
		fail(what);
	return result;
}

static int made(const char *path)
{
	return checked(open(path, O_RDWR | O_CREAT, 0644), path);
}

static int locked(const char *kind, const char *path)
{
	int file = made(path);
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	if (strcmp(kind, "posix") == 0)
		checked(fcntl(file, F_SETLK, &lock), "F_SETLK");
	else if (strcmp(kind, "ofd") == 0)
		checked(fcntl(file, F_OFD_SETLK, &lock), "F_OFD_SETLK");
	else
		checked(flock(file, LOCK_EX), "flock");
	return file;
}

static int connected(int type, const char *path)
{
	struct sockaddr_un there = {.sun_family = AF_UNIX};
	int made_socket = checked(socket(AF_UNIX, type, 0), "socket");

	strncpy(there.sun_path, path, sizeof(there.sun_path) - 1);
	checked(connect(made_socket, (struct sockaddr *)&there, sizeof(there)), path);
	return made_socket;
}

static void listening(int port)
{
	struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(port)};
	int made_socket = checked(socket(AF_INET, SOCK_STREAM, 0), "socket");

	here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	checked(bind(made_socket, (struct sockaddr *)&here, sizeof(here)), "bind");
	checked(listen(made_socket, 8), "listen");
}

static void queue(int keep)
{
	struct mq_attr attributes = {.mq_maxmsg = 2, .mq_msgsize = 8};
	mqd_t made_queue = checked(mq_open("/queue", O_RDWR | O_CREAT, 0600, &attributes), "mq_open");

	if (!keep)
		mq_close(made_queue);
}

static void ring(void)
{
	struct io_uring_params parameters = {0};
	int made_ring = checked(syscall(SYS_io_uring_setup, 4, &parameters), "io_uring_setup");
	size_t size = parameters.sq_off.array + parameters.sq_entries * sizeof(unsigned);

	if (mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, made_ring, IORING_OFF_SQ_RING) == MAP_FAILED)
		fail("mmap");
}

static void second_process(const char *kind)
{
	int ready[2], flag = 0;
	char byte;

	for (size_t i = 0; i < sizeof(namespaces) / sizeof(*namespaces); i++)
		if (strcmp(kind, namespaces[i].name) == 0)
			flag = namespaces[i].flag;
	checked(pipe(ready), "pipe");
	pid_t child = checked(fork(), "fork");
	if (child == 0) {
		if (flag)
			checked(unshare(flag), "unshare");
		if (strcmp(kind, "pid") == 0 || strcmp(kind, "time") == 0)
			checked(fork(), "fork");
		if (write(ready[1], "r", 1) != 1)
			fail("write");
		for (;;)
			pause();
	}
	if (read(ready[0], &byte, 1) != 1)
		fail("read");
	close(ready[0]);
	close(ready[1]);
	if (!flag)
		checked(ptrace(PTRACE_SEIZE, child, 0, 0), "ptrace");
}

int main(int argc, char **argv)
{
	const char *thing = argc > 1 ? argv[1] : "", *argument = argc > 2 ? argv[2] : "";
	struct timespec tick = {.tv_nsec = 100000000}, left;
	int ghost = -1, out = -1, pair[2] = {-1, -1};
	size_t size = 0;

	if (strcmp(thing, "unlinked") == 0 && argc > 3) {
		static char block[1 << 20];

		ghost = made(argv[3]);
		for (size = 0; size < (size_t)atoi(argument) << 20; size += sizeof(block)) {
			memset(block, 'a' + (size >> 20) % 20, sizeof(block));
			if (write(ghost, block, sizeof(block)) != sizeof(block))
				fail("write");
		}
		checked(unlink(argv[3]), "unlink");
	} else if (strcmp(thing, "flock") == 0 || strcmp(thing, "posix") == 0 || strcmp(thing, "ofd") == 0) {
		locked(thing, argument);
	} else if (strcmp(thing, "orphan") == 0) {
		/* The first process has to stay; the second locks and ends, the third goes on with the lock. */
		if (checked(fork(), "fork") != 0)
			for (;;)
				pause();
		locked("flock", argument);
		if (checked(fork(), "fork") != 0)
			return 0;
	} else if (strcmp(thing, "datagrams") == 0) {
		out = connected(SOCK_DGRAM, argument);
	} else if (strcmp(thing, "stream") == 0) {
		connected(SOCK_STREAM, argument);
	} else if (strcmp(thing, "pair") == 0) {
		checked(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
	} else if (strcmp(thing, "listen") == 0) {
		listening(atoi(argument));
	} else if (strcmp(thing, "uring") == 0) {
		ring();
	} else if (strcmp(thing, "userfault") == 0) {
		checked(syscall(SYS_userfaultfd, UFFD_USER_MODE_ONLY), "userfaultfd");
	} else if (strcmp(thing, "perf") == 0) {
		struct perf_event_attr event = {.type = PERF_TYPE_SOFTWARE, .size = sizeof(event), .exclude_kernel = 1};

		checked(syscall(SYS_perf_event_open, &event, 0, -1, -1, 0), "perf_event_open");
	} else if (strcmp(thing, "socket") == 0 && argc > 4) {
		checked(socket(atoi(argument), atoi(argv[3]), atoi(argv[4])), "socket");
	} else if (strcmp(thing, "queue") == 0 || strcmp(thing, "queue-left") == 0) {
		queue(strcmp(thing, "queue") == 0);
	} else if (strcmp(thing, "namespace") == 0 || strcmp(thing, "traced") == 0) {
		second_process(argument);
	} else {
		fprintf(stderr, "usage: holder THING [ARGUMENT]\n");
		return 2;
	}

	int latest = made("/var/count");
	for (unsigned long count = 1;; count++) {
		char line[32], found[2];
		int length = snprintf(line, sizeof(line), "%lu\n", count);

		if (pwrite(latest, line, length, 0) != length)
			return 5;
		if (size && (pread(ghost, found, 1, size - 1) != 1 || found[0] != (char)('a' + ((size >> 20) - 1) % 20) ||
			     pread(ghost, found, 1, size) != 0))
			return 6;
		if (out >= 0 && send(out, line, length, MSG_DONTWAIT) < 0 && errno != EAGAIN && errno != ECONNREFUSED)
			return 7;
		if (pair[0] >= 0 && (write(pair[0], line, 1) != 1 || read(pair[1], found, 1) != 1))
			return 8;
		/* CRIU interrupts the sleep of a process. */
		left = tick;
		while (nanosleep(&left, &left) < 0 && errno == EINTR)
			;
	}
}
