/*
 * A disk that loses power: an LD_PRELOAD library for the tests of Kiln's journal and folder target.
 *
 * It watches one folder (KILN_SHIM_DIR) and keeps an image (KILN_SHIM_IMAGE) of what fsync and fdatasync have covered: contents by file,
 * names by folder. Nothing else is durable: a name counts only after an fsync of its folder, contents only after an fsync of the file.
 * At the operation KILN_SHIM_CRASH (counted from 1) all threads stop; what was not covered is dropped, shortened or kept as KILN_SHIM_SEED
 * decides, and the process dies. The driver makes a folder from the image and starts again there.
 *
 * While the file KILN_SHIM_FAULT exists its first word makes operations fail: enospc (writes), eio (writes), fsync (fsync fails once, and as
 * on Linux the pages that could not be written count as clean afterwards), search-fsync (the same, for a search file of the journal).
 *
 * Memory maps are not seen: SQLite maps only its -shm files, which it makes anew, so these never survive here.
 *
 * The image: "data-N" is the durable content of file N; "folder-PATH" (slashes as %) lists "f N name" and "d 0 name" lines.
 */
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
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

struct change { off_t at; off_t length; int truncate; };
struct file { dev_t dev; ino_t ino; int dead; int data; struct change *changes; size_t count, room; };

static struct file *files;
static size_t file_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char watched[PATH_MAX], image[PATH_MAX], fault[PATH_MAX];
static long crash_at, operations;
static uint64_t random_state;

static int (*real_open)(const char *, int, ...);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static int (*real_ftruncate)(int, off_t);
static int (*real_unlink)(const char *);
static int (*real_unlinkat)(int, const char *, int);
static int (*real_rename)(const char *, const char *);
static int (*real_mkdir)(const char *, mode_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);

static void find_real(void) {
    if (real_fdatasync) return;
    real_open = dlsym(RTLD_NEXT, "open");
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite");
    real_writev = dlsym(RTLD_NEXT, "writev");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    real_unlinkat = dlsym(RTLD_NEXT, "unlinkat");
    real_rename = dlsym(RTLD_NEXT, "rename");
    real_mkdir = dlsym(RTLD_NEXT, "mkdir");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
}

static void give_up(const char *what) {
    dprintf(2, "powerloss shim: %s: %s\n", what, strerror(errno));
    abort();
}

static uint64_t dice(uint64_t sides) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % sides;
}

static int is_watched(const char *path) {
    size_t length = strlen(watched);
    if (!length) return 0;
    if (strncmp(path, watched, length) || (path[length] && path[length] != '/')) return 0;
    size_t end = strlen(path);
    return end < 4 || strcmp(path + end - 4, "-shm");
}

/* The path of an open file if it is watched. */
static int fd_path(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    char *deleted = strstr(path, " (deleted)");
    if (deleted) *deleted = 0;
    return is_watched(path);
}

static struct file *file_of(int fd) {
    struct stat about;
    if (fstat(fd, &about) || !S_ISREG(about.st_mode)) return NULL;
    struct file *dead = NULL;
    for (size_t i = 0; i < file_count; i++) {
        if (files[i].dev != about.st_dev || files[i].ino != about.st_ino) continue;
        if (!files[i].dead) return &files[i];
        dead = &files[i];
    }
    if (dead && !about.st_nlink) return dead;
    files = realloc(files, (file_count + 1) * sizeof *files);
    struct file *file = &files[file_count];
    memset(file, 0, sizeof *file);
    file->dev = about.st_dev;
    file->ino = about.st_ino;
    char path[PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/data-%zu", image, file_count);
    file->data = real_open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file->data < 0) give_up(path);
    file_count++;
    return file;
}

static void note(struct file *file, off_t at, off_t length, int truncate) {
    if (file->count == file->room) {
        file->room = file->room ? file->room * 2 : 64;
        file->changes = realloc(file->changes, file->room * sizeof *file->changes);
    }
    file->changes[file->count++] = (struct change){ at, length, truncate };
}

