// Steps the clock: adds the seconds in the file that STEP names to `CLOCK_REALTIME`.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    long done = syscall(SYS_clock_gettime, clock, now);
    const char *path = getenv("STEP");
    if (done || clock != CLOCK_REALTIME || !path) return done;
    int before = errno, file = open(path, O_RDONLY | O_CLOEXEC);
    char text[32] = {0};
    if (file >= 0) {
        if (read(file, text, sizeof text - 1) > 0) now->tv_sec += atoll(text);
        close(file);
    }
    errno = before;
    return 0;
}
