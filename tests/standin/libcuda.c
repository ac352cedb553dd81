/*
 * Copyright (c) 2026 the gpuops.restore contributors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * STAND-IN for libcuda.so.1, for tests without a GPU: the checkpoint state machine of every pid, kept in files.
 * It moves no memory. What rests on it is proved for our own code only and has to be repeated on a real card.
 */
#define _GNU_SOURCE
#include "standin.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>

enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    OPERATING_SYSTEM = 304,
    ILLEGAL_STATE = 401,
    NOT_FOUND = 500,
    NOT_READY = 600,
    NOT_SUPPORTED = 801,
    UNKNOWN = 999
};
enum { RUNNING, LOCKED, CHECKPOINTED, FAILED };

typedef struct {
    unsigned char bytes[16];
} uuid_t;
typedef struct {
    uuid_t old_uuid, new_uuid;
} pair_t;
typedef struct {
    unsigned int timeout_ms;
} lock_args_t;
typedef struct {
    pair_t *pairs;
    unsigned int count;
} restore_args_t;

/* One at a time: the accounting of VRAM, and the log's lines. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int initialised;

static void wait_ms(long milliseconds) {
    struct timespec time = {milliseconds / 1000, (milliseconds % 1000) * 1000000};
    nanosleep(&time, NULL);
}

/* "<monotonic ms> <caller's pid> <caller's thread> <what> <pid> <detail>" at the end of calls.log. */
static void note(const char *what, int pid, const char *detail) {
    const char *root = getenv("GPUOPS_STANDIN_DIR");
    char path[STANDIN_PATH], line[STANDIN_PATH];
    struct timespec now;
    if (root == NULL) {
        return;
    }
    snprintf(path, sizeof path, "%s/calls.log", root);
    clock_gettime(CLOCK_MONOTONIC, &now);
    int size = snprintf(line, sizeof line, "%lld %d %ld %s %d %s\n", now.tv_sec * 1000LL + now.tv_nsec / 1000000,
                        (int)getpid(), syscall(SYS_gettid), what, pid, detail);
    int file = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (file >= 0) {
        if (write(file, line, (size_t)size) != size) {
            perror("the stand-in's calls.log");
        }
        close(file);
    }
}

static int state_of(int pid) {
    char text[STANDIN_TEXT];
    return standin_read(text, "pids/%d/state", pid) ? atoi(text) : -1;
}

static void set_state(int pid, int state) {
    char text[STANDIN_TEXT];
    snprintf(text, sizeof text, "%d", state);
    standin_write(text, "pids/%d/state", pid);
}

/* Whether the process exists and is not a zombie. */
static int is_alive(int pid) {
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *stream = fopen(path, "r");
    if (stream == NULL) {
        return 0;
    }
    size_t size = fread(text, 1, sizeof text - 1, stream);
    fclose(stream);
    text[size] = '\0';
    char *end = strrchr(text, ')');
    return end != NULL && end[1] == ' ' && end[2] != 'Z' && end[2] != 'X';
}

/* What every call does first: NOT_INITIALIZED without CUDA, OPERATING_SYSTEM when the process is gone. */
static int entry(int pid) {
    char text[STANDIN_TEXT];
    if (!initialised) {
        return NOT_INITIALIZED;
    }
    if (!is_alive(pid) || standin_read(text, "pids/%d/unreadable", pid)) {
        return OPERATING_SYSTEM;
    }
    return state_of(pid) < 0 ? NOT_INITIALIZED : SUCCESS;
}

/*
 * What a test has set for this call: delay_<op> (milliseconds), hang_<op>, exit_<op> (the process dies meanwhile),
 * fail_<op> ("<number>", or "<number> done": the call takes effect all the same). -1: nothing, go on.
 */
