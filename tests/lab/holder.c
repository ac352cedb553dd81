/* Copyright (c) 2026 the gpuops.restore contributors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * holder THING [ARGUMENT]...: holds things that CRIU takes only when told to, or not at all, and counts ten times a second into
 * /var/count. What it can look at it looks at in every step, and ends when that is not as it was.
 *
 * unlinked MIB FILE   a file of that size without a name
 * flock, posix, ofd FILE   a lock on it; orphan FILE, the last one: by flock, in a child whose parent, which locked it, has ended
 * datagrams, stream PATH   a Unix socket that is connected there; pair: two that are connected to each other
 * listen PORT   a TCP socket that never accepts
 * uring, userfault   a descriptor of that kind; socket FAMILY TYPE PROTOCOL: a socket of any kind
 * queue, queue-left   a POSIX message queue, open or left behind
 * namespace mnt|uts|ipc|net|pid|user|cgroup|time|children   a second process has one of its own
 * traced   a second process, which is traced by this one
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
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

static int ghosts[4], ghost_count, out = -1, pair[2] = {-1, -1};
static size_t sizes[4];

static char filling(size_t at)
{
	return 'a' + (at >> 20) % 20;
}

static void unlinked(size_t mib, const char *path)
{
	static char block[1 << 20];
	int file = made(path);
	size_t size = 0;

	for (; size < mib << 20; size += sizeof(block)) {
		memset(block, filling(size), sizeof(block));
		if (write(file, block, sizeof(block)) != sizeof(block))
			fail("write");
	}
	checked(unlink(path), "unlink");
	if (ghost_count == 4)
		exit(2);
	ghosts[ghost_count] = file;
	sizes[ghost_count++] = size;
}

static void orphan(const char *path)
{
	/* The first process has to stay; the second locks and ends, the third goes on with the lock. */
	if (checked(fork(), "fork") != 0)
		for (;;)
			pause();
	locked("flock", path);
	if (checked(fork(), "fork") != 0)
		_exit(0);
}

/* How many arguments it took; 0 for a thing that there is not. */
static int hold(const char *thing, char **argument, int count)
{
	if (strcmp(thing, "unlinked") == 0 && count > 1) {
		unlinked(atoi(argument[0]), argument[1]);
		return 3;
	}
	if (strcmp(thing, "socket") == 0 && count > 2) {
		checked(socket(atoi(argument[0]), atoi(argument[1]), atoi(argument[2])), "socket");
		return 4;
	}
	if (strcmp(thing, "pair") == 0) {
		checked(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
	} else if (strcmp(thing, "uring") == 0) {
		ring();
	} else if (strcmp(thing, "userfault") == 0) {
		checked(syscall(SYS_userfaultfd, UFFD_USER_MODE_ONLY), "userfaultfd");
	} else if (strcmp(thing, "queue") == 0 || strcmp(thing, "queue-left") == 0) {
		queue(strcmp(thing, "queue") == 0);
	} else if (strcmp(thing, "traced") == 0) {
		second_process("");
	} else if (count < 1) {
		return 0;
	} else {
		if (strcmp(thing, "flock") == 0 || strcmp(thing, "posix") == 0 || strcmp(thing, "ofd") == 0)
			locked(thing, argument[0]);
		else if (strcmp(thing, "orphan") == 0)
			orphan(argument[0]);
		else if (strcmp(thing, "datagrams") == 0)
			out = connected(SOCK_DGRAM, argument[0]);
		else if (strcmp(thing, "stream") == 0)
			connected(SOCK_STREAM, argument[0]);
		else if (strcmp(thing, "listen") == 0)
			listening(atoi(argument[0]));
		else if (strcmp(thing, "namespace") == 0)
			second_process(argument[0]);
		else
			return 0;
		return 2;
	}
	return 1;
}

int main(int argc, char **argv)
{
	struct timespec tick = {.tv_nsec = 100000000}, left;

	for (int at = 1, took; at < argc; at += took) {
		took = hold(argv[at], argv + at + 1, argc - at - 1);
		if (!took) {
			fprintf(stderr, "usage: holder THING [ARGUMENT]...\n");
			return 2;
		}
	}
	int latest = made("/var/count");
	for (unsigned long count = 1;; count++) {
		char line[32], found[2];
		int length = snprintf(line, sizeof(line), "%lu\n", count);

		if (pwrite(latest, line, length, 0) != length)
			return 5;
		for (int i = 0; i < ghost_count; i++)
			if (pread(ghosts[i], found, 1, sizes[i] - 1) != 1 || found[0] != filling(sizes[i] - 1) ||
			    pread(ghosts[i], found, 1, sizes[i]) != 0)
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
