/*
 * Burns CPU for so many seconds (first argument), 60 % of it in one function, 30 % in a second, 10 % in
 * a third. Each burns until the thread's own CPU clock has moved by its share of a round, so that the
 * shares hold on a slow and on a busy machine alike. Rounds last 5 to 15 ms in no regular order: equal
 * ones would fall into step with the sampler's clock.
 */
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

static volatile uint64_t sink;

static uint64_t cpu_time_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Each burner has arithmetic of its own, or the linker could fold the three into one. */
#define BURNER(name, multiplier)                                      \
	__attribute__((noinline)) static void name(uint64_t until_ns) \
	{                                                             \
		while (cpu_time_ns() < until_ns)                      \
			for (int i = 0; i < 2000; i++)                \
				sink = sink * (multiplier) + 1;       \
	}

BURNER(burn_sixty, 3)
BURNER(burn_thirty, 5)
BURNER(burn_ten, 7)

__attribute__((noinline)) static void burn_round(uint64_t round_ns)
{
	uint64_t begin_ns = cpu_time_ns();
	burn_sixty(begin_ns + round_ns * 6 / 10);
	burn_thirty(begin_ns + round_ns * 9 / 10);
	burn_ten(begin_ns + round_ns);
}

int main(int count, char **arguments)
{
	time_t seconds = count > 1 ? atoi(arguments[1]) : 1;
	struct timespec begin, now;
	uint32_t random = 1;
	clock_gettime(CLOCK_MONOTONIC, &begin);
	do {
		random = random * 1664525 + 1013904223;
		burn_round(5000000 + (random >> 8) % 10000000);
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec - begin.tv_sec < seconds);
	return 0;
}
