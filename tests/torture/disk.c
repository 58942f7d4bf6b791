/* Stands between a process and its data directory, for tests (tests/it/torture, LD_PRELOAD).
 *
 * Every system call that changes something below DISK_ROOT is written to the file DISK_LOG, in
 * the order in which it was done. From that log the test knows what was synced and what was not,
 * and builds the directory as a power cut could have left it (tests/it/torture/disk.rs). The
 * same place makes the n-th call fail, or kills the process there.
 *
 * It does not replace functions of libc: Rust's `rustix` makes system calls without libc. A
 * seccomp filter turns the calls into SIGSYS wherever they come from, and the handler makes them.
 * Only calls from `disk_raw` below pass the filter.
 *
 * DISK_ROOT   directory to watch; the directory above it is watched for the entry of DISK_ROOT
 * DISK_LOG    where to write; without it nothing is done at all
 * DISK_SYNC   longest time that a sync takes, microseconds: none is made, since what it means is
 *             decided by the test. Without it, syncs are made
 * DISK_FAIL   "errno class first count [path]": of the calls of a class (see `classes`, * for all)
 *             whose path contains `path`, so many fail, from the first-th on. A first failing
 *             write with ENOSPC is half done instead
 * DISK_KILL   "class n when [path]": SIGKILL at the n-th such call; when = b(efore) or a(fter)
 * DISK_BLIND  syncs of files with this in their path are left out: a bug that tests must find
 *
 * Not seen: shared writable mappings, io_uring and what else the handler calls unsupported. It is
 * written to the log, and the test fails. x86-64 Linux only.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#if !defined(__x86_64__)
#error "x86-64 only"
#endif

/* The one place whose system calls pass the filter. */
long disk_raw(long number, long a, long b, long c, long d, long e, long f);
__asm__(".text\n"
        ".globl disk_raw\n"
        ".hidden disk_raw\n"
        ".type disk_raw, @function\n"
        "disk_raw:\n"
        "  mov %rdi, %rax\n"
        "  mov %rsi, %rdi\n"
        "  mov %rdx, %rsi\n"
        "  mov %rcx, %rdx\n"
        "  mov %r8, %r10\n"
        "  mov %r9, %r8\n"
        "  mov 8(%rsp), %r9\n"
        "  syscall\n"
        ".globl disk_raw_after\n"
        ".hidden disk_raw_after\n"
        "disk_raw_after:\n"
        "  ret\n");
extern char disk_raw_after[];

