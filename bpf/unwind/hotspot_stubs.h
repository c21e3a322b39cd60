/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Callers of leaves in code of HotSpot that has no frame size, and often no frame at all: stubs, the adapters between
 * interpreted and compiled code, and those of method handles. Included by hotspot.h, in its middle, after
 * hotspot_code.h.
 */
#ifndef SF_UNWIND_HOTSPOT_STUBS_H
#define SF_UNWIND_HOTSPOT_STUBS_H

/* How far a leaf's return address is looked for in stubs that keep no frame pointer, and how many are tried. */
#define SF_HOTSPOT_SCANNED_WORDS 144
#define SF_HOTSPOT_SCAN_TRIES 12
#define SF_HOTSPOT_MAX_STUB_BYTES 65536

/*
 * Where the call leads that pushed `return_address`, if that is at or before the pc and behind `begin`; else 0. Code
 * calls stubs by `call rel32`, or by `mov r10, imm64; call r10`.
 */
static __always_inline __u64 sf_hotspot_called(struct sf_walk *walk, __u64 return_address, __u64 begin)
{
	const struct sf_hotspot *layout = &walk->layout.hotspot;
	const unsigned char *code = &walk->object_bytes[SF_HOTSPOT_CODE_AT];
	__u64 target = 0;

	if (return_address - layout->code_begin >= layout->code_end - layout->code_begin)
		return 0;
	if (bpf_probe_read_user(&walk->object_bytes[SF_HOTSPOT_CODE_AT], 24, (void *)(return_address - 24)))
		return 0;
	/* The number of the second form lies 11 bytes, that of the first 4 bytes before the return address. */
	if (code[11] == 0x49 && code[12] == 0xba && code[21] == 0x41 && code[22] == 0xff && code[23] == 0xd2)
		target = *(const __u64 *)&code[13];
	else if (code[19] == 0xe8)
		target = return_address + (__s64) * (const __s32 *)&code[20];
	if (target < begin || target > walk->pc || walk->pc - target >= SF_HOTSPOT_MAX_STUB_BYTES)
		return 0;
	return target;
}

/*
 * A search through the stack of a stub. What it has found is in walk->object_bytes: on its own stack the verifier
 * would follow every value that it may have.
 */
struct sf_hotspot_scan {
	struct sf_walk *walk;
	__u64 begin; /* of the stub's blob's code */
};

/* Callback of bpf_loop; 1 ends the search. */
static long sf_hotspot_scan_word(__u32 index, struct sf_hotspot_scan *scan)
{
	struct sf_walk *walk = scan->walk;
	__u64 slot = walk->registers[SF_RSP] + 8 * (__u64)index, word, target;

	if (sf_read_stack(&walk->window, slot, &word))
		return 1;
	if (word - walk->layout.hotspot.code_begin >=
	    walk->layout.hotspot.code_end - walk->layout.hotspot.code_begin)
		return 0;
	if (++*(volatile __u64 *)&walk->object_bytes[SF_HOTSPOT_SCAN_TRIES_AT] > SF_HOTSPOT_SCAN_TRIES)
		return 1;
	target = sf_hotspot_called(walk, word, scan->begin);
	if (target > *(volatile __u64 *)&walk->object_bytes[SF_HOTSPOT_SCAN_TARGET_AT]) {
		*(volatile __u64 *)&walk->object_bytes[SF_HOTSPOT_SCAN_TARGET_AT] = target;
		*(volatile __u64 *)&walk->object_bytes[SF_HOTSPOT_SCAN_SLOT_AT] = slot;
	}
	return 0;
}

/*
 * Makes the stack pointer that of the return address by which a stub's leaf was called. 0 if it is found. Such stubs
 * push registers and align the stack. What lies about of older calls leads to other stubs: no stub begins
 * between the one that the pc is in and the pc, so the call that leads furthest is the right one.
 */
__attribute__((noinline)) int sf_hotspot_scan_stub(struct sf_walk *walk, __u64 begin)
{
	struct sf_hotspot_scan scan = {.walk = walk, .begin = begin};

	if (!walk)
		return -1;
	*(volatile __u64 *)&walk->object_bytes[SF_HOTSPOT_SCAN_TARGET_AT] = 0;
	*(volatile __u64 *)&walk->object_bytes[SF_HOTSPOT_SCAN_TRIES_AT] = 0;
	bpf_loop(SF_HOTSPOT_SCANNED_WORDS, sf_hotspot_scan_word, &scan, 0);
	if (!*(volatile __u64 *)&walk->object_bytes[SF_HOTSPOT_SCAN_TARGET_AT])
		return -1;
	walk->registers[SF_RSP] = *(volatile __u64 *)&walk->object_bytes[SF_HOTSPOT_SCAN_SLOT_AT];
	return 0;
}

