/* Counts what a process does to files below a folder, and kills or fails it at the n-th operation.

The library is loaded before libc (LD_PRELOAD), so its functions stand in for those of the same
name.  It is idle until `watch` is called.  What reads, and what happens elsewhere, is not counted.
Each operation is written as one line to a log, before it is done. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* Keep in step with `Fault` in forked.py. */
enum { NONE, KILL, TEAR, FAIL_ONCE, FAIL_FROM, SHORT };

/* What becomes of an operation; a positive number is the error with which it fails. */
enum { GO = 0, HALF = -1, HALF_AND_DIE = -2 };

static char root[PATH_MAX];
static size_t root_length;
static int fault, error_number, log_file;
static long fault_at;
static atomic_long operations;

/* Watch a folder, whose path has no links, from now on; `fault` comes at operation `at`. */
void watch(const char *folder, int chosen, long at, int error, int log) {
    fault = chosen, fault_at = at, error_number = error, log_file = log;
    operations = 0;
    root_length = strlen(folder);
    memcpy(root, folder, root_length + 1);
}

static void die(void) {
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;) pause();
}

/* Write where a path that is relative to an open folder is, or that of an open file, to `out`. */
static void locate(int at, const char *path, char *out) {
    char link[64];
    ssize_t length = 0;
    if (path && path[0] == '/') {
        snprintf(out, PATH_MAX, "%s", path);
        return;
    }
    if (at == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
    else snprintf(link, sizeof link, "/proc/self/fd/%d", at);
    length = readlink(link, out, PATH_MAX - 1);
    if (length < 0) length = 0;
    snprintf(out + length, PATH_MAX - length, path ? "/%s" : "", path);
}

static int next(const char *name, int at, const char *path) {
    char where[PATH_MAX], line[PATH_MAX + 64];
    int is_write = !strcmp(name, "write");
    int gives_room = !strcmp(name, "unlink") || !strcmp(name, "rmdir");
    if (!root_length) return GO;
    locate(at, path, where);
    if (strncmp(where, root, root_length) || (where[root_length] && where[root_length] != '/'))
        return GO;
    long n = ++operations;
    int length = snprintf(line, sizeof line, "%s %s\n", name, where + root_length);
    syscall(SYS_write, log_file, line, length);
    if (fault == NONE || n < fault_at) return GO;
    if (fault == KILL) die();
    if (fault == TEAR) return is_write ? HALF_AND_DIE : (die(), GO);
    if (n > fault_at && fault != FAIL_FROM) return GO;
    if (fault == SHORT) return is_write ? HALF : GO;
    /* A full disk takes what there is room for, and lets files be deleted. */
    if (error_number == ENOSPC && gives_room) return GO;
    if (fault == FAIL_FROM && n == fault_at && is_write) return HALF;
    return error_number;
}

/* End an interposed call: fail it, or do it by a system call. */
#define FAIL_OR(name, at, path, call)                                                              \
    int fate = next(name, at, path);                                                               \
    if (fate > 0) return errno = fate, -1;                                                         \
    return call

/* --- what makes, names and removes files --- */

static int open_at(int at, const char *path, int flags, mode_t mode) {
    if (!(flags & (O_CREAT | O_TRUNC))) return syscall(SYS_openat, at, path, flags, mode);
    FAIL_OR("create", at, path, syscall(SYS_openat, at, path, flags, mode));
}

#define MODE_OF(last)                                                                              \
    va_list rest;                                                                                  \
    va_start(rest, last);                                                                          \
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;                                      \
    va_end(rest)

int open(const char *path, int flags, ...) { MODE_OF(flags); return open_at(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE_OF(flags); return open_at(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE_OF(flags); return open_at(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE_OF(flags); return open_at(at, path, flags, mode); }
int creat(const char *path, mode_t mode) { return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

int mkdirat(int at, const char *path, mode_t mode) {
    FAIL_OR("mkdir", at, path, syscall(SYS_mkdirat, at, path, mode));
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

int renameat2(int from, const char *old, int to, const char *new, unsigned flags) {
    FAIL_OR("rename", to, new, syscall(SYS_renameat2, from, old, to, new, flags));
}
int renameat(int from, const char *old, int to, const char *new) { return renameat2(from, old, to, new, 0); }
int rename(const char *old, const char *new) { return renameat2(AT_FDCWD, old, AT_FDCWD, new, 0); }

int linkat(int from, const char *old, int to, const char *new, int flags) {
    FAIL_OR("link", to, new, syscall(SYS_linkat, from, old, to, new, flags));
}
int link(const char *old, const char *new) { return linkat(AT_FDCWD, old, AT_FDCWD, new, 0); }

int symlinkat(const char *target, int at, const char *path) {
    FAIL_OR("symlink", at, path, syscall(SYS_symlinkat, target, at, path));
}
int symlink(const char *target, const char *path) { return symlinkat(target, AT_FDCWD, path); }

int unlinkat(int at, const char *path, int flags) {
    FAIL_OR(flags & AT_REMOVEDIR ? "rmdir" : "unlink", at, path, syscall(SYS_unlinkat, at, path, flags));
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

/* --- what fills files --- */

ssize_t write(int file, const void *from, size_t bytes) {
    int fate = next("write", file, NULL);
    if (fate > 0) return errno = fate, -1;
    if (fate != GO && bytes > 1) bytes /= 2;
    ssize_t written = syscall(SYS_write, file, from, bytes);
    if (fate == HALF_AND_DIE) die();
    return written;
}

ssize_t pwrite64(int file, const void *from, size_t bytes, off_t offset) {
    int fate = next("write", file, NULL);
    if (fate > 0) return errno = fate, -1;
    if (fate != GO && bytes > 1) bytes /= 2;
    ssize_t written = syscall(SYS_pwrite64, file, from, bytes, offset);
    if (fate == HALF_AND_DIE) die();
    return written;
}
ssize_t pwrite(int file, const void *from, size_t bytes, off_t offset) { return pwrite64(file, from, bytes, offset); }

/* The first part of several stands for a half of them. */
ssize_t writev(int file, const struct iovec *parts, int count) {
    int fate = next("write", file, NULL);
    if (fate > 0) return errno = fate, -1;
    ssize_t written = syscall(SYS_writev, file, parts, fate == GO ? count : 1);
    if (fate == HALF_AND_DIE) die();
    return written;
}

int ftruncate64(int file, off_t length) { FAIL_OR("truncate", file, NULL, syscall(SYS_ftruncate, file, length)); }
int ftruncate(int file, off_t length) { return ftruncate64(file, length); }

int fallocate64(int file, int mode, off_t from, off_t bytes) {
    FAIL_OR("reserve", file, NULL, syscall(SYS_fallocate, file, mode, from, bytes));
}
int fallocate(int file, int mode, off_t from, off_t bytes) { return fallocate64(file, mode, from, bytes); }
int posix_fallocate64(int file, off_t from, off_t bytes) { return fallocate64(file, 0, from, bytes) ? errno : 0; }
int posix_fallocate(int file, off_t from, off_t bytes) { return posix_fallocate64(file, from, bytes); }

/* Below the folder nobody waits for the disk: a process that is killed loses nothing it has written. */
static int sync_by(long call, int file) {
    FAIL_OR("fsync", file, NULL, root_length ? 0 : (int)syscall(call, file));
}
int fsync(int file) { return sync_by(SYS_fsync, file); }
int fdatasync(int file) { return sync_by(SYS_fdatasync, file); }
int fchmod(int file, mode_t mode) { FAIL_OR("chmod", file, NULL, syscall(SYS_fchmod, file, mode)); }
