/* Records or disturbs what processes do to the files below one folder: see tests/crash/shim.py.

   Every function that changes files, or makes changes durable, stands before that of libc. One lock in memory that all
   processes share puts their operations in order; each is made, and appended to the journal, while it is held. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define FDS 65536
#define EXPORT __attribute__((visibility("default")))
#define NEXT(name) ((__typeof__(name) *)next(#name))

enum { CREATE = 'c', MKDIR = 'm', WRITE = 'w', TRUNCATE = 't', RENAME = 'r', UNLINK = 'u', LINK = 'l', SYNC = 's',
       MARK = '!' };

struct shared { pthread_mutex_t lock; volatile int ready; uint64_t count; };

struct record { uint32_t size; uint32_t kind; uint64_t inode; int64_t offset; uint32_t first, second; };

static struct shared *all;
static char root[PATH_MAX];
static size_t root_length;
static int journal = -1;
static uint64_t die_at, full_at, full_for, signal_at, signal_is;
static unsigned char tracked[FDS]; /* of each open file of this process, whether it is below the root */
static pid_t owner;                /* whose table this is: a child of vfork has the memory of its parent */

static void *next(const char *name) { return dlsym(RTLD_NEXT, name); }

static uint64_t number(const char *name) { const char *text = getenv(name); return text ? strtoull(text, 0, 10) : 0; }

/* The lock and the counter are in a file of the journal's name and `.shared`; whoever makes it sets the lock up. */
static void start(void) {
    const char *folder = getenv("CRASH_ROOT"), *path = getenv("CRASH_JOURNAL");
    char name[PATH_MAX];
    if (all || !folder || !path) return;
    snprintf(root, sizeof root, "%s", folder);
    root_length = strlen(root);
    die_at = number("CRASH_DIE_AT"), full_at = number("CRASH_FULL_AT"), full_for = number("CRASH_FULL_FOR");
    signal_at = number("CRASH_SIGNAL_AT"), signal_is = number("CRASH_SIGNAL");
    snprintf(name, sizeof name, "%s.shared", path);
    int made = 1, file = syscall(SYS_openat, AT_FDCWD, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0) made = 0, file = syscall(SYS_openat, AT_FDCWD, name, O_RDWR | O_CLOEXEC, 0);
    if (file < 0) return;
    if (made && syscall(SYS_ftruncate, file, sizeof(struct shared))) return;
    struct stat about;
    while (!fstat(file, &about) && about.st_size < (off_t)sizeof(struct shared)) usleep(100);
    struct shared *memory = mmap(0, sizeof *memory, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    syscall(SYS_close, file);
    if (memory == MAP_FAILED) return;
    if (made) {
        pthread_mutexattr_t kind;
        pthread_mutexattr_init(&kind);
        pthread_mutexattr_setpshared(&kind, PTHREAD_PROCESS_SHARED);
        pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST);
        pthread_mutex_init(&memory->lock, &kind);
        memory->ready = 1;
    }
    while (!memory->ready) usleep(100);
    /* far from the numbers that programs count on: 3 is the first that they open */
    int low = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    journal = syscall(SYS_fcntl, low, F_DUPFD_CLOEXEC, 900);
    syscall(SYS_close, low);
    all = memory;
}

static void adopt(void) { owner = getpid(); }

__attribute__((constructor)) static void begin(void) {
    adopt();
    pthread_atfork(0, 0, adopt);
    start();
}

static void lock(void) { if (pthread_mutex_lock(&all->lock) == EOWNERDEAD) pthread_mutex_consistent(&all->lock); }

static void unlock(void) { int before = errno; pthread_mutex_unlock(&all->lock); errno = before; }

