/* Copyright (c) 2026 the gpuops.restore contributors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * ended ADDRESS HOW... [ADDRESS HOW...]: holds sockets whose connection has ended, and some that never had one, and counts ten times
 * a second into /var/count. When /var/look appears it reads each until there is nothing more, and writes into /var/found a line for each: how,
 * what it read, and what came then: an error's number, 0 for the end.
 *
 * Of a server: fin (the client has closed it), rst and rst-unseen (reset by the client, which the program has been told of or not),
 *   done (both have closed it, the client first), first (the server first), unread and unread-rst (with five bytes to be read)
 * Of a client: gone and gone-rst (the server has closed or reset it), refused (tried without waiting), tried (waiting)
 * half: both ends, of which the client's is shut down; whole: both ends of a connection
 * never, bound, datagrams: not connected; pair: a Unix socket whose other end is gone
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MOST 24

static union {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
} here;
static socklen_t size;

static int checked(int result, const char *what)
{
	if (result < 0) {
		perror(what);
		exit(3);
	}
	return result;
}

static void tick(void)
{
	struct timespec left = {.tv_nsec = 100000000};

	/* CRIU interrupts the sleep of a process. */
	while (nanosleep(&left, &left) < 0 && errno == EINTR)
		;
}

static int made(int type)
{
	return checked(socket(here.any.sa_family, type, 0), "socket");
}

/* Both ends have the same port number in the same place. */
static void at_port(in_port_t port)
{
	if (here.any.sa_family == AF_INET6)
		here.v6.sin6_port = port;
	else
		here.v4.sin_port = port;
}

static int bound(void)
{
	int found = made(SOCK_STREAM);

	at_port(0);
	checked(bind(found, &here.any, size), "bind");
	checked(getsockname(found, &here.any, &size), "getsockname");
	return found;
}

static void connected(int *client, int *server)
{
	int listener = bound();

	checked(listen(listener, 1), "listen");
	*client = made(SOCK_STREAM);
	checked(connect(*client, &here.any, size), "connect");
	*server = checked(accept(listener, NULL, NULL), "accept");
	close(listener);
}

static void in_state(int held, int wanted)
{
	struct tcp_info info;
	socklen_t length;

	do {
		length = sizeof(info);
		checked(getsockopt(held, SOL_TCP, TCP_INFO, &info, &length), "TCP_INFO");
	} while (info.tcpi_state != wanted);
}

static void reset(int end)
{
	struct linger now = {.l_onoff = 1};

	checked(setsockopt(end, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), "SO_LINGER");
	close(end);
}

static int is_error_seen(int held)
{
	int found;
	socklen_t length = sizeof(found);

	checked(getsockopt(held, SOL_SOCKET, SO_ERROR, &found, &length), "SO_ERROR");
	return found != 0;
}

/* The end that ends last; -2 for a way that there is not. */
static int ended(const char *how)
{
	int client, server, state = TCP_CLOSE, of_client = strncmp(how, "gone", 4) == 0;
	int is_reset = strncmp(how, "rst", 3) == 0 || strstr(how, "-rst") != NULL;

	connected(&client, &server);
	int kept = of_client ? client : server, other = of_client ? server : client;

	if (strcmp(how, "half") == 0) {
		checked(shutdown(client, SHUT_WR), "shutdown");
		state = TCP_CLOSE_WAIT;
	} else if (strcmp(how, "whole") == 0) {
		state = TCP_ESTABLISHED;
	} else if (strcmp(how, "fin") == 0 || strcmp(how, "gone") == 0) {
		close(other);
		state = TCP_CLOSE_WAIT;
	} else if (strcmp(how, "done") == 0) {
		close(other);
		in_state(kept, TCP_CLOSE_WAIT);
		checked(shutdown(kept, SHUT_WR), "shutdown");
	} else if (strcmp(how, "first") == 0 || strcmp(how, "unread") == 0) {
		checked(shutdown(kept, SHUT_WR), "shutdown");
		if (strcmp(how, "unread") == 0)
			checked(send(other, "hello", 5, 0), "send");
		close(other);
	} else if (is_reset) {
		if (strcmp(how, "unread-rst") == 0)
			checked(send(other, "hello", 5, 0), "send");
		reset(other);
	} else {
		return -2;
	}
	in_state(kept, state);
	if (is_reset && !strstr(how, "unseen") && !is_error_seen(kept))
		exit(4);
	return kept;
}

static int held_so(const char *how)
{
	int ends[2], found;

	if (strcmp(how, "never") == 0)
		return made(SOCK_STREAM);
	if (strcmp(how, "bound") == 0)
		return bound();
	if (strcmp(how, "datagrams") == 0)
		return made(SOCK_DGRAM);
	if (strcmp(how, "pair") == 0) {
		checked(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), "socketpair");
		close(ends[1]);
		return ends[0];
	}
	if (strcmp(how, "refused") == 0 || strcmp(how, "tried") == 0) {
		close(bound());
		found = made(SOCK_STREAM | (how[0] == 'r' ? SOCK_NONBLOCK : 0));
		if (connect(found, &here.any, size) == 0)
			exit(4);
		in_state(found, TCP_CLOSE);
		is_error_seen(found);
		return found;
	}
	return ended(how);
}

static int is_address(const char *text)
{
	memset(&here, 0, sizeof(here));
	size = sizeof(here.v4);
	here.any.sa_family = AF_INET;
	if (inet_pton(AF_INET, text, &here.v4.sin_addr) == 1)
		return 1;
	size = sizeof(here.v6);
	here.any.sa_family = AF_INET6;
	return inet_pton(AF_INET6, text, &here.v6.sin6_addr) == 1;
}

static void look(int count, char **how, const int *held)
{
	char path[] = "/var/found.partial";
	FILE *out = fopen(path, "w");

	for (int i = 0; i < count; i++) {
		char text[16] = "";
		ssize_t length = 0, all = 0;

		while ((length = recv(held[i], text + all, sizeof(text) - 1 - all, MSG_DONTWAIT)) > 0)
			all += length;
		fprintf(out, "%s %s%d\n", how[i], strcat(text, all ? " " : ""), length < 0 ? errno : 0);
	}
	fclose(out);
	checked(rename(path, "/var/found"), "rename");
}

int main(int argc, char **argv)
{
	char *how[MOST];
	int held[MOST], count = 0, looked = 0;

	for (int at = 1; at < argc; at++) {
		if (strpbrk(argv[at], ".:")) {
			if (!is_address(argv[at]))
				return 2;
			continue;
		}
		if (at == 1 || count == MOST || (held[count] = held_so(argv[at])) == -2)
			return 2;
		how[count++] = argv[at];
	}
	int latest = checked(open("/var/count", O_WRONLY | O_CREAT, 0644), "/var/count");
	for (unsigned long number = 1;; number++) {
		char line[32];
		int length = snprintf(line, sizeof(line), "%lu\n", number);

		if (pwrite(latest, line, length, 0) != length)
			return 5;
		if (!looked && access("/var/look", F_OK) == 0) {
			look(count, how, held);
			looked = 1;
		}
		tick();
	}
}
