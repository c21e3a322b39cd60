/* A small program for the ELF targets: functions with and without frames, inlined and called. */
static inline int inlined(int value) { return value * value; }

__attribute__((noinline)) int called(int value)
{
	volatile char room[512];

	room[value & 511] = (char)value;
	return inlined(value) + room[0];
}

__attribute__((noinline)) int aligned(int value)
{
	__attribute__((aligned(64))) volatile char room[64];

	room[value & 63] = 1;
	return called(room[0]);
}

void _start(void)
{
	for (int round = 0;; round++)
		aligned(round);
}