/* The path below the root, without links in its folders; 0: it is elsewhere. */
static int below(int folder, const char *path, char *out) {
    char whole[PATH_MAX], real[PATH_MAX], parent[PATH_MAX];
    if (!all) start();
    if (!all || !path || !*path) return 0;
    int before = errno;
    if (path[0] == '/') snprintf(whole, sizeof whole, "%s", path);
    else {
        char at[PATH_MAX], link[64];
        ssize_t n;
        if (folder == AT_FDCWD) { if (!getcwd(at, sizeof at)) goto no; }
        else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
            if ((n = readlink(link, at, sizeof at - 1)) < 0) goto no;
            at[n] = 0;
        }
        if (snprintf(whole, sizeof whole, "%s/%s", at, path) >= (int)sizeof whole) goto no;
    }
    size_t length = strlen(whole);
    while (length > 1 && whole[length - 1] == '/') whole[--length] = 0;
    char *slash = strrchr(whole, '/');
    if (!strcmp(slash + 1, "..") || !strcmp(slash + 1, ".")) {
        if (!realpath(whole, real)) goto no;
    } else {
        snprintf(parent, sizeof parent, "%.*s", (int)(slash == whole ? 1 : slash - whole), whole);
        if (!realpath(parent, real)) goto no;
        size_t n = strlen(real);
        if (snprintf(real + n, sizeof real - n, "%s%s", n > 1 ? "/" : "", slash + 1) >= (int)(sizeof real - n)) goto no;
    }
    if (strncmp(real, root, root_length) || (real[root_length] && real[root_length] != '/')) goto no;
    snprintf(out, PATH_MAX, "%s", real[root_length] ? real + root_length + 1 : "");
    errno = before;
    return 1;
no:
    errno = before;
    return 0;
}

static uint64_t inode_of(int file) { struct stat about; return fstat(file, &about) ? 0 : about.st_ino; }

static uint64_t inode_at(const char *path) {
    char whole[2 * PATH_MAX];
    struct stat about;
    snprintf(whole, sizeof whole, "%s/%s", root, path);
    return lstat(whole, &about) ? 0 : about.st_ino;
}

static void note(int kind, uint64_t inode, int64_t offset, const void *first, size_t n, const void *second, size_t m) {
    int before = errno;
    struct record head = {sizeof head + n + m, kind, inode, offset, n, m};
    struct iovec parts[3] = {{&head, sizeof head}, {(void *)first, n}, {(void *)second, m}};
    syscall(SYS_writev, journal, parts, 3);
    errno = before;
}

static void note_path(int kind, uint64_t inode, const char *path, const char *other) {
    note(kind, inode, 0, path, strlen(path), other, other ? strlen(other) : 0);
}

/* Counts an operation; whether it is to be the last one of this process, or finds no room. */
enum { GO, LAST, FULL };
static int turn(int takes_room) {
    uint64_t now = ++all->count;
    if (die_at && now == die_at) return LAST;
    if (signal_at && now == signal_at) syscall(SYS_kill, getpid(), (int)signal_is);
    if (takes_room && full_at && now >= full_at && (!full_for || now < full_at + full_for)) return FULL;
    return GO;
}

static void die(void) { syscall(SYS_kill, getpid(), SIGKILL); for (;;) pause(); }

static void track(int file, int whether) {
    if (file >= 0 && file < FDS && owner == getpid()) tracked[file] = whether;
}

static int is_tracked(int file) {
    struct stat about;
    if (file < 0 || file >= FDS || !tracked[file] || fstat(file, &about)) return 0;
    return S_ISREG(about.st_mode) || S_ISDIR(about.st_mode);
}

/* ---- opening ---- */

static int opened(int folder, const char *path, int flags, mode_t mode) {
    char at[PATH_MAX];
    if (!below(folder, path, at)) {
        int file = syscall(SYS_openat, folder, path, flags, mode);
        track(file, 0);
        return file;
    }
    lock();
    int creates = (flags & O_CREAT) && !inode_at(at), cuts = (flags & O_TRUNC) && (flags & O_ACCMODE) != O_RDONLY;
    if (creates || cuts) switch (turn(creates)) {
        case LAST: die();
        case FULL: unlock(); errno = ENOSPC; return -1;
    }
    int file = syscall(SYS_openat, folder, path, flags, mode);
    if (file >= 0) {
        track(file, 1);
        if (creates) note_path(CREATE, inode_of(file), at, 0);
        else if (cuts) note(TRUNCATE, inode_of(file), 0, at, strlen(at), 0, 0);
    }
    unlock();
    return file;
}