#define raw(...) raw_(__VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define raw_(n, a, b, c, d, e, f, ...)                                                             \
    disk_raw((long)(n), (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

/* What the test reads; little endian, then two texts or one text and data. */
struct record {
    uint32_t magic;
    uint32_t kind;
    int64_t number; /* of the call among those that count, 0 for others */
    int64_t handle;
    int64_t a, b;
    uint32_t first, second; /* lengths of what follows */
};
enum kind {
    OPEN = 1,
    WRITE,
    LENGTH,
    ALLOCATE,
    SYNC_BEGUN,
    SYNCED,
    RENAMED,
    REMOVED,
    MADE_DIRECTORY,
    LINKED,
    FAILED,
    UNSUPPORTED,
    STARTED,
};
#define MAGIC 0x4b534944u

#define MAX_FDS 65536
static int32_t handles[MAX_FDS]; /* of descriptors that are watched, else 0 */
static int32_t next_handle = 1;
static char root[PATH_MAX], above[PATH_MAX];
static size_t root_len;
static int log_fd = -1;
static long sync_micros = -1;
static uint64_t random_state;
static int64_t counted; /* calls that count, so far */
static int64_t tokens;

/* w write, s sync, o open, r rename, u unlink, m mkdir, t truncate, l link */
struct rule {
    char class;
    int64_t first, count, seen;
    int error;
    char when;
    char path[256];
};
static struct rule failing, killing;
static char blind[256];

static int lock_word;
static void lock(void) {
    struct timespec pause = {0, 1000000};
    while (__atomic_exchange_n(&lock_word, 1, __ATOMIC_ACQUIRE))
        raw(SYS_futex, &lock_word, FUTEX_WAIT_PRIVATE, 1, &pause);
}
static void unlock(void) {
    __atomic_store_n(&lock_word, 0, __ATOMIC_RELEASE);
    raw(SYS_futex, &lock_word, FUTEX_WAKE_PRIVATE, 1);
}

static void note(enum kind kind, int64_t number, int64_t handle, int64_t a, int64_t b,
                 const char *first, const struct iovec *data, int parts, size_t data_len) {
    struct record record = {MAGIC, kind, number, handle, a, b, 0, 0};
    struct iovec some[1024];
    record.first = first ? strlen(first) : 0;
    record.second = data_len;
    some[0] = (struct iovec){&record, sizeof record};
    some[1] = (struct iovec){(void *)first, record.first};
    raw(SYS_writev, log_fd, some, 2);
    int n = 0;
    for (int i = 0; i < parts && i < 1024 && data_len > 0; i++) {
        size_t len = data[i].iov_len < data_len ? data[i].iov_len : data_len;
        some[n++] = (struct iovec){data[i].iov_base, len};
        data_len -= len;
    }
    if (n) raw(SYS_writev, log_fd, some, n);
}
static void note_text(enum kind kind, int64_t number, int64_t a, const char *one, const char *two) {
    struct iovec second = {(void *)two, two ? strlen(two) : 0};
    note(kind, number, 0, a, 0, one, &second, 1, second.iov_len);
}

static int is_watched(const char *path) {
    return !strcmp(path, above) ||
           (!strncmp(path, root, root_len) && (path[root_len] == 0 || path[root_len] == '/'));
}

/* Number in decimal behind a text. */
static void append_number(char *text, long number) {
    char digits[24];
    int n = 0;
    do digits[n++] = '0' + number % 10;
    while ((number /= 10));
    size_t len = strlen(text);
    while (n) text[len++] = digits[--n];
    text[len] = 0;
}
static void descriptor_path(int fd, char *out) {
    char link[64] = "/proc/self/fd/";
    if (fd == AT_FDCWD) strcpy(link, "/proc/self/cwd");
    else append_number(link, fd);
    long len = raw(SYS_readlink, link, out, PATH_MAX - 1);
    out[len < 0 ? 0 : len] = 0;
}
/* The absolute path; links on the way are not followed. */
static void absolute(int dir, const char *path, char *out) {
    out[0] = 0;
    if (!path) return;
    if (path[0] != '/') {
        descriptor_path(dir, out);
        size_t len = strlen(out);
        if (len < PATH_MAX - 1) out[len] = '/', out[len + 1] = 0;
    }
    size_t len = strlen(out), more = strlen(path);
    if (len + more < PATH_MAX) memcpy(out + len, path, more + 1);
    else out[0] = 0;
    /* `a//b`, `a/./b` and `a/` are `a/b` and `a`. */
    size_t to = 0;
    for (size_t from = 0; out[from]; from++) {
        if (out[from] == '/' && to && out[to - 1] == '/') continue;
        if (out[from] == '.' && to && out[to - 1] == '/' && (out[from + 1] == '/' || !out[from + 1]))
            continue;
        out[to++] = out[from];
    }
    while (to > 1 && out[to - 1] == '/') to--;
    out[to] = 0;
}

static int concerns(struct rule *rule, char class, const char *path) {
    return (rule->class == '*' || rule->class == class) &&
           (!rule->path[0] || strstr(path, rule->path));
}
static void die(void) {
    raw(SYS_kill, raw(SYS_getpid), SIGKILL);
    for (;;) raw(SYS_pause);
}
/* Counts a call and dies or fails there if that is asked for; 0 or the error. */
static int arrive(char class, const char *path, int *dying) {
    counted++;
    *dying = 0;
    if (killing.class && concerns(&killing, class, path) && ++killing.seen == killing.first) {
        char what[PATH_MAX + 8] = {class, ' ', 'k', 0};
        strcat(what, path);
        note_text(FAILED, counted, 0, what, 0);
        if (killing.when == 'b') die();
        *dying = 1;
    }
    if (failing.class && concerns(&failing, class, path)) {
        failing.seen++;
        if (failing.seen >= failing.first && failing.seen < failing.first + failing.count) {
            char what[PATH_MAX + 8] = {class, ' ', 0};
            strcat(what, path);
            note_text(FAILED, counted, failing.error, what, 0);
            return failing.error;
        }
    }
    return 0;
}

static int32_t handle_of(long fd) {
    return fd >= 0 && fd < MAX_FDS ? __atomic_load_n(&handles[fd], __ATOMIC_RELAXED) : 0;
}
static void set_handle(long fd, int32_t handle) {
    if (fd >= 0 && fd < MAX_FDS) __atomic_store_n(&handles[fd], handle, __ATOMIC_RELAXED);
}
static void unsupported(const char *what) {
    lock();
    note_text(UNSUPPORTED, 0, 0, what, 0);
    unlock();
}

static long do_open(long number, int dir, const char *name, long flags, long mode) {
    char path[PATH_MAX];
    absolute(dir, name, path);
    if (!is_watched(path)) {
        long fd = raw(SYS_openat, dir, name, flags, mode);
        if (fd >= 0) set_handle(fd, 0);
        return fd;
    }
    if ((flags & O_TMPFILE) == O_TMPFILE) unsupported("O_TMPFILE");
    lock();
    int dying = 0;
    int counts = !(flags & O_DIRECTORY);
    int error = counts ? arrive('o', path, &dying) : 0;
    long fd = error ? -error : raw(SYS_openat, dir, name, flags, mode);
    if (fd >= 0) {
        int32_t handle = next_handle++;
        set_handle(fd, handle);
        struct stat stat;
        int is_dir = raw(SYS_fstat, fd, &stat) == 0 && S_ISDIR(stat.st_mode);
        note(OPEN, counts ? counted : 0, handle, flags, is_dir, path, 0, 0, 0);
    }
    if (dying) die();
    unlock();
    return fd;
}

static long do_write(long number, int fd, const struct iovec *parts, long n, int64_t offset) {
    char path[PATH_MAX];
    descriptor_path(fd, path);
    lock();
    int dying;
    int error = arrive('w', path, &dying);
    long done = -error;
    size_t half = 0;
    if (error == ENOSPC && failing.seen == failing.first && n > 0 && parts[0].iov_len > 1) {
        half = parts[0].iov_len / 2;
        error = 0;
    }
    if (!error) {
        struct iovec one = {n > 0 ? parts[0].iov_base : 0, half};
        const struct iovec *some = half ? &one : parts;
        long count = half ? 1 : n;
        if (offset < 0) done = raw(SYS_writev, fd, some, count);
        else done = raw(SYS_pwritev, fd, some, count, offset, 0);
        int64_t at = offset;
        if (done > 0 && offset < 0) at = raw(SYS_lseek, fd, 0, SEEK_CUR) - done;
        if (done > 0) note(WRITE, counted, handle_of(fd), at, 0, 0, some, count, done);
    }
    if (dying) die();
    unlock();
    return done;
}

static long do_sync(long number, int fd) {
    char path[PATH_MAX];
    descriptor_path(fd, path);
    lock();
    int dying;
    int error = arrive('s', path, &dying);
    int64_t token = ++tokens, n = counted;
    int32_t handle = handle_of(fd);
    if (!error) note(SYNC_BEGUN, n, handle, token, 0, 0, 0, 0, 0);
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    long wait = sync_micros > 0 ? (long)((random_state >> 33) % (uint64_t)sync_micros) : 0;
    unlock();
    if (error) return -error;
    long result = 0;
    if (sync_micros < 0) result = raw(number, fd);
    struct timespec pause = {0, wait * 1000};
    if (wait) raw(SYS_nanosleep, &pause, 0);
    lock();
    if (result == 0 && !(blind[0] && strstr(path, blind)))
        note(SYNCED, n, handle, token, 0, 0, 0, 0, 0);
    if (dying) die();
    unlock();
    return result;
}

static long do_length(int fd, int64_t length) {
    char path[PATH_MAX];
    descriptor_path(fd, path);
    lock();
    int dying;
    int error = arrive('t', path, &dying);
    long result = error ? -error : raw(SYS_ftruncate, fd, length);
    if (result == 0) note(LENGTH, counted, handle_of(fd), length, 0, 0, 0, 0, 0);
    if (dying) die();
    unlock();
    return result;
}

/* Room that was reserved behind the end of a file: nothing that can be read. */
static int gives_back(int fd, long mode, int64_t offset) {
    struct stat there;
    return mode == (FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE) && fstat(fd, &there) == 0 &&
           offset >= there.st_size;
}

static long do_allocate(int fd, long mode, int64_t offset, int64_t length) {
    char path[PATH_MAX];
    descriptor_path(fd, path);
    lock();
    int dying;
    int error = arrive('t', path, &dying);
    long result = error ? -error : raw(SYS_fallocate, fd, mode, offset, length);
    if (result == 0) {
        if (!(mode & ~FALLOC_FL_KEEP_SIZE))
            note(ALLOCATE, counted, handle_of(fd), mode, offset + length, 0, 0, 0, 0);
        else if (!gives_back(fd, mode, offset))
            note_text(UNSUPPORTED, 0, mode, "fallocate mode", 0);
    }
    if (dying) die();
    unlock();
    return result;
}

/* Of one path or two: rename, unlink, mkdir, link. */
static long do_name(char class, enum kind kind, long a, int dir, const char *one, int other,
                    const char *two, long number, long p, long q, long r, long s, long t) {
    char path[PATH_MAX], second[PATH_MAX] = "";
    absolute(dir, one, path);
    if (two) absolute(other, two, second);
    if (!is_watched(path) && !is_watched(second)) return raw(number, p, q, r, s, t);
    lock();
    int dying;
    int error = arrive(class, two ? second : path, &dying);
    long result = error ? -error : raw(number, p, q, r, s, t);
    if (result == 0) note_text(kind, counted, a, path, two ? second : 0);
    if (dying) die();
    unlock();
    return result;
}

static long do_copy(long number, long fd, long made) {
    if (made >= 0) set_handle(made, handle_of(fd));
    return made;
}

static long handle_call(long n, long a, long b, long c, long d, long e, long f) {
    switch (n) {
    case SYS_open: return do_open(n, AT_FDCWD, (char *)a, b, c);
    case SYS_creat: return do_open(n, AT_FDCWD, (char *)a, O_CREAT | O_WRONLY | O_TRUNC, b);
    case SYS_openat: return do_open(n, a, (char *)b, c, d);
    case SYS_close: set_handle(a, 0); return raw(n, a);
    case SYS_dup: return do_copy(n, a, raw(n, a));
    case SYS_dup2:
    case SYS_dup3: return do_copy(n, a, raw(n, a, b, c));
    case SYS_fcntl: {
        long made = raw(n, a, b, c);
        return b == F_DUPFD || b == F_DUPFD_CLOEXEC ? do_copy(n, a, made) : made;
    }
    case SYS_write:
        if (!handle_of(a)) return raw(n, a, b, c);
        return do_write(n, a, &(struct iovec){(void *)b, c}, 1, -1);
    case SYS_pwrite64:
        if (!handle_of(a)) return raw(n, a, b, c, d);
        return do_write(n, a, &(struct iovec){(void *)b, c}, 1, d);
    case SYS_writev:
        if (!handle_of(a)) return raw(n, a, b, c);
        return do_write(n, a, (struct iovec *)b, c, -1);
    case SYS_pwritev:
    case SYS_pwritev2:
        if (!handle_of(a)) return raw(n, a, b, c, d, e, f);
        return do_write(n, a, (struct iovec *)b, c, d);
    case SYS_fsync:
    case SYS_fdatasync: return handle_of(a) ? do_sync(n, a) : raw(n, a);
    case SYS_ftruncate: return handle_of(a) ? do_length(a, b) : raw(n, a, b);
    case SYS_fallocate: return handle_of(a) ? do_allocate(a, b, c, d) : raw(n, a, b, c, d);
    case SYS_rename:
        return do_name('r', RENAMED, 0, AT_FDCWD, (char *)a, AT_FDCWD, (char *)b, n, a, b, 0, 0, 0);
    case SYS_renameat2:
        if (e & ~RENAME_NOREPLACE) unsupported("renameat2 flags");
        /* fall through */
    case SYS_renameat:
        return do_name('r', RENAMED, 0, a, (char *)b, c, (char *)d, n, a, b, c, d, e);
    case SYS_unlink: return do_name('u', REMOVED, 0, AT_FDCWD, (char *)a, 0, 0, n, a, 0, 0, 0, 0);
    case SYS_rmdir: return do_name('u', REMOVED, 1, AT_FDCWD, (char *)a, 0, 0, n, a, 0, 0, 0, 0);
    case SYS_unlinkat: return do_name('u', REMOVED, 0, a, (char *)b, 0, 0, n, a, b, c, 0, 0);
    case SYS_mkdir:
        return do_name('m', MADE_DIRECTORY, 0, AT_FDCWD, (char *)a, 0, 0, n, a, b, 0, 0, 0);
    case SYS_mkdirat: return do_name('m', MADE_DIRECTORY, 0, a, (char *)b, 0, 0, n, a, b, c, 0, 0);
    case SYS_link:
        return do_name('l', LINKED, 0, AT_FDCWD, (char *)a, AT_FDCWD, (char *)b, n, a, b, 0, 0, 0);
    case SYS_linkat: return do_name('l', LINKED, 0, a, (char *)b, c, (char *)d, n, a, b, c, d, e);
    case SYS_mmap:
        if (handle_of(e)) unsupported("a shared writable mapping");
        return raw(n, a, b, c, d, e, f);
    case SYS_io_uring_setup: return -ENOSYS;
    case SYS_openat2: return -ENOSYS;
    default: {
        char path[PATH_MAX];
        int at = n == SYS_symlinkat ? b : AT_FDCWD;
        const char *name = (char *)(n == SYS_truncate ? a : n == SYS_symlinkat ? c : b);
        if (n == SYS_copy_file_range) descriptor_path(c, path);
        else if (n == SYS_sendfile) descriptor_path(a, path);
        else absolute(at, name, path);
        if (is_watched(path)) unsupported("truncate, symlink, copy_file_range or sendfile");
        return raw(n, a, b, c, d, e, f);
    }
    }
}

static void on_call(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    r[REG_RAX] = handle_call(r[REG_RAX], r[REG_RDI], r[REG_RSI], r[REG_RDX], r[REG_R10], r[REG_R8],
                             r[REG_R9]);
}

static void read_rule(const char *text, struct rule *rule, int is_kill) {
    if (!text || !*text) return;
    char *rest = (char *)text;
    if (!is_kill) rule->error = strtol(rest, &rest, 10);
    while (*rest == ' ') rest++;
    rule->class = *rest++;
    rule->first = strtoll(rest, &rest, 10);
    if (is_kill) {
        while (*rest == ' ') rest++;
        rule->when = *rest ? *rest++ : 'b';
    } else {
        rule->count = strtoll(rest, &rest, 10);
    }
    while (*rest == ' ') rest++;
    strncpy(rule->path, rest, sizeof rule->path - 1);
}

#define CALLS                                                                                      \
    SYS_open, SYS_creat, SYS_openat, SYS_close, SYS_dup, SYS_dup2, SYS_dup3, SYS_fcntl, SYS_write, \
        SYS_pwrite64, SYS_writev, SYS_pwritev, SYS_pwritev2, SYS_fsync, SYS_fdatasync,             \
        SYS_ftruncate, SYS_fallocate, SYS_rename, SYS_renameat, SYS_renameat2, SYS_unlink,         \
        SYS_rmdir, SYS_unlinkat, SYS_mkdir, SYS_mkdirat, SYS_link, SYS_linkat, SYS_truncate,       \
        SYS_symlink, SYS_symlinkat, SYS_copy_file_range, SYS_sendfile, SYS_io_uring_setup,         \
        SYS_openat2

__attribute__((constructor)) static void begin(void) {
    const char *log = getenv("DISK_LOG"), *directory = getenv("DISK_ROOT");
    if (!log || !directory) return;
    strncpy(root, directory, PATH_MAX - 1);
    root_len = strlen(root);
    strcpy(above, root);
    char *slash = strrchr(above, '/');
    if (slash) *slash = 0;
    if (getenv("DISK_SYNC")) sync_micros = atol(getenv("DISK_SYNC"));
    if (getenv("DISK_BLIND")) strncpy(blind, getenv("DISK_BLIND"), sizeof blind - 1);
    read_rule(getenv("DISK_FAIL"), &failing, 0);
    read_rule(getenv("DISK_KILL"), &killing, 1);
    random_state = (uint64_t)time(0) * 2654435761u + getpid();
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0) return;
    /* Out of the way of the process's own. */
    log_fd = fcntl(fd, F_DUPFD_CLOEXEC, 900);
    close(fd);

    struct sigaction action = {.sa_sigaction = on_call, .sa_flags = SA_SIGINFO};
    sigfillset(&action.sa_mask);
    sigaction(SIGSYS, &action, 0);

    static const int calls[] = {CALLS};
    enum { N = sizeof calls / sizeof *calls };
    static struct sock_filter filter[N + 24];
    unsigned at = 0;
    uint64_t place = (uint64_t)disk_raw_after;
#define LOAD(field)                                                                                \
    filter[at++] =                                                                                 \
        (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define IF(op, value, yes, no)                                                                     \
    filter[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | op | BPF_K, value, yes, no)
#define ANSWER(what) filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, what)
    LOAD(arch);
    IF(BPF_JEQ, AUDIT_ARCH_X86_64, 1, 0);
    ANSWER(SECCOMP_RET_ALLOW);
    LOAD(nr);
    IF(BPF_JEQ, SYS_mmap, 0, 5); /* only shared and writable ones */
    LOAD(args[2]);
    IF(BPF_JSET, 2, 0, 2);
    LOAD(args[3]);
    IF(BPF_JSET, 1, N + 2, 0);
    ANSWER(SECCOMP_RET_ALLOW);
    for (int i = 0; i < N; i++) IF(BPF_JEQ, calls[i], N - i, 0);
    ANSWER(SECCOMP_RET_ALLOW);
    LOAD(instruction_pointer);
    IF(BPF_JEQ, (uint32_t)place, 0, 3);
    filter[at++] = (struct sock_filter)BPF_STMT(
        BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer) + 4);
    IF(BPF_JEQ, (uint32_t)(place >> 32), 0, 1);
    ANSWER(SECCOMP_RET_ALLOW);
    ANSWER(SECCOMP_RET_TRAP);
    struct sock_fprog program = {at, filter};
    note(STARTED, 0, 0, 0, 0, 0, 0, 0, 0);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        note_text(UNSUPPORTED, 0, errno, "seccomp", 0);
}
