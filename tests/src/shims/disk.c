/*
 * One call of a kind that fails with EIO, of those that reach files below some folders.
 *
 * Loaded into a daemon (LD_PRELOAD). Which, and the how many-th, stands in a file that the test writes while the daemon
 * runs, and where this counts. SoftHSM2 writes by stdio, whose own writes cannot be replaced: there a flush fails, and what
 * was to be written is gone.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NOTHING, SYNC, WRITE, RENAME };

/* As tests/src/shim.rs has it. */
struct plan {
	uint32_t kind, nth, seen, failed;
};

static volatile struct plan *plan;
/* Separated by colons. */
static const char *folders;

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("CUSTODYD_TEST_DISK");
	int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *at = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *plan, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	folders = getenv("CUSTODYD_TEST_FOLDERS");
	if (at == MAP_FAILED || !folders)
		abort();
	plan = at;
}

static int is_below(const char *path)
{
	for (const char *folder = folders; *folder;) {
		size_t length = strcspn(folder, ":");
		if (strncmp(path, folder, length) == 0)
			return 1;
		folder += length + (folder[length] == ':');
	}
	return 0;
}

static int counts(uint32_t kind)
{
	if (__atomic_add_fetch(&plan->seen, 1, __ATOMIC_SEQ_CST) != plan->nth || plan->kind != kind)
		return 0;
	plan->failed = 1;
	errno = EIO;
	return 1;
}

static int fails(uint32_t kind, int file)
{
	char link[32], path[4096];
	int before = errno;
	ssize_t length;

	if (!plan || plan->kind != kind)
		return 0;
	snprintf(link, sizeof link, "/proc/self/fd/%d", file);
	length = readlink(link, path, sizeof path - 1);
	errno = before;
	if (length < 0)
		return 0;
	path[length] = 0;
	return is_below(path) && counts(kind);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int fsync(int file)
{
	return fails(SYNC, file) ? -1 : REAL(fsync)(file);
}

int fdatasync(int file)
{
	return fails(SYNC, file) ? -1 : REAL(fdatasync)(file);
}

ssize_t write(int file, const void *from, size_t size)
{
	return fails(WRITE, file) ? -1 : REAL(write)(file, from, size);
}

ssize_t writev(int file, const struct iovec *from, int count)
{
	return fails(WRITE, file) ? -1 : REAL(writev)(file, from, count);
}

ssize_t pwrite(int file, const void *from, size_t size, off_t at)
{
	return fails(WRITE, file) ? -1 : REAL(pwrite)(file, from, size, at);
}

ssize_t pwrite64(int file, const void *from, size_t size, off64_t at)
{
	return fails(WRITE, file) ? -1 : REAL(pwrite64)(file, from, size, at);
}

static int loses(FILE *stream)
{
	if (!stream || __fpending(stream) == 0 || !fails(WRITE, fileno(stream)))
		return 0;
	__fpurge(stream);
	errno = EIO;
	return 1;
}

int fflush(FILE *stream)
{
	return loses(stream) ? EOF : REAL(fflush)(stream);
}

int fclose(FILE *stream)
{
	if (!loses(stream))
		return REAL(fclose)(stream);
	REAL(fclose)(stream);
	errno = EIO;
	return EOF;
}

int rename(const char *from, const char *to)
{
	if (plan && plan->kind == RENAME && is_below(to) && counts(RENAME))
		return -1;
	return REAL(rename)(from, to);
}
