/* Loaded before libc (LD_PRELOAD), this moves a process's clock by the seconds in the file $CLOISTER_CLOCK. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long moved(void)
{
    static volatile long *held;
    if (!held) {
        int file = open(getenv("CLOISTER_CLOCK") ? getenv("CLOISTER_CLOCK") : "", O_RDONLY);
        void *at = file < 0 ? MAP_FAILED : mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
        if (file >= 0)
            close(file);
        if (at == MAP_FAILED)
            return 0;
        held = at;
    }
    return *held;
}

int clock_gettime(clockid_t which, struct timespec *found)
{
    static int (*right)(clockid_t, struct timespec *);
    if (!right)
        right = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int ended = right(which, found);
    if (!ended && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE))
        found->tv_sec += moved();
    return ended;
}

int gettimeofday(struct timeval *found, void *zone)
{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    found->tv_sec = now.tv_sec;
    found->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *found)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (found)
        *found = now.tv_sec;
    return now.tv_sec;
}
