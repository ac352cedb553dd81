/*
 * Copyright (c) 2026 the gpuops.restore contributors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * STAND-IN for libnvidia-ml.so.1, for tests without a GPU: tells of the GPUs and processes that libcuda.c keeps.
 * What rests on it is proved for our own code only and has to be repeated on a real card.
 */
#include "standin.h"

#include <stdint.h>

enum {
    SUCCESS = 0,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    INSUFFICIENT_SIZE = 7
};

typedef struct {
    unsigned long long total, free, used;
} memory_t;
typedef struct {
    unsigned int pid;
    unsigned long long used;
    unsigned int gpu_instance, compute_instance;
} process_t;

/* A handle is the GPU's number plus one. */
static int index_of(const void *device) { return (int)(intptr_t)device - 1; }

static int text_into(char *out, unsigned int size, const char *text) {
    if (strlen(text) + 1 > size) {
        return INSUFFICIENT_SIZE;
    }
    strcpy(out, text);
    return SUCCESS;
}

int nvmlInitWithFlags(unsigned int flags) {
    char text[STANDIN_TEXT];
    (void)flags;
    while (standin_read(text, "hang_nvml")) {
        usleep(50000);
    }
    return standin_read(text, "nvml_error") ? atoi(text) : SUCCESS;
}

int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int result) {
    (void)result;
    return "an error of the stand-in";
}

int nvmlSystemGetDriverVersion(char *version, unsigned int length) {
    char text[STANDIN_TEXT];
    return text_into(version, length, standin_read(text, "driver") ? text : "580.0.0");
}

int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    char text[STANDIN_TEXT];
    *version = standin_read(text, "driver_version") ? atoi(text) : 13000;
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned int *count) {
    char text[STANDIN_TEXT];
    for (*count = 0; standin_read(text, "gpus/%u/uuid", *count); (*count)++) {
    }
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) {
    char text[STANDIN_TEXT];
    *device = (void *)(intptr_t)(index + 1);
    return standin_read(text, "gpus/%u/uuid", index) ? SUCCESS : INVALID_ARGUMENT;
}

int nvmlDeviceGetUUID(void *device, char *uuid, unsigned int length) {
    char text[STANDIN_TEXT];
    return standin_read(text, "gpus/%d/uuid", index_of(device)) ? text_into(uuid, length, text) : INVALID_ARGUMENT;
}

int nvmlDeviceGetName(void *device, char *name, unsigned int length) {
    char text[STANDIN_TEXT];
    return text_into(name, length, standin_read(text, "gpus/%d/name", index_of(device)) ? text : "Stand-in GPU");
}

int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
    char uuid[STANDIN_TEXT];
    int index = index_of(device);
    if (!standin_read(uuid, "gpus/%d/uuid", index)) {
        return INVALID_ARGUMENT;
    }
    memory->total = standin_total(index);
    memory->used = standin_used(index, uuid);
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

int nvmlDeviceGetMinorNumber(void *device, unsigned int *minor) {
    char text[STANDIN_TEXT];
    int index = index_of(device);
    *minor = standin_read(text, "gpus/%d/minor", index) ? (unsigned int)atoi(text) : (unsigned int)index;
    return SUCCESS;
}

int nvmlDeviceGetPersistenceMode(void *device, unsigned int *mode) {
    char text[STANDIN_TEXT];
    *mode = standin_read(text, "gpus/%d/persistence", index_of(device)) ? (unsigned int)atoi(text) : 0;
    return SUCCESS;
}

int nvmlDeviceGetMigMode(void *device, unsigned int *current, unsigned int *pending) {
    char text[STANDIN_TEXT];
    if (!standin_read(text, "gpus/%d/mig", index_of(device))) {
        return NOT_SUPPORTED;
    }
    *current = *pending = (unsigned int)atoi(text);
    return SUCCESS;
}

/* Running (0) and locked (1) processes only: as with the real one, a checkpointed process is on no GPU. */
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned int *count, process_t *processes) {
    char uuid[STANDIN_TEXT], text[STANDIN_TEXT];
    unsigned int room = *count, found = 0;
    if (!standin_read(uuid, "gpus/%d/uuid", index_of(device))) {
        return INVALID_ARGUMENT;
    }
    DIR *pids = standin_list("pids");
    struct dirent *entry;
    while (pids != NULL && (entry = readdir(pids)) != NULL) {
        int pid = atoi(entry->d_name);
        if (pid <= 0 || !standin_read(text, "pids/%d/state", pid) || atoi(text) > 1 || standin_bytes(pid, uuid) == 0) {
            continue;
        }
        if (processes != NULL && found < room) {
            int hidden = standin_read(text, "gpus/%d/no_process_memory", index_of(device));
            processes[found] = (process_t){(unsigned int)pid, hidden ? ~0ULL : standin_bytes(pid, uuid), ~0U, ~0U};
        }
        found++;
    }
    if (pids != NULL) {
        closedir(pids);
    }
    *count = found;
    return found > room || (processes == NULL && found > 0) ? INSUFFICIENT_SIZE : SUCCESS;
}
