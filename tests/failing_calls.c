/* Loaded before libc (LD_PRELOAD): counts the calls that decide what is on the disk after a crash, and at one of them
   kills the process or reports a broken disk. Armed from Python by arm(); a process that never arms runs undisturbed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char below[4096];         /* only paths that contain this are counted; empty: off */
static int kill_at, fail_at;     /* numbers of calls, from 1; 0: never */
static int calls, syncs;
static int journal = -1;         /* a file descriptor that gets a line for each counted call */

void arm(const char *path, int kill_number, int fail_number, int log) {
    snprintf(below, sizeof below, "%s", path);
    kill_at = kill_number;
    fail_at = fail_number;
    journal = log;
    calls = syncs = 0;
}

int counted_calls(void) { return calls; }
int counted_syncs(void) { return syncs; }

static int passes(const char *call, const char *path) {
    if (!below[0] || !path || !strstr(path, below)) return 0;
    int number = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
    if (journal >= 0) dprintf(journal, "%d %s %s\n", number, call, path);
    if (number == kill_at) kill(getpid(), SIGKILL);
    return 1;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int mkdir(const char *path, mode_t mode) { passes("mkdir", path); return NEXT(mkdir)(path, mode); }
int rmdir(const char *path) { passes("rmdir", path); return NEXT(rmdir)(path); }
int unlink(const char *path) { passes("unlink", path); return NEXT(unlink)(path); }
int link(const char *from, const char *to) { passes("link", to); return NEXT(link)(from, to); }
int rename(const char *from, const char *to) { passes("rename", to); return NEXT(rename)(from, to); }
int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    passes("renameat2", to);
    return NEXT(renameat2)(from_dir, from, to_dir, to, flags);
}

static int sync_of(const char *call, int file, int (*real)(int)) {
    char name[64], path[4096];
    snprintf(name, sizeof name, "/proc/self/fd/%d", file);
    ssize_t size = readlink(name, path, sizeof path - 1);
    path[size < 0 ? 0 : size] = 0;
    if (passes(call, path) && __atomic_add_fetch(&syncs, 1, __ATOMIC_SEQ_CST) >= fail_at && fail_at) {
        errno = EIO;
        return -1;
    }
    return real(file);
}

int fsync(int file) { return sync_of("fsync", file, NEXT(fsync)); }
int fdatasync(int file) { return sync_of("fdatasync", file, NEXT(fdatasync)); }
