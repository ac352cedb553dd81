/* Copyright (c) 2026 the gpuops.restore contributors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The workload of the tests with sockets.
 *
 * talker serve PORT [ADDRESS]: sends 1, 2, 3, ... to each TCP connection, a line ten times a second, also after the
 *   other side has closed its half; answers each UDP datagram. Its own ticks go to /var/count.
 * talker read PORT ADDRESS: connects there and writes each number to /var/count. A number that does not follow the last
 *   one ends it with 6. When the connection ends, it adds a line to /var/ends and connects again.
 * talker half PORT ADDRESS: the same, and closes its own half of each connection.
 * talker both PORT, talker both-half PORT: server and reader, over 127.0.0.1, as two processes.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TICK_MS 100
#define MOST 16

static void put(const char *path, int flags, const char *text)
{
	int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0644);

	if (file < 0 || write(file, text, strlen(text)) < 0)
		exit(5);
	close(file);
}

static void put_number(unsigned long number)
{
	char line[32];

	snprintf(line, sizeof(line), "%lu\n", number);
	put("/var/count", O_TRUNC, line);
}

static int bound(int kind, struct sockaddr_in *address)
{
	int found = socket(AF_INET, kind | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;

	if (found < 0 || setsockopt(found, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
	    bind(found, (struct sockaddr *)address, sizeof(*address)))
		exit(4);
	return found;
}

static void answer(int udp)
{
	char text[512];
	struct sockaddr_in peer;
	socklen_t size = sizeof(peer);
	ssize_t length;

	while ((length = recvfrom(udp, text, sizeof(text), 0, (struct sockaddr *)&peer, &size)) >= 0)
		sendto(udp, text, length, 0, (struct sockaddr *)&peer, size);
}

static int serve(struct sockaddr_in *address, int counts)
{
	int tcp = bound(SOCK_STREAM, address), udp = bound(SOCK_DGRAM, address), peers[MOST], found;
	unsigned long sent[MOST] = {0};

	memset(peers, -1, sizeof(peers));
	if (listen(tcp, MOST))
		return 4;
	for (unsigned long tick = 1;; tick++) {
		usleep(TICK_MS * 1000);
		if (counts)
			put_number(tick);
		answer(udp);
		for (int i = 0; i < MOST; i++) {
			char line[32];

			if (peers[i] < 0) {
				found = accept4(tcp, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
				if (found < 0)
					continue;
				peers[i] = found;
				sent[i] = 0;
			}
			snprintf(line, sizeof(line), "%lu\n", ++sent[i]);
			if (send(peers[i], line, strlen(line), MSG_NOSIGNAL) < 0) {
				close(peers[i]);
				peers[i] = -1;
			}
		}
	}
}

static int receive(struct sockaddr_in *address, int half)
{
	for (;;) {
		int peer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		unsigned long last = 0, number;
		FILE *lines;

		if (connect(peer, (struct sockaddr *)address, sizeof(*address))) {
			close(peer);
			usleep(TICK_MS * 1000);
			continue;
		}
		if (half)
			shutdown(peer, SHUT_WR);
		lines = fdopen(peer, "r");
		while (fscanf(lines, "%lu", &number) == 1) {
			if (number != ++last)
				return 6;
			put_number(number);
		}
		fclose(lines);
		put("/var/ends", O_APPEND, "end\n");
	}
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(argc > 2 ? atoi(argv[2]) : 0)};
	int both = strncmp(what, "both", 4) == 0;

	if (!address.sin_port || (argc > 3 && !inet_aton(argv[3], &address.sin_addr))) {
		fprintf(stderr, "usage: talker serve|read|half|both|both-half PORT [ADDRESS]\n");
		return 2;
	}
	if (both)
		address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	/* As the container's first process the reader takes the server with it. */
	if (both && fork() == 0)
		return serve(&address, 0);
	if (strcmp(what, "serve") == 0)
		return serve(&address, 1);
	return receive(&address, strstr(what, "half") != NULL);
}
