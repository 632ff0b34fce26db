/*
 * The host's clock as one process sees it: moved by the seconds that a file holds, a signed number of 64 bits. Behind it stands how
 * often somebody was told a time that was moved; and then the seconds by which the clock that nobody sets was moved, so that
 * what waits for an hour wakes up: as of a process that was frozen.
 *
 * Loaded into a daemon (LD_PRELOAD).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct moved {
	volatile int64_t by;
	uint64_t told;
	volatile int64_t passed;
};

static struct moved *moved;

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("CUSTODYD_TEST_CLOCK");
	int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *at = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *moved, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (at == MAP_FAILED)
		abort();
	moved = at;
}

int clock_gettime(clockid_t id, struct timespec *to)
{
	long done = syscall(SYS_clock_gettime, id, to);
	if (done == 0 && moved && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
		int64_t by = moved->by;
		to->tv_sec += by;
		if (by != 0)
			__atomic_add_fetch(&moved->told, 1, __ATOMIC_RELAXED);
	}
	if (done == 0 && moved && (id == CLOCK_MONOTONIC || id == CLOCK_MONOTONIC_COARSE))
		to->tv_sec += moved->passed;
	return (int)done;
}

int gettimeofday(struct timeval *restrict to, void *restrict zone)
{
	struct timespec now;
	(void)zone;
	clock_gettime(CLOCK_REALTIME, &now);
	to->tv_sec = now.tv_sec;
	to->tv_usec = now.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *to)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	if (to)
		*to = now.tv_sec;
	return now.tv_sec;
}