/* Copies a piece of the file as it is now into its image. */
static void copy(int from, int to, off_t at, off_t length) {
    static char buffer[1 << 16];
    while (length > 0) {
        ssize_t got = pread(from, buffer, length < (off_t)sizeof buffer ? (size_t)length : sizeof buffer, at);
        if (got <= 0) return;
        if (real_pwrite(to, buffer, got, at) != got) give_up("image");
        at += got;
        length -= got;
    }
}

static int reopened(int fd) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    return real_open(link, O_RDONLY | O_CLOEXEC);
}

static void cover(struct file *file, int fd) {
    struct stat about;
    if (fstat(fd, &about)) return;
    int from = reopened(fd);
    for (size_t i = 0; i < file->count; i++)
        if (!file->changes[i].truncate) copy(from, file->data, file->changes[i].at, file->changes[i].length);
    real_ftruncate(file->data, about.st_size);
    file->count = 0;
    close(from);
}

static FILE *folder_list(const char *path) {
    char name[2 * PATH_MAX];
    snprintf(name, sizeof name, "%s/folder-", image);
    char *into = name + strlen(name);
    for (const char *from = path + strlen(watched); *from; from++) *into++ = *from == '/' ? '%' : *from;
    *into = 0;
    FILE *list = fopen(name, "we");
    if (!list) give_up(name);
    return list;
}

/* Takes the names in a folder over. With `contents`, everything below it counts as durable: the state at the start. */
static void cover_folder(const char *path, int contents) {
    DIR *folder = opendir(path);
    if (!folder) return;
    FILE *list = folder_list(path);
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        char below[2 * PATH_MAX];
        snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
        struct stat about;
        if (lstat(below, &about) || !is_watched(below)) continue;
        if (S_ISDIR(about.st_mode)) {
            fprintf(list, "d 0 %s\n", entry->d_name);
            if (contents) cover_folder(below, 1);
        } else if (S_ISREG(about.st_mode)) {
            int fd = real_open(below, O_RDONLY | O_CLOEXEC);
            if (fd < 0) continue;
            struct file *file = file_of(fd);
            fprintf(list, "f %zu %s\n", (size_t)(file - files), entry->d_name);
            if (contents) copy(fd, file->data, 0, about.st_size);
            close(fd);
        }
    }
    fclose(list);
    closedir(folder);
}

