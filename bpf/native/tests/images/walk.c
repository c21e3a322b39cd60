/*
 * The program behind walk.elf and walk.txt: everything a stack can hold at once, without libc, so that
 * the whole executable is a few kilobytes. Built and recorded by record.sh.
 *
 * _start → main → recursion 20 deep → 40 KiB frame → realigned frame → through a function pointer →
 * system call → signal handler on an alternate stack → deeper.
 */
typedef unsigned long u64;

static inline long call(long number, long a, long b, long c, long d)
{
	register long r10 asm("r10") = d;
	long result;

	asm volatile("syscall"
		     : "=a"(result)
		     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
		     : "rcx", "r11", "memory");
	return result;
}

struct action {
	void (*handler)(int);
	u64 flags;
	void (*restorer)(void);
	u64 mask;
};

void restore(void);
asm(".text\n"
    /* Unwinders look one byte before a return address, and this one was never called. */
    "nop\n"
    ".globl restore\n"
    ".type restore, @function\n"
    "restore:\n"
    "mov $15, %eax\n"
    "syscall\n"
    "hlt\n"
    ".size restore, . - restore\n"
    /* What glibc writes for its __restore_rt, for the registers that matter: DW_CFA_def_cfa_expression
     * and DW_CFA_expression over the ucontext at rsp. */
    ".section .eh_frame, \"a\", @progbits\n"
    "1: .long 3f - 2f\n"
    "2: .long 0\n"
    ".byte 1\n"
    ".asciz \"zRS\"\n"
    ".uleb128 1\n"
    ".sleb128 -8\n"
    ".uleb128 16\n"
    ".uleb128 4f - 5f\n"
    "5: .byte 0x1b\n"
    "4: .balign 8\n"
    "3: .long 7f - 6f\n"
    "6: .long 6b - 1b\n"
    ".long restore - 1 - .\n"
    ".long 10 + 1\n"
    ".uleb128 0\n"
    /* CFA = *(rsp + 160) */
    ".byte 0x0f; .uleb128 9f - 8f; 8: .byte 0x77; .sleb128 160; .byte 0x06; 9:\n"
    /* rbp at rsp + 120, rbx at rsp + 128, rip at rsp + 168 */
    ".byte 0x10; .uleb128 6; .uleb128 9f - 8f; 8: .byte 0x77; .sleb128 120; 9:\n"
    ".byte 0x10; .uleb128 3; .uleb128 9f - 8f; 8: .byte 0x77; .sleb128 128; 9:\n"
    ".byte 0x10; .uleb128 16; .uleb128 9f - 8f; 8: .byte 0x77; .sleb128 168; 9:\n"
    ".balign 8\n"
    "7:\n"
    ".text\n");

static volatile u64 sink;

__attribute__((noinline)) void stop_here(int number)
{
	sink += number;
	asm volatile("" ::: "memory");
}

__attribute__((noinline)) void in_handler(int number)
{
	stop_here(number + 1);
	sink++;
}

__attribute__((noinline)) void handler(int number)
{
	in_handler(number);
	sink++;
}

__attribute__((noinline)) void raise_signal(int number)
{
	call(62, call(39, 0, 0, 0, 0), number, 0, 0);
	sink++;
}

__attribute__((noinline)) void realigned(void (*next)(int), int n)
{
	volatile char array[n * 16 + 64] __attribute__((aligned(64)));

	array[0] = n;
	next(10);
	sink += array[0];
}

__attribute__((noinline)) void large(int n)
{
	volatile char array[40960];

	array[n] = 1;
	realigned(raise_signal, n);
	sink += array[n];
}

__attribute__((noinline)) u64 recurse(int depth, int x)
{
	u64 below;

	if (!depth) {
		large(x);
		return 1;
	}
	below = recurse(depth - 1, x + 1);
	return below + sink * x;
}

static char alternate[16384];

int main(void)
{
	struct action action = { handler, 0x0c000000 /* SA_RESTORER | SA_ONSTACK */, restore, 0 };
	struct { void *base; int flags; u64 bytes; } stack = { alternate, 0, sizeof(alternate) };

	call(131, (long)&stack, 0, 0, 0);
	call(13, 10, (long)&action, 0, 8);
	sink = recurse(20, 1);
	return 0;
}

__attribute__((noreturn)) void finish(int status)
{
	for (;;)
		call(231, status, 0, 0, 0);
}

asm(".text\n"
    ".globl _start\n"
    ".type _start, @function\n"
    "_start:\n"
    ".cfi_startproc\n"
    ".cfi_undefined rip\n"
    "xor %ebp, %ebp\n"
    "and $-16, %rsp\n"
    "call main\n"
    "mov %eax, %edi\n"
    "call finish\n"
    ".cfi_endproc\n"
    ".size _start, . - _start\n");