/*
 * The frame of a leaf in a stub without a frame size. Stubs begin with `push rbp; mov rbp, rsp` or have no frame at
 * all; which it is, is told by the instructions at its edges, else by whether the call leads to this code behind which
 * the address above rbp lies. enum sf_hotspot_frame_state, WHOLE meaning that rbp is the frame pointer.
 */
__attribute__((noinline)) int sf_hotspot_leaf_stub(struct sf_walk *walk, __u64 begin)
{
	__u64 code, before, frame_pointer, stack_pointer, word;

	if (!walk || sf_read_hotspot_code(walk, walk->pc))
		return SF_HOTSPOT_FRAME_UNKNOWN;
	code = sf_hotspot_code(walk, SF_AT_PC);
	before = sf_hotspot_code(walk, SF_AT_PC - 8);
	if ((code & 0xffffffff) == 0xec8b4855 || (code & 0xffffffff) == 0xe5894855 || (code & 0xff) == 0xc3)
		return SF_HOTSPOT_FRAME_NONE;
	if (((before >> 56) == 0x55 && ((code & 0xffffff) == 0xec8b48 || (code & 0xffffff) == 0xe58948)) ||
	    (code & 0xffff) == 0xc35d)
		return SF_HOTSPOT_FRAME_PUSHED;
	frame_pointer = walk->registers[SF_RBP];
	stack_pointer = walk->registers[SF_RSP];
	if (frame_pointer - stack_pointer < SF_HOTSPOT_MAX_FRAME_BYTES &&
	    !sf_read_stack(&walk->window, frame_pointer + 8, &word) && sf_hotspot_called(walk, word, begin))
		return SF_HOTSPOT_FRAME_WHOLE;
	return SF_HOTSPOT_FRAME_UNKNOWN;
}

/*
 * Whether the caller of a stub that has no frame pops what it had pushed for it: C1 does so around some checks of types,
 * and its frame is then not where its size says. `pop r` behind the call; also if nothing can be read.
 */
__attribute__((noinline)) int sf_hotspot_caller_pops(struct sf_walk *walk)
{
	__u64 caller;

	if (!walk || sf_read_stack(&walk->window, walk->registers[SF_RSP], &caller) ||
	    bpf_probe_read_user(&walk->object_bytes[SF_HOTSPOT_CODE_AT], 2, (void *)caller))
		return 1;
	return (walk->object_bytes[SF_HOTSPOT_CODE_AT] & 0xf8) == 0x58 ||
	       (walk->object_bytes[SF_HOTSPOT_CODE_AT] == 0x41 &&
		(walk->object_bytes[SF_HOTSPOT_CODE_AT + 1] & 0xf8) == 0x58);
}

/* Whether a word is the return address of code that HotSpot generated: after a call, or any of the interpreter's. */
static __always_inline int sf_is_hotspot_return(struct sf_walk *walk, __u64 word)
{
	const struct sf_hotspot *layout = &walk->layout.hotspot;
	__u64 before;

	if (word >= layout->interpreter_begin && word < layout->interpreter_end)
		return 1;
	if (word - layout->code_begin >= layout->code_end - layout->code_begin ||
	    bpf_probe_read_user(&walk->object_bytes[SF_HOTSPOT_CODE_AT], 8, (void *)(word - 8)))
		return 0;
	before = *(const __u64 *)&walk->object_bytes[SF_HOTSPOT_CODE_AT];
	/* call rel32; call r; call [r + disp8]; call [r + disp32] without and with an index. */
	return (before >> 24 & 0xff) == 0xe8 || (before >> 48 & 0xf8ff) == 0xd0ff ||
	       (before >> 40 & 0xf8ff) == 0x50ff || (before >> 16 & 0xf8ff) == 0x90ff ||
	       (before >> 8 & 0xf8ff) == 0x90ff;
}

/*
 * From the adapters between interpreted and compiled code to their caller. They have no frame, but move the stack
 * pointer: that from the interpreter takes the return address into rax, makes room, and pushes it again, with the
 * caller's stack pointer in r13 all the time; that to the interpreter pops it into rax, notes the stack pointer in
 * r13, makes room, and stores it on top. So it is in rax or on top, or in both; where what is in them could each be
 * one, and where the caller's stack pointer cannot be told, the walk ends.
 */
