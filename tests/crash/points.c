/* Counts what a program does to the world, and stops it at a chosen point. LD_PRELOAD; used by tests alone.
 *
 * A point is a call that writes to a file, makes, renames or removes a name, syncs, mounts, or starts a process; in any
 * process that comes of the first. They are counted in a file that all of them map (SHIPLAP_POINTS). At point `stop_at`
 *   freeze: the caller, and whoever comes to a point after it, waits for ever: the tester kills them all at once;
 *   parent: the first process is killed, the others go on and have to notice.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT = 0, FREEZE = 1, PARENT = 2 };

struct shared {
  volatile long count, stop_at, mode, fired, first;
  char where[64];
};

static struct shared *shared;

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("SHIPLAP_POINTS");
  int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
  if (fd < 0) return;
  void *at = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (at == MAP_FAILED) return;
  shared = at;
  if (!shared->first) shared->first = getpid();
}

static void point(const char *where) {
  if (!shared) return;
  int saved = errno;
  while (shared->fired && shared->mode == FREEZE) pause();
  if (__atomic_add_fetch(&shared->count, 1, __ATOMIC_SEQ_CST) == shared->stop_at && shared->mode != COUNT) {
    strncpy(shared->where, where, sizeof shared->where - 1);
    shared->fired = 1;
    if (shared->mode == PARENT) kill((pid_t)shared->first, SIGKILL);
    while (shared->mode == FREEZE) pause();
  }
  errno = saved;
}

static int regular(int fd) {
  struct stat status;
  return shared && fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
}

#define REAL(name) \
  static __typeof__(name) *real; \
  if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

#define CALL(result, name, parameters, arguments, counts) \
  result name parameters { \
    REAL(name); \
    if (counts) point(#name); \
    return real arguments; \
  }

CALL(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size), regular(fd))
CALL(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at), regular(fd))
CALL(ssize_t, writev, (int fd, const struct iovec *data, int count), (fd, data, count), regular(fd))
CALL(ssize_t, sendfile64, (int out, int in, off64_t *at, size_t size), (out, in, at, size), regular(out))
CALL(ssize_t, copy_file_range, (int in, off64_t *ia, int out, off64_t *oa, size_t size, unsigned flags),
     (in, ia, out, oa, size, flags), regular(out))
CALL(int, ftruncate64, (int fd, off64_t size), (fd, size), 1)
CALL(int, rename, (const char *old, const char *new), (old, new), 1)
CALL(int, renameat, (int of, const char *old, int nf, const char *new), (of, old, nf, new), 1)
CALL(int, unlink, (const char *path), (path), 1)
CALL(int, unlinkat, (int fd, const char *path, int flags), (fd, path, flags), 1)
CALL(int, rmdir, (const char *path), (path), 1)
CALL(int, mkdir, (const char *path, mode_t mode), (path, mode), 1)
CALL(int, mkdirat, (int fd, const char *path, mode_t mode), (fd, path, mode), 1)
CALL(int, link, (const char *old, const char *new), (old, new), 1)
CALL(int, linkat, (int of, const char *old, int nf, const char *new, int flags), (of, old, nf, new, flags), 1)
CALL(int, symlink, (const char *to, const char *path), (to, path), 1)
CALL(int, symlinkat, (const char *to, int fd, const char *path), (to, fd, path), 1)
CALL(int, mknodat, (int fd, const char *path, mode_t mode, dev_t device), (fd, path, mode, device), 1)
CALL(int, fsync, (int fd), (fd), 1)
CALL(int, fdatasync, (int fd), (fd), 1)
CALL(int, mount, (const char *source, const char *target, const char *type, unsigned long flags, const void *data),
     (source, target, type, flags, data), 1)
CALL(int, umount2, (const char *target, int flags), (target, flags), 1)
CALL(int, unshare, (int flags), (flags), 1)
CALL(pid_t, fork, (void), (), 1)

/* Only those that make a file. */
#define OPEN(name, parameters, first, arguments) \
  int name parameters { \
    static int (*real)(first, const char *, int, ...); \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { \
      va_list list; \
      va_start(list, flags); \
      mode = va_arg(list, mode_t); \
      va_end(list); \
    } \
    if (!real) real = dlsym(RTLD_NEXT, #name); \
    if (flags & O_CREAT) point(#name); \
    return real arguments; \
  }

int open64(const char *path, int flags, ...) {
  static int (*real)(const char *, int, ...);
  mode_t mode = 0;
  if (flags & (O_CREAT | O_TMPFILE)) {
    va_list list;
    va_start(list, flags);
    mode = va_arg(list, mode_t);
    va_end(list);
  }
  if (!real) real = dlsym(RTLD_NEXT, "open64");
  if (flags & O_CREAT) point("open64");
  return real(path, flags, mode);
}

OPEN(openat64, (int fd, const char *path, int flags, ...), int, (fd, path, flags, mode))

/* The mount calls that the C library lacks: open_tree, move_mount, fsopen ... mount_setattr. */
long syscall(long number, ...) {
  static long (*real)(long, ...);
  long a[6];
  va_list list;
  va_start(list, number);
  for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
  va_end(list);
  if (!real) real = dlsym(RTLD_NEXT, "syscall");
  if ((number >= 428 && number <= 433) || number == 442) point("syscall (mount)");
  return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* The helper starts with an empty environment: give it ours. */
int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes,
                char *const argv[], char *const envp[]) {
  REAL(posix_spawn);
  static char preload[4096], points[4096];
  char *environment[64];
  int count = 0;
  point("posix_spawn");
  for (; envp && envp[count] && count < 60; count++) environment[count] = envp[count];
  if (shared) {
    snprintf(preload, sizeof preload, "LD_PRELOAD=%s", getenv("LD_PRELOAD"));
    snprintf(points, sizeof points, "SHIPLAP_POINTS=%s", getenv("SHIPLAP_POINTS"));
    environment[count++] = preload;
    environment[count++] = points;
  }
  environment[count] = NULL;
  return real(pid, path, actions, attributes, argv, environment);
}
