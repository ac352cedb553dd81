/*
 * Copyright (c) 2026 the gpuops.restore contributors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * STAND-IN, not a driver: small files below $GPUOPS_STANDIN_DIR are the whole world of both stand-in libraries.
 * README.md lists them. Nothing of the vendor's headers is used; numbers are those of the published interfaces.
 */
#ifndef GPUOPS_STANDIN_H
#define GPUOPS_STANDIN_H

#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STANDIN_PATH 4096
#define STANDIN_TEXT 256

/* <root>/<formatted>, NULL when there is no root. */
static inline char *standin_path(char *out, const char *format, va_list arguments) {
    const char *root = getenv("GPUOPS_STANDIN_DIR");
    if (root == NULL) {
        return NULL;
    }
    int used = snprintf(out, STANDIN_PATH, "%s/", root);
    vsnprintf(out + used, STANDIN_PATH - (size_t)used, format, arguments);
    return out;
}

/* The first line of a file into text; 0 when it is not there. */
static inline int standin_read(char text[STANDIN_TEXT], const char *format, ...) {
    char path[STANDIN_PATH];
    va_list arguments;
    va_start(arguments, format);
    char *found = standin_path(path, format, arguments);
    va_end(arguments);
    text[0] = '\0';
    FILE *stream = found == NULL ? NULL : fopen(found, "r");
    if (stream == NULL) {
        return 0;
    }
    if (fgets(text, STANDIN_TEXT, stream) != NULL) {
        text[strcspn(text, "\n")] = '\0';
    }
    fclose(stream);
    return 1;
}

static inline void standin_write(const char *text, const char *format, ...) {
    char path[STANDIN_PATH], fresh[STANDIN_PATH + 8];
    va_list arguments;
    va_start(arguments, format);
    char *found = standin_path(path, format, arguments);
    va_end(arguments);
    if (found == NULL) {
        return;
    }
    /* Renamed into place: another thread or process must never read half of it. */
    snprintf(fresh, sizeof fresh, "%s.new", path);
    FILE *stream = fopen(fresh, "w");
    if (stream != NULL) {
        fprintf(stream, "%s\n", text);
        fclose(stream);
        rename(fresh, path);
    }
}

static inline DIR *standin_list(const char *format, ...) {
    char path[STANDIN_PATH];
    va_list arguments;
    va_start(arguments, format);
    char *found = standin_path(path, format, arguments);
    va_end(arguments);
    return found == NULL ? NULL : opendir(found);
}

/* Bytes that process pid has on the GPU uuid, whether they are in VRAM now or in host memory. */
static inline unsigned long long standin_bytes(int pid, const char *uuid) {
    char text[STANDIN_TEXT];
    return standin_read(text, "pids/%d/bytes/%s", pid, uuid) ? strtoull(text, NULL, 10) : 0;
}

/* VRAM in use on GPU number index: by others, and by processes that are running (0) or locked (1). */
static inline unsigned long long standin_used(int index, const char *uuid) {
    char text[STANDIN_TEXT];
    unsigned long long used = standin_read(text, "gpus/%d/other_used", index) ? strtoull(text, NULL, 10) : 0;
    DIR *pids = standin_list("pids");
    struct dirent *entry;
    while (pids != NULL && (entry = readdir(pids)) != NULL) {
        int pid = atoi(entry->d_name);
        if (pid > 0 && standin_read(text, "pids/%d/state", pid) && atoi(text) <= 1) {
            used += standin_bytes(pid, uuid);
        }
    }
    if (pids != NULL) {
        closedir(pids);
    }
    return used;
}

static inline unsigned long long standin_total(int index) {
    char text[STANDIN_TEXT];
    return standin_read(text, "gpus/%d/total", index) ? strtoull(text, NULL, 10) : 0;
}

/* Number of the GPU, -1 when there is none with this UUID. */
static inline int standin_gpu(const char *uuid) {
    char text[STANDIN_TEXT];
    for (int index = 0; standin_read(text, "gpus/%d/uuid", index); index++) {
        if (strcmp(text, uuid) == 0) {
            return index;
        }
    }
    return -1;
}

#endif