/* Power fails: what no fsync covered is dropped, shortened or kept; then the process is gone. */
static void crash(void) {
    uint64_t mood = dice(3);
    for (size_t i = 0; mood && i < file_count; i++) {
        struct file *file = &files[i];
        if (!file->count) continue;
        /* The live file is found through any descriptor of it, or through its name. */
        int from = -1;
        DIR *open_files = opendir("/proc/self/fd");
        for (struct dirent *entry; open_files && from < 0 && (entry = readdir(open_files));) {
            struct stat about;
            int fd = atoi(entry->d_name);
            if (fd > 2 && !fstat(fd, &about) && about.st_dev == file->dev && about.st_ino == file->ino) from = reopened(fd);
        }
        if (open_files) closedir(open_files);
        if (from < 0) continue;
        size_t until = mood == 2 ? dice(file->count + 1) : file->count;
        for (size_t j = 0; j < until; j++) {
            struct change *change = &file->changes[j];
            uint64_t fate = mood == 2 ? 1 : dice(3);
            if (fate == 0) continue;
            if (change->truncate) real_ftruncate(file->data, change->at);
            else copy(from, file->data, change->at, fate == 2 ? (off_t)(dice(change->length / 512 + 1) * 512) : change->length);
        }
        close(from);
    }
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static void operation(void) {
    if (++operations == crash_at) crash();
}

static int has_fault(const char *word) {
    if (!*fault) return 0;
    int fd = real_open(fault, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    char text[32] = { 0 };
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    return got > 0 && !strncmp(text, word, strlen(word));
}

static int write_fault(void) {
    if (has_fault("enospc")) return ENOSPC;
    if (has_fault("eio")) return EIO;
    return 0;
}

__attribute__((constructor)) static void begin(void) {
    find_real();
    const char *dir = getenv("KILN_SHIM_DIR"), *to = getenv("KILN_SHIM_IMAGE"), *word;
    if (!dir || !to) return;
    snprintf(image, sizeof image, "%s", to);
    if (!realpath(dir, watched)) give_up(dir);
    if ((word = getenv("KILN_SHIM_FAULT"))) snprintf(fault, sizeof fault, "%s", word);
    if ((word = getenv("KILN_SHIM_CRASH"))) crash_at = atol(word);
    random_state = ((word = getenv("KILN_SHIM_SEED")) ? strtoull(word, NULL, 10) : 1) * 0x9E3779B97F4A7C15u | 1;
    for (int i = 0; i < 8; i++) dice(2);
    cover_folder(watched, 1);
}

static int absolute(int folder, const char *path, char *into) {
    if (*path == '/') snprintf(into, PATH_MAX, "%s", path);
    else if (folder == AT_FDCWD) {
        if (!getcwd(into, PATH_MAX)) return 0;
        size_t length = strlen(into);
        snprintf(into + length, PATH_MAX - length, "/%s", path);
    } else {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t length = readlink(link, into, PATH_MAX - 1);
        if (length < 0) return 0;
        snprintf(into + length, PATH_MAX - length, "/%s", path);
    }
    return is_watched(into);
}

static int opened(int folder, const char *path, int flags, mode_t mode) {
    find_real();
    char full[PATH_MAX];
    if (!(flags & (O_CREAT | O_TRUNC)) || !absolute(folder, path, full)) {
        if (folder == AT_FDCWD) return real_open(path, flags, mode);
        int (*real_openat)(int, const char *, int, ...) = dlsym(RTLD_NEXT, "openat");
        return real_openat(folder, path, flags, mode);
    }
    pthread_mutex_lock(&lock);
    struct stat before;
    int there = !stat(full, &before), refused = there ? 0 : write_fault(), fd = -1;
    if (refused) errno = refused;
    else {
        if (!there || (flags & O_TRUNC)) operation();
        fd = real_open(full, flags, mode);
        if (fd >= 0) {
            struct file *file = file_of(fd);
            if (file && there && (flags & O_TRUNC) && before.st_size) note(file, 0, 0, 1);
        }
    }
    int kept = errno;
    pthread_mutex_unlock(&lock);
    errno = kept;
    return fd;
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }

int open(const char *path, int flags, ...) { MODE(flags) return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return opened(AT_FDCWD, path, flags | O_LARGEFILE, mode); }
int openat(int folder, const char *path, int flags, ...) { MODE(flags) return opened(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { MODE(flags) return opened(folder, path, flags | O_LARGEFILE, mode); }

/* Before a write: the file to note it for, or NULL with errno set in `refused`. */
static struct file *before_write(int fd, int *refused) {
    char path[PATH_MAX];
    *refused = 0;
    if (!fd_path(fd, path)) return NULL;
    operation();
    if ((*refused = write_fault())) return NULL;
    return file_of(fd);
}

static ssize_t written(off_t at, ssize_t done, struct file *file) {
    if (file && done > 0) note(file, at, done, 0);
    return done;
}

#define LOCKED(result, body) do { find_real(); pthread_mutex_lock(&lock); body; int kept = errno; pthread_mutex_unlock(&lock); errno = kept; return result; } while (0)

static off_t place(int fd) {
    int flags = fcntl(fd, F_GETFL);
    struct stat about;
    if (flags >= 0 && (flags & O_APPEND) && !fstat(fd, &about)) return about.st_size;
    return lseek(fd, 0, SEEK_CUR);
}

ssize_t write(int fd, const void *bytes, size_t length) {
    char path[PATH_MAX];
    find_real();
    if (!*watched || !fd_path(fd, path)) return real_write(fd, bytes, length);
    ssize_t done = -1;
    LOCKED(done, {
        int refused;
        struct file *file = before_write(fd, &refused);
        off_t at = place(fd);
        if (refused) errno = refused;
        else done = written(at, real_write(fd, bytes, length), file);
    });
}

ssize_t writev(int fd, const struct iovec *pieces, int count) {
    char path[PATH_MAX];
    find_real();
    if (!*watched || !fd_path(fd, path)) return real_writev(fd, pieces, count);
    ssize_t done = -1;
    LOCKED(done, {
        int refused;
        struct file *file = before_write(fd, &refused);
        off_t at = place(fd);
        if (refused) errno = refused;
        else done = written(at, real_writev(fd, pieces, count), file);
    });
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) {
    ssize_t done = -1;
    LOCKED(done, {
        int refused;
        struct file *file = before_write(fd, &refused);
        if (refused) errno = refused;
        else done = written(at, real_pwrite(fd, bytes, length, at), file);
    });
}
ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) { return pwrite(fd, bytes, length, at); }

int ftruncate(int fd, off_t length) {
    int result = -1;
    LOCKED(result, {
        int refused;
        struct file *file = before_write(fd, &refused);
        if (refused == EIO) errno = refused;
        else if (!(result = real_ftruncate(fd, length)) && file) note(file, length, 0, 1);
    });
}
int ftruncate64(int fd, off64_t length) { return ftruncate(fd, length); }

/* Watched files are not really synced: the image is the disk. */
static int synced(int fd, int (*real)(int)) {
    char path[PATH_MAX];
    find_real();
    if (!*watched || !fd_path(fd, path)) return real(fd);
    int result = 0;
    LOCKED(result, {
        operation();
        struct stat about;
        struct file *file = file_of(fd);
        if (has_fault("fsync") || (strstr(path, "/search-") && has_fault("search-fsync"))) {
            if (file) file->count = 0;
            unlink(fault);
            errno = EIO;
            result = -1;
        } else if (!fstat(fd, &about) && S_ISDIR(about.st_mode)) cover_folder(path, 0);
        else if (file) cover(file, fd);
    });
}
int fsync(int fd) { find_real(); return synced(fd, real_fsync); }
int fdatasync(int fd) { find_real(); return synced(fd, real_fdatasync); }

/* A file whose last name goes may give its number to another. */
static void losing_name(const char *path) {
    struct stat about;
    if (lstat(path, &about) || !S_ISREG(about.st_mode) || about.st_nlink > 1) return;
    for (size_t i = 0; i < file_count; i++)
        if (files[i].dev == about.st_dev && files[i].ino == about.st_ino) files[i].dead = 1;
}

int unlink(const char *path) {
    find_real();
    char full[PATH_MAX];
    if (!*watched || !absolute(AT_FDCWD, path, full)) return real_unlink(path);
    int result;
    LOCKED(result, { operation(); losing_name(full); result = real_unlink(path); });
}

int unlinkat(int folder, const char *path, int flags) {
    find_real();
    char full[PATH_MAX];
    if (!*watched || !absolute(folder, path, full)) return real_unlinkat(folder, path, flags);
    int result;
    LOCKED(result, { operation(); losing_name(full); result = real_unlinkat(folder, path, flags); });
}

int rename(const char *from, const char *to) {
    find_real();
    char full[PATH_MAX];
    if (!*watched || !absolute(AT_FDCWD, to, full)) return real_rename(from, to);
    int result;
    LOCKED(result, { operation(); losing_name(full); result = real_rename(from, to); });
}

int mkdir(const char *path, mode_t mode) {
    find_real();
    char full[PATH_MAX];
    if (!*watched || !absolute(AT_FDCWD, path, full)) return real_mkdir(path, mode);
    int result;
    LOCKED(result, { operation(); result = real_mkdir(path, mode); });
}