#define MODE(flags) mode_t mode = 0; if ((flags) & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); \
    mode = va_arg(rest, mode_t); va_end(rest); }

EXPORT int open(const char *path, int flags, ...) { MODE(flags) return opened(AT_FDCWD, path, flags, mode); }
EXPORT int open64(const char *path, int flags, ...) { MODE(flags) return opened(AT_FDCWD, path, flags, mode); }
EXPORT int openat(int at, const char *path, int flags, ...) { MODE(flags) return opened(at, path, flags, mode); }
EXPORT int openat64(int at, const char *path, int flags, ...) { MODE(flags) return opened(at, path, flags, mode); }
EXPORT int __open_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0); }
EXPORT int __open64_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0); }
EXPORT int __openat_2(int at, const char *path, int flags) { return opened(at, path, flags, 0); }
EXPORT int __openat64_2(int at, const char *path, int flags) { return opened(at, path, flags, 0); }
EXPORT int creat(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
EXPORT int creat64(const char *path, mode_t mode) { return creat(path, mode); }

/* What libc's own streams write is not seen: libstdc++ opens this way, and writes by write() and writev(). */
static FILE *opened_stream(const char *path, const char *how, void *stream) {
    char at[PATH_MAX];
    if (!below(AT_FDCWD, path, at)) return ((FILE * (*)(const char *, const char *)) stream)(path, how);
    int flags = strchr(how, '+') ? O_RDWR : *how == 'r' ? O_RDONLY : O_WRONLY;
    flags |= *how == 'w' ? O_CREAT | O_TRUNC : *how == 'a' ? O_CREAT | O_APPEND : 0;
    int file = opened(AT_FDCWD, path, flags, 0666);
    return file < 0 ? 0 : fdopen(file, how);
}
EXPORT FILE *fopen(const char *path, const char *how) { return opened_stream(path, how, next("fopen")); }
EXPORT FILE *fopen64(const char *path, const char *how) { return opened_stream(path, how, next("fopen64")); }

EXPORT int close(int file) {
    if (file >= 0 && file == journal && owner == getpid()) return 0;
    track(file, 0);
    return syscall(SYS_close, file);
}
EXPORT int close_range(unsigned from, unsigned to, int flags) {
    for (unsigned file = from; file <= to && file < FDS && !flags; file++) track(file, 0);
    return syscall(SYS_close_range, from, to, flags);
}
EXPORT int fclose(FILE *stream) { track(fileno(stream), 0); return NEXT(fclose)(stream); }
EXPORT int closedir(DIR *folder) { track(dirfd(folder), 0); return NEXT(closedir)(folder); }

static int copied(int from, int to) {
    track(to, is_tracked(from));
    return to;
}
EXPORT int dup(int file) { return copied(file, syscall(SYS_dup, file)); }
EXPORT int dup2(int file, int to) { return copied(file, NEXT(dup2)(file, to)); }
EXPORT int dup3(int file, int to, int flags) { return copied(file, syscall(SYS_dup3, file, to, flags)); }

static int controlled(int file, int command, void *argument) {
    int result = ((int (*)(int, int, ...))next("fcntl"))(file, command, argument);
    return command == F_DUPFD || command == F_DUPFD_CLOEXEC ? copied(file, result) : result;
}
#define ARGUMENT(before) va_list rest; va_start(rest, before); void *argument = va_arg(rest, void *); va_end(rest);
EXPORT int fcntl(int file, int command, ...) { ARGUMENT(command) return controlled(file, command, argument); }
EXPORT int fcntl64(int file, int command, ...) { ARGUMENT(command) return controlled(file, command, argument); }

/* ---- contents ---- */

/* `offset` -1: where the file is. */
static ssize_t written(int file, const void *content, size_t size, int64_t offset) {
    if (!is_tracked(file)) return offset < 0 ? syscall(SYS_write, file, content, size)
                                             : syscall(SYS_pwrite64, file, content, size, offset);
    lock();
    int what = turn(1);
    if (what == FULL) { unlock(); errno = ENOSPC; return -1; }
    if (what == LAST) size /= 2;
    ssize_t done = offset < 0 ? syscall(SYS_write, file, content, size)
                              : syscall(SYS_pwrite64, file, content, size, offset);
    if (done > 0) {
        int64_t at = offset < 0 ? syscall(SYS_lseek, file, 0, SEEK_CUR) - done : offset;
        note(WRITE, inode_of(file), at, content, done, 0, 0);
    }
    if (what == LAST) die();
    unlock();
    return done;
}
EXPORT ssize_t write(int file, const void *content, size_t size) { return written(file, content, size, -1); }
EXPORT ssize_t pwrite(int file, const void *content, size_t size, off_t at) { return written(file, content, size, at); }
EXPORT ssize_t pwrite64(int file, const void *content, size_t size, off64_t at) {
    return written(file, content, size, at);
}

static ssize_t written_parts(int file, const struct iovec *parts, int count, int64_t offset) {
    ssize_t sum = 0;
    for (int i = 0; i < count; i++) {
        if (!parts[i].iov_len) continue;
        ssize_t done = written(file, parts[i].iov_base, parts[i].iov_len, offset < 0 ? -1 : offset + sum);
        if (done < 0) return sum ? sum : -1;
        sum += done;
        if ((size_t)done < parts[i].iov_len) break;
    }
    return sum;
}
EXPORT ssize_t writev(int file, const struct iovec *parts, int count) {
    return is_tracked(file) ? written_parts(file, parts, count, -1) : syscall(SYS_writev, file, parts, count);
}
EXPORT ssize_t pwritev(int file, const struct iovec *parts, int count, off_t at) {
    return is_tracked(file) ? written_parts(file, parts, count, at) : NEXT(pwritev)(file, parts, count, at);
}
EXPORT ssize_t pwritev64(int file, const struct iovec *parts, int count, off64_t at) {
    return pwritev(file, parts, count, at);
}

/* Callers have another way, which is seen. */
EXPORT ssize_t sendfile64(int out, int in, off64_t *at, size_t size) {
    if (is_tracked(out)) { errno = EINVAL; return -1; }
    return syscall(SYS_sendfile, out, in, at, size);
}
EXPORT ssize_t sendfile(int out, int in, off_t *at, size_t size) { return sendfile64(out, in, at, size); }
EXPORT ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags) {
    if (is_tracked(out)) { errno = ENOSYS; return -1; }
    return syscall(SYS_copy_file_range, in, from, out, to, size, flags);
}