__attribute__((noinline)) int sf_leave_adapter(struct sf_walk *walk)
{
	__u64 stack_pointer, sender, in_rax, on_top, above, caller, slot, code;
	int rax_is_one, top_is_one;

	if (!walk)
		return 1;
	/* While they have the VM look something up, registers lie above. */
	if (walk->pc_is_return)
		return sf_stop_hotspot(walk, SF_SCRIPT_UNSUPPORTED);
	stack_pointer = walk->registers[SF_RSP];
	sender = walk->registers[13];
	in_rax = walk->registers[SF_RAX];
	if (sf_read_stack(&walk->window, stack_pointer, &on_top))
		return sf_stop(walk, SF_OUTCOME_STACK_UNREADABLE);
	rax_is_one = sf_is_hotspot_return(walk, in_rax);
	top_is_one = sf_is_hotspot_return(walk, on_top);
	if ((rax_is_one && top_is_one && in_rax != on_top) || (!rax_is_one && !top_is_one) ||
	    sf_read_hotspot_code(walk, walk->pc))
		return sf_stop_hotspot(walk, SF_SCRIPT_UNSUPPORTED);
	code = sf_hotspot_code(walk, SF_AT_PC);
	caller = top_is_one ? on_top : in_rax;
	slot = top_is_one ? stack_pointer : 0;
	if (sender - stack_pointer >= SF_HOTSPOT_MAX_FRAME_BYTES || sender & 7) {
		/* Not noted yet: it was called this moment, or has popped the address. */
		sender = stack_pointer + (top_is_one ? 8 : 0);
	} else if ((code & 0xffffff) == 0xec8b4c || (code & 0xffffff) == 0xe58949) {
		/* It is about to note it: mov r13, rsp. */
		sender = stack_pointer + (top_is_one ? 8 : 0);
	} else if (sf_read_stack(&walk->window, sender, &above)) {
		return sf_stop(walk, SF_OUTCOME_STACK_UNREADABLE);
	} else if (above == caller) {
		/*
		 * It asks the VM for a better callee, and has noted where the address lies. Or a method handle of the
		 * interpreter's has moved the address there: of the interpreter's frames rbp alone counts.
		 */
		sender += 8;
	} else if (in_rax != caller) {
		/* What r13 has may be older. */
		if (sf_read_stack(&walk->window, sender - 8, &above))
			return sf_stop(walk, SF_OUTCOME_STACK_UNREADABLE);
		if (above != caller)
			return sf_stop_hotspot(walk, SF_SCRIPT_UNSUPPORTED);
	}
	return sf_enter_caller(walk, caller, slot, sender, walk->registers[SF_RBP],
			       walk->known & (SF_REGISTER_BIT(SF_RSP) | SF_REGISTER_BIT(SF_RBP)));
}

/*
 * From the interpreter's entries of what method handles are made of (invokeBasic, linkToStatic, …) to their caller.
 * They find out which method is meant and jump to its entry. r13 has the caller's stack pointer from the beginning, and
 * none of them changes it. The return address is on top of the stack, but where linkTo* take the last argument from
 * below it: `pop rax; pop rbx; push rax`. Barriers of some collectors push registers: what the interpreter called has
 * its return address right below where r13 leads, or right there once that argument was taken, and what lies elsewhere
 * is none. Compiled callers come through an adapter, which makes room in between.
 */
__attribute__((noinline)) int sf_leave_method_handle(struct sf_walk *walk)
{
	__u64 stack_pointer, sender, caller, slot, code, before;

	if (!walk)
		return 1;
	if (walk->pc_is_return || sf_read_hotspot_code(walk, walk->pc))
		return sf_stop_hotspot(walk, SF_SCRIPT_UNSUPPORTED);
	stack_pointer = walk->registers[SF_RSP];
	sender = walk->registers[13];
	code = sf_hotspot_code(walk, SF_AT_PC);
	before = sf_hotspot_code(walk, SF_AT_PC - 8);
	if ((before >> 56 == 0x58 && (code & 0xffff) == 0x505b) ||
	    (before >> 48 == 0x5b58 && (code & 0xff) == 0x50)) {
		slot = 0;
		caller = walk->registers[SF_RAX];
	} else {
		slot = stack_pointer;
		if (sf_read_stack(&walk->window, slot, &caller))
			return sf_stop(walk, SF_OUTCOME_STACK_UNREADABLE);
	}
	/* Both popped, the stack pointer is a word above that of an interpreted caller. */
	if (sender + 8 - stack_pointer >= SF_HOTSPOT_MAX_FRAME_BYTES || sender & 7 ||
	    !sf_is_hotspot_return(walk, caller))
		return sf_stop_hotspot(walk, SF_SCRIPT_UNSUPPORTED);
	if (slot && slot != sender && slot + 8 != sender &&
	    caller >= walk->layout.hotspot.interpreter_begin && caller < walk->layout.hotspot.interpreter_end)
		return sf_stop_hotspot(walk, SF_SCRIPT_UNSUPPORTED);
	return sf_enter_caller(walk, caller, slot, sender, walk->registers[SF_RBP],
			       walk->known & (SF_REGISTER_BIT(SF_RSP) | SF_REGISTER_BIT(SF_RBP)));
}

#endif /* SF_UNWIND_HOTSPOT_STUBS_H */