static int arranged(const char *operation, int pid, int *takes_effect) {
    char text[STANDIN_TEXT];
    *takes_effect = 1;
    if (standin_read(text, "pids/%d/delay_%s", pid, operation)) {
        wait_ms(atol(text));
    }
    if (standin_read(text, "pids/%d/hang_%s", pid, operation)) {
        note(operation, pid, "hang");
    }
    while (standin_read(text, "pids/%d/hang_%s", pid, operation)) {
        wait_ms(10);
    }
    if (standin_read(text, "pids/%d/exit_%s", pid, operation)) {
        kill(pid, SIGKILL);
        while (is_alive(pid)) {
            wait_ms(2);
        }
        *takes_effect = 0;
        return OPERATING_SYSTEM;
    }
    if (standin_read(text, "pids/%d/fail_%s", pid, operation)) {
        *takes_effect = strstr(text, "done") != NULL;
        return atoi(text);
    }
    return -1;
}

static int poison(int pid, int code) {
    standin_write("1", "pids/%d/poisoned", pid);
    return code;
}

/* The call as a whole; change does the transition under the mutex. */
static int operate(const char *operation, int pid, int from, int (*change)(int, void *), void *arguments) {
    char text[STANDIN_TEXT], detail[STANDIN_TEXT];
    note(operation, pid, "begin");
    int result = entry(pid);
    if (result == SUCCESS && standin_read(text, "pids/%d/poisoned", pid)) {
        result = strcmp(operation, "restore") == 0 ? OPERATING_SYSTEM : ILLEGAL_STATE;
    }
    if (result == SUCCESS && state_of(pid) != from) {
        result = ILLEGAL_STATE;
    }
    if (result == SUCCESS) {
        int takes_effect, wanted = arranged(operation, pid, &takes_effect);
        if (takes_effect) {
            pthread_mutex_lock(&mutex);
            result = change(pid, arguments);
            pthread_mutex_unlock(&mutex);
        }
        if (wanted >= 0) {
            result = wanted;
        }
        if (!takes_effect && strcmp(operation, "restore") == 0 && is_alive(pid)) {
            poison(pid, result);
        }
    }
    snprintf(detail, sizeof detail, "end %d", result);
    note(operation, pid, detail);
    return result;
}

static int change_lock(int pid, void *arguments) {
    lock_args_t *lock = arguments;
    char text[STANDIN_TEXT];
    if (standin_read(text, "pids/%d/busy", pid)) {
        wait_ms(lock == NULL ? 0 : (long)lock->timeout_ms);
        return NOT_READY;
    }
    /* Within a collective operation it comes to rest only as long as its partner is not locked. */
    int partner = 0, times = 0;
    if (standin_read(text, "pids/%d/collective", pid) && sscanf(text, "%d %d", &partner, &times) == 2 && times > 0 &&
        state_of(partner) == LOCKED) {
        snprintf(text, sizeof text, "%d %d", partner, times - 1);
        standin_write(text, "pids/%d/collective", pid);
        wait_ms(lock == NULL ? 0 : (long)lock->timeout_ms);
        return NOT_READY;
    }
    set_state(pid, LOCKED);
    return SUCCESS;
}

static int change_checkpoint(int pid, void *arguments) {
    (void)arguments;
    set_state(pid, CHECKPOINTED);
    return SUCCESS;
}

static int change_unlock(int pid, void *arguments) {
    (void)arguments;
    set_state(pid, RUNNING);
    return SUCCESS;
}

