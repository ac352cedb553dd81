/* Copyright (c) 2026 the gpuops.restore contributors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * counter [--mib N] [--tick-ms T]: the workload of the tests. Counts ten times a second, or every T
 * milliseconds, and writes each number as a line to stdout and to /var/count.log, the latest to /var/count. --mib holds N MiB of memory that no page
 * deduplication or zero detection can shrink, and checks a part of it at every step. SIGTERM ends it with 0.
 */
#define _POSIX_C_SOURCE 200809L
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t ended;

static void on_term(int number)
{
	(void)number;
	ended = 1;
}

static uint64_t word(uint64_t index)
{
	uint64_t x = index + UINT64_C(0x9e3779b97f4a7c15);

	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

int main(int argc, char **argv)
{
	size_t words = 0, at = 0;
	uint64_t *ballast = NULL;
	struct timespec tick = {.tv_nsec = 100000000};

	for (int i = 1; i < argc; i += 2) {
		unsigned long long number = i + 1 < argc ? strtoull(argv[i + 1], NULL, 10) : 0;

		if (number && strcmp(argv[i], "--mib") == 0) {
			words = number * (1024 * 1024 / sizeof(uint64_t));
		} else if (number && strcmp(argv[i], "--tick-ms") == 0) {
			tick.tv_sec = number / 1000;
			tick.tv_nsec = number % 1000 * 1000000;
		} else {
			fprintf(stderr, "usage: counter [--mib N] [--tick-ms T]\n");
			return 2;
		}
	}
	if (words) {
		ballast = malloc(words * sizeof(uint64_t));
		if (!ballast) {
			fprintf(stderr, "counter: out of memory\n");
			return 3;
		}
		for (size_t i = 0; i < words; i++)
			ballast[i] = word(i);
	}

	struct sigaction action = {.sa_handler = on_term};
	sigaction(SIGTERM, &action, NULL);
	int log = open("/var/count.log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	int latest = open("/var/count", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	if (log < 0 || latest < 0) {
		fprintf(stderr, "counter: /var is not writable\n");
		return 4;
	}

	for (unsigned long count = 1; !ended; count++) {
		char line[32];
		int length = snprintf(line, sizeof(line), "%lu\n", count);

		/* Whoever reads stdout may be gone; the files are what counts. */
		ssize_t unused = write(STDOUT_FILENO, line, length);
		(void)unused;
		if (write(log, line, length) != length || pwrite(latest, line, length, 0) != length)
			return 5;
		for (size_t step = 0; words && step < 4096; step++, at = (at + 521) % words) {
			if (ballast[at] != word(at)) {
				fprintf(stderr, "counter: memory was not restored\n");
				return 6;
			}
		}
		nanosleep(&tick, NULL);
	}
	return 0;
}