static int cut(int file, off64_t size) {
    if (!is_tracked(file)) return syscall(SYS_ftruncate, file, size);
    lock();
    if (turn(0) == LAST) die();
    int result = syscall(SYS_ftruncate, file, size);
    if (!result) note(TRUNCATE, inode_of(file), size, 0, 0, 0, 0);
    unlock();
    return result;
}
EXPORT int ftruncate(int file, off_t size) { return cut(file, size); }
EXPORT int ftruncate64(int file, off64_t size) { return cut(file, size); }
EXPORT int truncate64(const char *path, off64_t size) {
    char at[PATH_MAX];
    if (!below(AT_FDCWD, path, at)) return syscall(SYS_truncate, path, size);
    lock();
    if (turn(0) == LAST) die();
    int result = syscall(SYS_truncate, path, size);
    if (!result) note(TRUNCATE, inode_at(at), size, at, strlen(at), 0, 0);
    unlock();
    return result;
}
EXPORT int truncate(const char *path, off_t size) { return truncate64(path, size); }

/* ---- names ---- */

static int renamed(int from, const char *old, int to, const char *new, unsigned flags) {
    char a[PATH_MAX], b[PATH_MAX];
    int out = below(from, old, a), in = below(to, new, b);
    if (!out && !in) return syscall(SYS_renameat2, from, old, to, new, flags);
    lock();
    if (turn(0) == LAST) die();
    int result = syscall(SYS_renameat2, from, old, to, new, flags);
    if (!result) note_path(RENAME, in ? inode_at(b) : 0, out ? a : "", in ? b : "");
    unlock();
    return result;
}
EXPORT int rename(const char *old, const char *new) { return renamed(AT_FDCWD, old, AT_FDCWD, new, 0); }
EXPORT int renameat(int from, const char *old, int to, const char *new) { return renamed(from, old, to, new, 0); }
EXPORT int renameat2(int from, const char *old, int to, const char *new, unsigned flags) {
    return renamed(from, old, to, new, flags);
}