static void uuid_text(const uuid_t *uuid, char text[STANDIN_TEXT]) {
    const unsigned char *b = uuid->bytes;
    snprintf(text, STANDIN_TEXT, "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1],
             b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

/* The GPU to which the map sends old, into new; 0 when a map is given that lacks it. */
static int mapped(const restore_args_t *restore, const char *old, char new[STANDIN_TEXT]) {
    snprintf(new, STANDIN_TEXT, "%s", old);
    if (restore == NULL || restore->count == 0) {
        return 1;
    }
    for (unsigned int index = 0; index < restore->count; index++) {
        char text[STANDIN_TEXT];
        uuid_text(&restore->pairs[index].old_uuid, text);
        if (strcmp(text, old) == 0) {
            uuid_text(&restore->pairs[index].new_uuid, new);
            return 1;
        }
    }
    return 0;
}

/* As seen with the real one: a map that lacks a GPU which the process could see is refused, and poisons nothing. */
static int map_is_complete(int pid, const restore_args_t *restore) {
    char new[STANDIN_TEXT];
    int complete = 1;
    DIR *seen = standin_list("pids/%d/visible", pid);
    struct dirent *found;
    while (seen != NULL && (found = readdir(seen)) != NULL) {
        complete = complete && (found->d_name[0] == '.' || mapped(restore, found->d_name, new));
    }
    if (seen != NULL) {
        closedir(seen);
    }
    return complete;
}

static int change_restore(int pid, void *arguments) {
    restore_args_t *restore = arguments;
    char text[STANDIN_TEXT], old[8][STANDIN_TEXT], new[8][STANDIN_TEXT];
    int version = standin_read(text, "driver_version") ? atoi(text) : 13000, count = 0;
    if (restore != NULL && restore->count > 0 && (version < 13000 || !map_is_complete(pid, restore))) {
        return INVALID_VALUE;
    }
    DIR *memory = standin_list("pids/%d/bytes", pid);
    struct dirent *found;
    while (memory != NULL && count < 8 && (found = readdir(memory)) != NULL) {
        if (found->d_name[0] != '.') {
            snprintf(old[count++], STANDIN_TEXT, "%.*s", STANDIN_TEXT - 1, found->d_name);
        }
    }
    if (memory != NULL) {
        closedir(memory);
    }
    for (int index = 0; index < count; index++) {
        char chip_old[STANDIN_TEXT], chip_new[STANDIN_TEXT];
        int complete = mapped(restore, old[index], new[index]), gpu = standin_gpu(new[index]);
        if (!complete || gpu < 0) {
            return INVALID_VALUE;
        }
        if (standin_read(chip_old, "gpus/%d/name", standin_gpu(old[index])) &&
            standin_read(chip_new, "gpus/%d/name", gpu) && strcmp(chip_old, chip_new) != 0) {
            return INVALID_VALUE;
        }
        if (standin_used(gpu, new[index]) + standin_bytes(pid, old[index]) > standin_total(gpu)) {
            return poison(pid, OUT_OF_MEMORY);
        }
    }
    for (int index = 0; index < count; index++) {
        if (strcmp(old[index], new[index]) != 0) {
            char size[STANDIN_TEXT], path[STANDIN_PATH];
            snprintf(size, sizeof size, "%llu", standin_bytes(pid, old[index]));
            standin_write(size, "pids/%d/bytes/%s", pid, new[index]);
            snprintf(path, sizeof path, "%s/pids/%d/bytes/%s", getenv("GPUOPS_STANDIN_DIR"), pid, old[index]);
            unlink(path);
        }
    }
    set_state(pid, LOCKED);
    return SUCCESS;
}

int cuInit(unsigned int flags) {
    char text[STANDIN_TEXT];
    (void)flags;
    note("init", 0, "");
    while (standin_read(text, "hang_init")) {
        wait_ms(50);
    }
    if (standin_read(text, "init_error")) {
        return atoi(text);
    }
    initialised = 1;
    return SUCCESS;
}

int cuDriverGetVersion(int *version) {
    char text[STANDIN_TEXT];
    *version = standin_read(text, "driver_version") ? atoi(text) : 13000;
    return SUCCESS;
}

int cuGetErrorName(int error, const char **name) {
    static const struct {
        int number;
        const char *name;
    } names[] = {
        {SUCCESS, "CUDA_SUCCESS"},
        {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
        {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
        {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED"},
        {NO_DEVICE, "CUDA_ERROR_NO_DEVICE"},
        {OPERATING_SYSTEM, "CUDA_ERROR_OPERATING_SYSTEM"},
        {ILLEGAL_STATE, "CUDA_ERROR_ILLEGAL_STATE"},
        {NOT_READY, "CUDA_ERROR_NOT_READY"},
        {NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED"},
        {UNKNOWN, "CUDA_ERROR_UNKNOWN"},
    };
    for (size_t index = 0; index < sizeof names / sizeof names[0]; index++) {
        if (names[index].number == error) {
            *name = names[index].name;
            return SUCCESS;
        }
    }
    *name = NULL;
    return INVALID_VALUE;
}

int cuCheckpointProcessGetRestoreThreadId(int pid, int *tid) {
    char text[STANDIN_TEXT];
    int result = entry(pid);
    if (result == SUCCESS && standin_read(text, "pids/%d/coordinator", pid)) {
        result = NOT_INITIALIZED;
    }
    if (standin_read(text, "pids/%d/hang_thread", pid)) {
        note("thread", pid, "hang");
    }
    while (standin_read(text, "pids/%d/hang_thread", pid)) {
        wait_ms(10);
    }
    if (result == SUCCESS) {
        *tid = standin_read(text, "pids/%d/restore_tid", pid) ? atoi(text) : pid;
    }
    return result;
}

int cuCheckpointProcessGetState(int pid, int *state) {
    int result = entry(pid);
    if (result == SUCCESS) {
        *state = state_of(pid);
    }
    return result;
}

int cuCheckpointProcessLock(int pid, lock_args_t *arguments) {
    char text[STANDIN_TEXT];
    snprintf(text, sizeof text, "timeout_ms=%u", arguments == NULL ? 0 : arguments->timeout_ms);
    note("lock-arguments", pid, text);
    return operate("lock", pid, RUNNING, change_lock, arguments);
}

int cuCheckpointProcessCheckpoint(int pid, void *arguments) {
    return operate("checkpoint", pid, LOCKED, change_checkpoint, arguments);
}

int cuCheckpointProcessRestore(int pid, restore_args_t *arguments) {
    char text[STANDIN_TEXT], old[STANDIN_TEXT], new[STANDIN_TEXT];
    snprintf(text, sizeof text, "pairs=%u", arguments == NULL ? 0 : arguments->count);
    note("restore-arguments", pid, text);
    for (unsigned int index = 0; arguments != NULL && index < arguments->count; index++) {
        char line[2 * STANDIN_TEXT + 2];
        uuid_text(&arguments->pairs[index].old_uuid, old);
        uuid_text(&arguments->pairs[index].new_uuid, new);
        snprintf(line, sizeof line, "%s=%s", old, new);
        note("restore-pair", pid, line);
    }
    return operate("restore", pid, CHECKPOINTED, change_restore, arguments);
}

int cuCheckpointProcessUnlock(int pid, void *arguments) {
    return operate("unlock", pid, LOCKED, change_unlock, arguments);
}

int cuGetProcAddress_v2(const char *symbol, void **function, int version, uint64_t flags, int *status);

static const struct {
    const char *name;
    void *function;
} functions[] = {
    {"cuInit", (void *)cuInit},
    {"cuDriverGetVersion", (void *)cuDriverGetVersion},
    {"cuGetErrorName", (void *)cuGetErrorName},
    {"cuGetProcAddress", (void *)cuGetProcAddress_v2},
    {"cuCheckpointProcessGetRestoreThreadId", (void *)cuCheckpointProcessGetRestoreThreadId},
    {"cuCheckpointProcessGetState", (void *)cuCheckpointProcessGetState},
    {"cuCheckpointProcessLock", (void *)cuCheckpointProcessLock},
    {"cuCheckpointProcessCheckpoint", (void *)cuCheckpointProcessCheckpoint},
    {"cuCheckpointProcessRestore", (void *)cuCheckpointProcessRestore},
    {"cuCheckpointProcessUnlock", (void *)cuCheckpointProcessUnlock},
};

/* missing/<function>: an old driver, which does not have it. */
int cuGetProcAddress_v2(const char *symbol, void **function, int version, uint64_t flags, int *status) {
    char text[STANDIN_TEXT];
    (void)version;
    (void)flags;
    *function = NULL;
    for (size_t index = 0; index < sizeof functions / sizeof functions[0]; index++) {
        if (strcmp(functions[index].name, symbol) == 0 && !standin_read(text, "missing/%s", symbol)) {
            *function = functions[index].function;
        }
    }
    if (status != NULL) {
        *status = *function != NULL ? 0 : 1;
    }
    return *function != NULL ? SUCCESS : NOT_FOUND;
}
