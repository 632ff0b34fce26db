/*
 * A PKCS#11 module in front of another: it hands every call on, and hangs, fails or tells something else where a file says so, which the
 * test writes while the module is in use, and where this counts.
 *
 * Named in the place of the module itself. The types are those of PKCS#11 2.40 as far as they are looked into: every
 * number is an unsigned long, and the functions stand in one order.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef unsigned long number;

enum {
	FINALIZE = 1,
	TOKEN_INFO = 6,
	MECHANISM_LIST = 7,
	OPEN_SESSION = 12,
	CLOSE_SESSION = 13,
	LOGIN = 18,
	FIND_BEGIN = 26,
	SIGN = 43,
	FUNCTIONS = 68,
};

enum { OK = 0, GENERAL_ERROR = 5, PIN_INCORRECT = 0xa0, SESSION_COUNT = 0xb1 };

struct functions {
	unsigned char major, minor;
	void *each[FUNCTIONS];
};

struct token_info {
	char text[96];
	number flags;
	/* And more, which is not looked at. */
};

/* As tests/src/shim/module.rs has it. */
struct plan {
	/* So many calls of C_Sign hang from now on, each until the number of releases is another than when it began. */
	uint32_t hang, releases;
	/* So many calls of C_Sign fail from now on. */
	uint32_t fail;
	/* So many calls of C_Login hang from now on, in the same way; and of what is called on the way to it, and after it. */
	uint32_t hang_login, hang_before, hang_after;
	/* Where not zero: no more sessions than these are open at once. */
	uint32_t sessions;
	/* Where not zero: what a wrong PIN is answered with. */
	uint32_t wrong_pin;
	/* Flags that a token shows, and flags that it does not show. */
	uint32_t shown, hidden;
	/* What was seen: calls that hang now, calls of C_Login, of C_Finalize while a call hung, open sessions, refused sessions. */
	uint32_t hanging, logins, finalized, open, refused;
};

static volatile struct plan *plan;
static struct functions before, ours;

static int one_of(volatile uint32_t *left)
{
	uint32_t now = __atomic_load_n(left, __ATOMIC_SEQ_CST);
	while (now > 0)
		if (__atomic_compare_exchange_n(left, &now, now - 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			return 1;
	return 0;
}

static number finalize(void *reserved)
{
	if (plan->hanging > 0)
		__atomic_add_fetch(&plan->finalized, 1, __ATOMIC_SEQ_CST);
	number (*next)(void *) = before.each[FINALIZE];
	number answer = next(reserved);
	if (answer == OK)
		plan->open = 0;
	return answer;
}

static number token_info(number slot, struct token_info *info)
{
	number (*next)(number, struct token_info *) = before.each[TOKEN_INFO];
	number answer = next(slot, info);
	if (answer == OK && info)
		info->flags = (info->flags | plan->shown) & ~(number)plan->hidden;
	return answer;
}

static number open_session(number slot, number flags, void *application, void *notify, number *session)
{
	uint32_t most = plan->sessions;
	if (most != 0 && plan->open >= most) {
		__atomic_add_fetch(&plan->refused, 1, __ATOMIC_SEQ_CST);
		return SESSION_COUNT;
	}
	number (*next)(number, number, void *, void *, number *) = before.each[OPEN_SESSION];
	number answer = next(slot, flags, application, notify, session);
	if (answer == OK)
		__atomic_add_fetch(&plan->open, 1, __ATOMIC_SEQ_CST);
	return answer;
}

static number close_session(number session)
{
	number (*next)(number) = before.each[CLOSE_SESSION];
	number answer = next(session);
	if (answer == OK)
		__atomic_sub_fetch(&plan->open, 1, __ATOMIC_SEQ_CST);
	return answer;
}

static void hang(volatile uint32_t *calls)
{
	if (!one_of(calls))
		return;
	uint32_t began = plan->releases;
	__atomic_add_fetch(&plan->hanging, 1, __ATOMIC_SEQ_CST);
	while (plan->releases == began)
		usleep(1000);
	__atomic_sub_fetch(&plan->hanging, 1, __ATOMIC_SEQ_CST);
}

static number login(number session, number user, unsigned char *pin, number length)
{
	__atomic_add_fetch(&plan->logins, 1, __ATOMIC_SEQ_CST);
	hang(&plan->hang_login);
	number (*next)(number, number, unsigned char *, number) = before.each[LOGIN];
	number answer = next(session, user, pin, length);
	return answer == PIN_INCORRECT && plan->wrong_pin != 0 ? plan->wrong_pin : answer;
}

static number sign(number session, unsigned char *data, number length, unsigned char *signature, number *signed_length)
{
	hang(&plan->hang);
	number (*next)(number, unsigned char *, number, unsigned char *, number *) = before.each[SIGN];
	number answer = next(session, data, length, signature, signed_length);
	return answer == OK && one_of(&plan->fail) ? GENERAL_ERROR : answer;
}

static number mechanism_list(number slot, number *list, number *count)
{
	hang(&plan->hang_before);
	number (*next)(number, number *, number *) = before.each[MECHANISM_LIST];
	return next(slot, list, count);
}

static number find_begin(number session, void *attributes, number count)
{
	hang(&plan->hang_after);
	number (*next)(number, void *, number) = before.each[FIND_BEGIN];
	return next(session, attributes, count);
}

static number function_list(struct functions **list);

static int begin(void)
{
	const char *module = getenv("CUSTODYD_TEST_MODULE"), *path = getenv("CUSTODYD_TEST_MODULE_PLAN");
	void *library = module ? dlopen(module, RTLD_NOW | RTLD_LOCAL) : NULL;
	number (*list)(struct functions **) = library ? dlsym(library, "C_GetFunctionList") : NULL;
	struct functions *found;
	int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *at = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *plan, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (!list || at == MAP_FAILED || list(&found) != OK)
		return 0;
	plan = at;
	memcpy(&before, found, sizeof before);
	ours = before;
	ours.each[3] = function_list;
	ours.each[FINALIZE] = finalize;
	ours.each[TOKEN_INFO] = token_info;
	ours.each[OPEN_SESSION] = open_session;
	ours.each[CLOSE_SESSION] = close_session;
	ours.each[LOGIN] = login;
	ours.each[MECHANISM_LIST] = mechanism_list;
	ours.each[FIND_BEGIN] = find_begin;
	ours.each[SIGN] = sign;
	return 1;
}

static number function_list(struct functions **list)
{
	if (!plan && !begin())
		return GENERAL_ERROR;
	*list = &ours;
	return OK;
}

__attribute__((visibility("default"))) number C_GetFunctionList(struct functions **list)
{
	return function_list(list);
}

/* What the end of a process comes to that has a call inside of SoftHSM2: the module's own destructors take down what the call works on. */
__attribute__((destructor)) static void end(void)
{
	if (plan && plan->hanging > 0)
		abort();
}