static int unlinked(int folder, const char *path, int flags) {
    char at[PATH_MAX];
    if (!below(folder, path, at)) return syscall(SYS_unlinkat, folder, path, flags);
    lock();
    uint64_t inode = inode_at(at);
    if (inode && turn(0) == LAST) die();
    int result = syscall(SYS_unlinkat, folder, path, flags);
    if (!result) note_path(UNLINK, inode, at, 0);
    unlock();
    return result;
}
EXPORT int unlink(const char *path) { return unlinked(AT_FDCWD, path, 0); }
EXPORT int unlinkat(int folder, const char *path, int flags) { return unlinked(folder, path, flags); }
EXPORT int rmdir(const char *path) { return unlinked(AT_FDCWD, path, AT_REMOVEDIR); }
EXPORT int remove(const char *path) {
    int result = unlinked(AT_FDCWD, path, 0);
    return result && (errno == EISDIR || errno == EPERM) ? unlinked(AT_FDCWD, path, AT_REMOVEDIR) : result;
}

static int made(int folder, const char *path, mode_t mode) {
    char at[PATH_MAX];
    if (!below(folder, path, at)) return syscall(SYS_mkdirat, folder, path, mode);
    lock();
    if (!inode_at(at)) switch (turn(1)) {
        case LAST: die();
        case FULL: unlock(); errno = ENOSPC; return -1;
    }
    int result = syscall(SYS_mkdirat, folder, path, mode);
    if (!result) note_path(MKDIR, inode_at(at), at, 0);
    unlock();
    return result;
}
EXPORT int mkdir(const char *path, mode_t mode) { return made(AT_FDCWD, path, mode); }
EXPORT int mkdirat(int folder, const char *path, mode_t mode) { return made(folder, path, mode); }

static int linked(int from, const char *old, int to, const char *new, int flags) {
    char a[PATH_MAX], b[PATH_MAX];
    if (!below(to, new, b)) return syscall(SYS_linkat, from, old, to, new, flags);
    lock();
    switch (turn(1)) {
        case LAST: die();
        case FULL: unlock(); errno = ENOSPC; return -1;
    }
    int result = syscall(SYS_linkat, from, old, to, new, flags);
    if (!result) note_path(LINK, inode_at(b), below(from, old, a) ? a : "", b);
    unlock();
    return result;
}
EXPORT int link(const char *old, const char *new) { return linked(AT_FDCWD, old, AT_FDCWD, new, 0); }
EXPORT int linkat(int from, const char *old, int to, const char *new, int flags) {
    return linked(from, old, to, new, flags);
}

/* ---- durability ---- */

static int synced(int file, long call) {
    if (!is_tracked(file)) return syscall(call, file);
    lock();
    if (turn(0) == LAST) die();
    note(SYNC, inode_of(file), 0, 0, 0, 0, 0); /* the disk of a test need not wait */
    unlock();
    return 0;
}
EXPORT int fsync(int file) { return synced(file, SYS_fsync); }
EXPORT int fdatasync(int file) { return synced(file, SYS_fdatasync); }

/* What a test calls to say that something was acknowledged at this place of the journal. */
EXPORT void crash_mark(const char *text) {
    if (!all) return;
    lock();
    note_path(MARK, 0, text, 0);
    unlock();
}
