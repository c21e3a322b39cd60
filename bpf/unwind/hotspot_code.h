/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What the instructions around a leaf's pc say about its frame, in code that HotSpot generated and that has a frame
 * size: how much of the frame is there in the prologue and in the epilogue, of which nothing else tells. Included by
 * hotspot.h, in its middle, which says what such frames look like.
 */
#ifndef SF_UNWIND_HOTSPOT_CODE_H
#define SF_UNWIND_HOTSPOT_CODE_H

/* How much of a leaf's frame there is. */
enum sf_hotspot_frame_state {
	SF_HOTSPOT_FRAME_WHOLE = 0,
	SF_HOTSPOT_FRAME_NONE = 1,      /* the return address is on top of the stack */
	SF_HOTSPOT_FRAME_PUSHED = 2,    /* the caller's rbp is, and the return address above it */
	SF_HOTSPOT_FRAME_RBP_LIVES = 3, /* whole, but rbp was not saved yet */
	SF_HOTSPOT_FRAME_UNKNOWN = 4,
};

/* Reads the instructions around an address. 0 if they could be. */
static __always_inline int sf_read_hotspot_code(struct sf_walk *walk, __u64 address)
{
	return bpf_probe_read_user(&walk->object_bytes[SF_HOTSPOT_CODE_AT], SF_HOTSPOT_CODE_BYTES,
				   (void *)(address - SF_HOTSPOT_CODE_BEFORE)) != 0;
}

/* Instruction bytes at `at` from the pc on, from the lowest address upwards in the number's lowest bits. */
static __always_inline __u64 sf_hotspot_code(const struct sf_walk *walk, __u32 at)
{
	__u64 index = at;

	index &= SF_HOTSPOT_CODE_BYTES - 1;
	if (index > SF_HOTSPOT_CODE_BYTES - 8)
		return 0;
	SF_OPAQUE(index);
	index &= SF_HOTSPOT_CODE_BYTES - 1;
	return *(const __u64 *)&walk->object_bytes[SF_HOTSPOT_CODE_AT + index];
}

#define SF_AT_PC SF_HOTSPOT_CODE_BEFORE

/*
 * Whether the instructions from the pc on lead to a `ret` with the stack pointer as it is: then the return
 * address is on top of the stack, or above the saved rbp that is popped first. What may stand between are the
 * polls for safepoints and vzeroupper.
 */
static __always_inline __u32 sf_hotspot_epilogue(const struct sf_walk *walk)
{
	__u32 at = SF_AT_PC, pops = 0;
	__u64 code = sf_hotspot_code(walk, at);

	if ((code & 0xff) == 0x5d) {
		pops = 1;
		at++;
	}
	for (int i = 0; i < 4; i++) {
		code = sf_hotspot_code(walk, at);
		if ((code & 0xff) == 0xc3) /* ret */
			return pops ? SF_HOTSPOT_FRAME_PUSHED : SF_HOTSPOT_FRAME_NONE;
		if ((code & 0xffffff) == 0xa73b49 || (code & 0xffffff) == 0x978b4d)
			at += 7; /* cmp rsp, [r15 + poll]; mov r10, [r15 + poll] */
		else if ((code & 0xffffff) == 0x673b49 || (code & 0xffffff) == 0x578b4d)
			at += 4;
		else if ((code & 0xffff) == 0x870f || (code & 0xffff) == 0x0585)
			at += 6; /* ja stub; test eax, [rip + poll] */
		else if ((code & 0xffffff) == 0x028541 || (code & 0xffffff) == 0x77f8c5)
			at += 3; /* test [r10], eax; vzeroupper */
		else
			break;
	}
	/* Where the poll of a popped frame goes: lea r10, [rip + n]; mov [r15 + n], r10; jmp. */
	code = sf_hotspot_code(walk, at);
	if (!pops && (code & 0xffffff) == 0x158d4c) {
		at += 7;
		code = sf_hotspot_code(walk, at);
		if ((code & 0xffffff) == 0x97894d && (sf_hotspot_code(walk, at + 7) & 0xff) == 0xe9)
			return SF_HOTSPOT_FRAME_NONE;
	}
	return SF_HOTSPOT_FRAME_WHOLE;
}

/*
 * In the prologue: [mov [rsp - n], eax;] push rbp; [mov rbp, rsp;] sub rsp, frame - 16, or in one step
 * sub rsp, frame - 8; mov [rsp + frame - 16], rbp. Then there may be the barrier for code that is being changed.
 */
static __always_inline __u32 sf_hotspot_prologue(const struct sf_walk *walk, __u64 offset, __u32 frame_bytes)
{
	__u32 begin = offset < SF_HOTSPOT_CODE_BEFORE ? SF_AT_PC - (__u32)offset : 0;
	/* A number that the verifier does not know: else it follows each pair of this and `begin`, for 100 ms. */
	__u32 at = (__u32)walk->zero;
	__u64 code, before;
	__u32 bytes, length;

	for (int i = 0; i < SF_AT_PC; i++, at++) {
		if (at < begin)
			continue;
		code = sf_hotspot_code(walk, at);
		if ((code & 0xffffff) == 0xec8148) {
			bytes = code >> 24;
			length = 7;
		} else if ((code & 0xffffff) == 0xec8348) {
			bytes = (code >> 24) & 0x7f;
			length = 4;
		} else {
			continue;
		}
		if (at + length > SF_AT_PC)
			continue;
		if (bytes + 16 == frame_bytes)
			return SF_HOTSPOT_FRAME_WHOLE;
		if (bytes + 8 == frame_bytes)
			return at + length == SF_AT_PC ? SF_HOTSPOT_FRAME_RBP_LIVES : SF_HOTSPOT_FRAME_WHOLE;
	}
	code = sf_hotspot_code(walk, SF_AT_PC);
	before = sf_hotspot_code(walk, SF_AT_PC - 8);
	if (offset >= 1 && (before >> 56) == 0x55 &&
	    ((code & 0xffffff) == 0xec8148 || (code & 0xffffff) == 0xec8348 ||
	     (code & 0xffffff) == 0xec8b48 || (code & 0xffffff) == 0xe58948 || frame_bytes == 16))
		return SF_HOTSPOT_FRAME_PUSHED;
	if (offset >= 4 && ((before >> 32) == 0xec8b4855 || (before >> 32) == 0xe5894855))
		return SF_HOTSPOT_FRAME_PUSHED;
	return SF_HOTSPOT_FRAME_NONE;
}

/* How much of the frame of a leaf there is, in code that has a frame size. `offset`: of the pc in the code. */
__attribute__((noinline)) int sf_hotspot_leaf_state(struct sf_walk *walk, __u64 offset, __u64 complete,
						    __u32 frame_bytes)
{
	__u32 state;

	if (!walk || sf_read_hotspot_code(walk, walk->pc))
		return SF_HOTSPOT_FRAME_UNKNOWN;
	if (offset < complete)
		return sf_hotspot_prologue(walk, offset, frame_bytes);
	state = sf_hotspot_epilogue(walk);
	return state;
}

#endif /* SF_UNWIND_HOTSPOT_CODE_H */
