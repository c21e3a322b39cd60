/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Frames of HotSpot, JDK 11 to 25, x86-64.
 *
 * All code that HotSpot generates lies in one to three code heaps. A code heap is made of segments (64 or 128
 * bytes); its segment map has a byte for each: 255 in a free one, 0 in the first of a block, otherwise how many
 * segments to go back, which may take several hops. A block is a HeapBlock header and a CodeBlob: an nmethod
 * (a compiled method, or the wrapper of a native one), an adapter, a stub, or the interpreter as a whole.
 *
 *   compiled     rbp is a general register. A frame is CodeBlob::_frame_size words; its uppermost is the return
 *                address, below it lies the caller's rbp. That holds from CodeBlob::_frame_complete_offset of the
 *                code on and until the frame is popped; for a leaf before or after that, the instructions
 *                around the pc tell how much of the frame there is (hotspot_code.h).
 *   deoptimised  the return address into a compiled method was replaced by its deoptimisation handler; the true
 *                one lies in the frame, at nmethod::_orig_pc_offset above its stack pointer.
 *   interpreted  rbp is the frame pointer. At rbp + 8 lies the return address, at rbp the caller's rbp, at
 *                -8 the caller's stack pointer as it was before arguments were moved (what a compiled caller's
 *                frame size counts from), at -24 the Method, at -64 the bytecode pointer, which is in r13 while
 *                bytecodes are worked on. At a method's entry the frame is not there yet: the Method is in rbx,
 *                the return address on the stack or in rax (struct sf_hotspot_entry).
 *   call stub    C++ calls Java through it; it keeps rbp as frame pointer, and so do other stubs without a frame
 *                size that call something (also the return barrier of virtual threads: its rbp is that of
 *                Continuation.enterSpecial, so the walk goes on below the virtual thread's mounted frames; those
 *                that still lie in the heap are not seen).
 *   other stubs  with a frame size, as compiled code; leaf ones without, adapters between interpreted and
 *                compiled code, and those of method handles: hotspot_stubs.h.
 *
 * A script frame has: address = the code; kind = enum sf_hotspot_kind;
 *   interpreted  object = Method, position = bytecode index (or ~0), identity = hash of its ConstMethod,
 *                ConstantPool, class, the class's name with that Symbol's random hash, and its place in the class:
 *                memory of unloaded classes is used again for others of the same shape.
 *   compiled, native wrapper
 *                object = nmethod, other = its Method, position = compile id, identity = hash of the
 *                compile id, the Method and the OSR entry. Compile ids are not used twice.
 *   stub         object = CodeBlob, other = its name, identity = hash of its name and size.
 *   codelet      code of the interpreter where no method is known.
 * An identity of 0 was not read: user space refuses it.
 *
 * Verified on JDK 11, 17, 21 and 25. Not covered, and ending the walk with SF_SCRIPT_UNSUPPORTED: leaf code in
 * stubs that neither have a frame nor a caller that can be told by its call instruction; adapters while they call the
 * VM; the interpreter's entries for intrinsics (Math.sin and so on under -Xint); checks of types that C1 has pushed
 * arguments for. Not covered, and leading astray: C1's leaves while such arguments are pushed, as around the check of
 * an array copy (Arrays.copyOf). Not covered at all: Graal, Zero, frames of virtual threads in the heap, code of other
 * architectures.
 */
#ifndef SF_UNWIND_HOTSPOT_H
#define SF_UNWIND_HOTSPOT_H

/* sf_script_frame.kind */
enum sf_hotspot_kind {
	SF_HOTSPOT_INTERPRETED = 1,
	SF_HOTSPOT_COMPILED = 2,
	SF_HOTSPOT_NATIVE_WRAPPER = 3,
	SF_HOTSPOT_STUB = 4,
	SF_HOTSPOT_CODELET = 5,
};

/* What sf_find_hotspot_blob returns. */
enum sf_hotspot_blob {
	SF_HOTSPOT_BLOB_FOUND = 0,
	SF_HOTSPOT_BLOB_UNREADABLE = 1,
	SF_HOTSPOT_BLOB_NONE = 2,
};

/* How walk->object_bytes is used: the segment map or a blob with its header, then instructions, then numbers. */
#define SF_HOTSPOT_BLOB_BYTES 400
#define SF_HOTSPOT_CODE_AT 416
#define SF_HOTSPOT_CODE_BYTES 64
/* Of the instructions that many lie before the pc. */
#define SF_HOTSPOT_CODE_BEFORE 32
#define SF_HOTSPOT_BLOB_ADDRESS_AT 480
#define SF_HOTSPOT_SCAN_TARGET_AT 488 /* where the best call leads so far; 0: there is none */
#define SF_HOTSPOT_SCAN_SLOT_AT 496   /* stack address of its return address */
#define SF_HOTSPOT_SCAN_TRIES_AT 504

#define SF_HOTSPOT_SEGMENT_HOPS 24
/* Most methods are smaller than what so many segments hold; a hop is 254 at most. */
#define SF_HOTSPOT_MAP_BYTES 64
#define SF_HOTSPOT_NOT_A_POSITION 0xffffffffU
/* A stack pointer that moves further in one frame is none: locals and arguments are at most 2 × 65535 words. */
#define SF_HOTSPOT_MAX_FRAME_BYTES (2 << 20)

/* CodeBlob::_frame_size of what C1 calls and has none (G1's barriers, checks of types): -1. */
#define SF_HOTSPOT_NO_FRAME_SIZE 0xffffffffU

/* Slots of an interpreter's frame, from rbp (frame_x86.hpp; the same in JDK 11 to 25). */
#define SF_HOTSPOT_SENDER_SP (-8)
#define SF_HOTSPOT_METHOD (-24)
#define SF_HOTSPOT_BCP (-64)

/* Numbers in walk->object_bytes. The offset is masked for the verifier's sake. */
static __always_inline __u64 sf_object_u64(const struct sf_walk *walk, __u64 offset)
{
	offset &= SF_OBJECT_BYTES - 8;
	SF_OPAQUE(offset);
	offset &= SF_OBJECT_BYTES - 8;
	return *(const __u64 *)&walk->object_bytes[offset];
}

static __always_inline __u32 sf_object_u32(const struct sf_walk *walk, __u64 offset)
{
	offset &= SF_OBJECT_BYTES - 4;
	SF_OPAQUE(offset);
	offset &= SF_OBJECT_BYTES - 4;
	return *(const __u32 *)&walk->object_bytes[offset];
}

static __always_inline __u16 sf_object_u16(const struct sf_walk *walk, __u64 offset)
{
	offset &= SF_OBJECT_BYTES - 2;
	SF_OPAQUE(offset);
	offset &= SF_OBJECT_BYTES - 2;
	return *(const __u16 *)&walk->object_bytes[offset];
}

static __always_inline __u8 sf_object_u8(const struct sf_walk *walk, __u64 offset)
{
	offset &= SF_OBJECT_BYTES - 1;
	SF_OPAQUE(offset);
	offset &= SF_OBJECT_BYTES - 1;
	return walk->object_bytes[offset];
}

/* symbols/src/hotspot/identity.rs computes the same. */
static __always_inline __u64 sf_hotspot_hash(__u64 hash, __u64 value)
{
	hash = (hash ^ value) * 0x9e3779b97f4a7c15ULL;
	return hash ^ hash >> 29;
}

/* 0 stands for "not read". */
static __always_inline __u32 sf_hotspot_identity(__u64 hash)
{
	__u32 identity = hash >> 32;

	return identity ? identity : 1;
}

/* Appends a frame of the walk that stands for a script frame. 0 if there was room. */
static __always_inline int sf_add_hotspot(struct sf_walk *walk, struct sf_frames *frames, __u64 address,
					  __u8 kind, __u64 object, __u64 other, __u32 position,
					  __u32 identity)
{
	struct sf_script_frame *script = sf_add_script(walk);

	if (!script) {
		walk->script_outcome = SF_SCRIPT_TRUNCATED;
		return -1;
	}
	script->address = address;
	script->object = object;
	script->other = other;
	script->position = position;
	script->identity = identity;
	script->runtime = SF_RUNTIME_HOTSPOT;
	script->kind = kind;
	script->flags = walk->pc_is_return ? 0 : SF_SCRIPT_LEAF;
	__builtin_memset(script->reserved, 0, sizeof(script->reserved));
	sf_push_frame(walk, frames, sf_word_of_script(walk));
	return 0;
}

/* Ends the walk at a frame whose caller is not to be had. */
static __always_inline long sf_stop_hotspot(struct sf_walk *walk, __u32 script_outcome)
{
	walk->script_outcome = script_outcome;
	return sf_stop(walk, script_outcome == SF_SCRIPT_UNREADABLE ? SF_OUTCOME_STACK_UNREADABLE
								    : SF_OUTCOME_NO_RULE);
}

/*
 * Reads the header and the CodeBlob that hold a code address into walk->object_bytes, and the blob's process
 * address behind it. enum sf_hotspot_blob.
 */
__attribute__((noinline)) int sf_find_hotspot_blob(struct sf_walk *walk, __u64 address)
{
	const struct sf_hotspot *layout;
	__u64 begin = 0, segment_map = 0, log2_segment = 0, segment, first, bytes = 0, block;
	__u32 back, read;
	int hop;

	if (!walk)
		return SF_HOTSPOT_BLOB_NONE;
	layout = &walk->layout.hotspot;
	for (int i = 0; i < SF_HOTSPOT_HEAPS; i++) {
		const struct sf_hotspot_heap *heap = &layout->heaps[i];

		if (address >= heap->begin && address < heap->end) {
			begin = heap->begin;
			segment_map = heap->segment_map;
			log2_segment = heap->log2_segment & 31;
		}
	}
	if (!segment_map)
		return SF_HOTSPOT_BLOB_NONE;

	segment = (address - begin) >> log2_segment;
	first = segment + 1;
	for (hop = 0; hop < SF_HOTSPOT_SEGMENT_HOPS; hop++) {
		if (segment < first) {
			/* What a hop can reach is fetched with it. */
			bytes = segment + 1;
			if (bytes > SF_HOTSPOT_MAP_BYTES)
				bytes = SF_HOTSPOT_MAP_BYTES;
			first = segment + 1 - bytes;
			SF_OPAQUE(bytes);
			if (bytes > SF_HOTSPOT_MAP_BYTES)
				return SF_HOTSPOT_BLOB_NONE;
			if (bpf_probe_read_user(walk->object_bytes, bytes, (void *)(segment_map + first)))
				return SF_HOTSPOT_BLOB_UNREADABLE;
		}
		back = sf_object_u8(walk, segment - first);
		if (!back)
			break;
		if (back == 0xff || back > segment)
			return SF_HOTSPOT_BLOB_NONE;
		segment -= back;
	}
	if (hop == SF_HOTSPOT_SEGMENT_HOPS)
		return SF_HOTSPOT_BLOB_NONE;

	block = begin + (segment << log2_segment);
	read = layout->heap_block_bytes + layout->nmethod_read_bytes;
	if (read > SF_HOTSPOT_BLOB_BYTES)
		return SF_HOTSPOT_BLOB_NONE;
	if (bpf_probe_read_user(walk->object_bytes, read, (void *)block)) {
		/* A small blob at the end of what is committed. */
		read = layout->heap_block_bytes + layout->blob_read_bytes;
		if (read > SF_HOTSPOT_BLOB_BYTES)
			return SF_HOTSPOT_BLOB_NONE;
		if (bpf_probe_read_user(walk->object_bytes, read, (void *)block))
			return SF_HOTSPOT_BLOB_UNREADABLE;
	}
	if (!(sf_object_u8(walk, layout->heap_block_used) & 1))
		return SF_HOTSPOT_BLOB_NONE;
	*(__u64 *)&walk->object_bytes[SF_HOTSPOT_BLOB_ADDRESS_AT] = block + layout->heap_block_bytes;
	return SF_HOTSPOT_BLOB_FOUND;
}

#include "hotspot_code.h"
#include "hotspot_stubs.h"

/* Goes to the caller of a frame of which there is as much as `state` says. */
static __always_inline long sf_leave_hotspot(struct sf_walk *walk, __u32 state, __u64 frame_bytes)
{
	__u64 stack_pointer = walk->registers[SF_RSP], frame_pointer = walk->registers[SF_RBP];
	__u64 known = SF_REGISTER_BIT(SF_RSP) | SF_REGISTER_BIT(SF_RBP), cfa, pc;

	if (state == SF_HOTSPOT_FRAME_NONE) {
		cfa = stack_pointer + 8;
	} else if (state == SF_HOTSPOT_FRAME_PUSHED) {
		cfa = stack_pointer + 16;
	} else if (state == SF_HOTSPOT_FRAME_WHOLE || state == SF_HOTSPOT_FRAME_RBP_LIVES) {
		if (!frame_bytes) {
			if (!(walk->known & SF_REGISTER_BIT(SF_RBP)))
				return sf_stop(walk, SF_OUTCOME_REGISTER_LOST);
			if (frame_pointer < stack_pointer)
				return sf_stop(walk, SF_OUTCOME_STACK_NOT_RISING);
			cfa = frame_pointer + 16;
		} else {
			cfa = stack_pointer + frame_bytes;
		}
	} else {
		return sf_stop_hotspot(walk, SF_SCRIPT_UNSUPPORTED);
	}
	if (state == SF_HOTSPOT_FRAME_WHOLE || state == SF_HOTSPOT_FRAME_PUSHED) {
		if (sf_read_stack(&walk->window, cfa - 16, &frame_pointer))
			return sf_stop(walk, SF_OUTCOME_STACK_UNREADABLE);
	} else {
		known &= walk->known;
	}
	if (sf_read_stack(&walk->window, cfa - 8, &pc))
		return sf_stop(walk, SF_OUTCOME_STACK_UNREADABLE);
	/* The entry barrier of compiled methods keeps a word that is -1 between its frame and its return address. */
	if (pc == ~0ULL && !frame_bytes && state == SF_HOTSPOT_FRAME_WHOLE) {
		cfa += 8;
		if (sf_read_stack(&walk->window, cfa - 8, &pc))
			return sf_stop(walk, SF_OUTCOME_STACK_UNREADABLE);
	}
	if (!pc || pc == ~0ULL)
		return sf_stop(walk, SF_OUTCOME_NO_RULE);
	walk->last_was_frame_pointer = 0;
	return sf_enter_caller(walk, pc, cfa - 8, cfa, frame_pointer, known);
}

/* What tells a method from others at its address; 0 if it could not be read. `position`: its bytecode index. */
__attribute__((noinline)) int sf_read_hotspot_method(struct sf_walk *walk, __u64 method, __u64 bcp_register,
						     __u64 bcp_slot)
{
	const struct sf_hotspot *layout;
	struct sf_hotspot_class *method_class;
	__u64 const_method, constants, holder, name, hash, bytecode;
	__u32 code_bytes, position = SF_HOTSPOT_NOT_A_POSITION;

	if (!walk)
		return 0;
	layout = &walk->layout.hotspot;
	*(volatile __u64 *)&walk->object_bytes[0] = 0;
	*(volatile __u32 *)&walk->object_bytes[SF_HOTSPOT_CODE_AT] = position;
	if (!method || method & 7 ||
	    bpf_probe_read_user(walk->object_bytes, 8, (void *)(method + layout->method_const_method)))
		return 0;
	const_method = *(const __u64 *)walk->object_bytes;
	if (!const_method || const_method & 7 ||
	    bpf_probe_read_user(walk->object_bytes, 64, (void *)const_method))
		return 0;
	constants = sf_object_u64(walk, layout->const_method_constants);
	code_bytes = sf_object_u16(walk, layout->const_method_code_size);
	hash = sf_hotspot_hash(const_method, constants);
	hash = sf_hotspot_hash(hash, (__u64)code_bytes << 48 |
					     (__u64)sf_object_u16(walk, layout->const_method_name_index)
						     << 32 |
					     sf_object_u16(walk, layout->const_method_signature_index) << 16 |
					     sf_object_u16(walk, layout->const_method_idnum));
	bytecode = const_method + layout->const_method_bytes;
	if (bcp_register - bytecode < code_bytes)
		position = bcp_register - bytecode;
	else if (bcp_slot - bytecode < code_bytes)
		position = bcp_slot - bytecode;
	*(volatile __u32 *)&walk->object_bytes[SF_HOTSPOT_CODE_AT] = position;

	/* Methods that call each other are often of one class, which is as it was a moment ago. */
	method_class = &walk->method_class;
	if (method_class->constants != constants) {
		method_class->constants = 0;
		if (bpf_probe_read_user(walk->object_bytes, 8,
					(void *)(constants + layout->constants_holder)))
			return 0;
		holder = *(const __u64 *)walk->object_bytes;
		if (bpf_probe_read_user(walk->object_bytes, 8, (void *)(holder + layout->klass_name)))
			return 0;
		name = *(const __u64 *)walk->object_bytes;
		if (bpf_probe_read_user(walk->object_bytes, 8, (void *)name))
			return 0;
		method_class->holder = holder;
		method_class->name = name;
		method_class->symbol = *(const __u64 *)walk->object_bytes & layout->symbol_mask;
		method_class->constants = constants;
	}
	hash = sf_hotspot_hash(hash, method_class->holder);
	hash = sf_hotspot_hash(hash, method_class->name);
	hash = sf_hotspot_hash(hash, method_class->symbol);
	return sf_hotspot_identity(hash);
}

/* Records a frame of a Method that the interpreter works on. */
static __always_inline void sf_add_interpreted(struct sf_walk *walk, struct sf_frames *frames, __u64 method,
					       __u64 bcp_slot)
{
	__u64 bcp_register = walk->pc_is_return ? 0 : walk->registers[13];
	__u32 identity = sf_read_hotspot_method(walk, method, bcp_register, bcp_slot);

	if (!identity)
		walk->script_outcome = SF_SCRIPT_UNREADABLE;
	if (!sf_add_hotspot(walk, frames, walk->pc - walk->pc_is_return, SF_HOTSPOT_INTERPRETED, method, 0,
			    sf_object_u32(walk, SF_HOTSPOT_CODE_AT), identity) &&
	    identity)
		sf_see_script(walk, method, identity);
}

/* A leaf where the interpreter enters a method: it may have no frame yet. Like sf_step_hotspot. */
__attribute__((noinline)) int sf_step_method_entry(struct sf_walk *walk, struct sf_frames *frames)
{
	__u64 pc, stack_pointer, frame_pointer, pop = 0, push = 0, sender, caller, slot, known;

	if (!walk || !frames)
		return SF_STEP_NOT_MINE;
	pc = walk->pc;
	for (int i = 0; i < SF_HOTSPOT_ENTRIES; i++) {
		const struct sf_hotspot_entry *entry = &walk->layout.hotspot.entries[i];

		if (pc >= entry->begin && pc < entry->end) {
			pop = entry->pop;
			push = entry->push;
		}
	}
	if (!push) {
		sf_add_hotspot(walk, frames, pc, SF_HOTSPOT_CODELET, 0, 0, SF_HOTSPOT_NOT_A_POSITION, 0);
		return sf_stop_hotspot(walk, SF_SCRIPT_UNSUPPORTED);
	}
	stack_pointer = walk->registers[SF_RSP];
	frame_pointer = walk->registers[SF_RBP];
	known = walk->known & (SF_REGISTER_BIT(SF_RSP) | SF_REGISTER_BIT(SF_RBP));
	sender = walk->registers[13];
	/* Past `mov rbp, rsp`, which is three bytes long and stands at push + 2. */
	if (pc >= push + 5) {
		if (frame_pointer - stack_pointer >= -SF_HOTSPOT_METHOD)
			return SF_STEP_NOT_MINE; /* all that matters is in the frame */
		if (frame_pointer - stack_pointer >= -SF_HOTSPOT_SENDER_SP &&
		    sf_read_stack(&walk->window, frame_pointer + SF_HOTSPOT_SENDER_SP, &sender))
			return sf_stop(walk, SF_OUTCOME_STACK_UNREADABLE);
		slot = frame_pointer + 8;
		if (sf_read_stack(&walk->window, frame_pointer, &frame_pointer) ||
		    sf_read_stack(&walk->window, slot, &caller))
			return sf_stop(walk, SF_OUTCOME_STACK_UNREADABLE);
	} else if (pc > pop && pc <= push) {
		slot = 0;
		caller = walk->registers[0];
	} else {
		slot = stack_pointer;
		if (pc == push + 2) {
			slot = stack_pointer + 8;
			if (sf_read_stack(&walk->window, stack_pointer, &frame_pointer))
				return sf_stop(walk, SF_OUTCOME_STACK_UNREADABLE);
		}
		if (sf_read_stack(&walk->window, slot, &caller))
			return sf_stop(walk, SF_OUTCOME_STACK_UNREADABLE);
	}
	sf_add_interpreted(walk, frames, walk->registers[SF_RBX], 0);
	/* A method handle has taken an argument from above r13: with the address popped, too, the stack ends higher. */
	if (!caller || sender + 8 - stack_pointer >= SF_HOTSPOT_MAX_FRAME_BYTES)
		return sf_stop_hotspot(walk, SF_SCRIPT_INCONSISTENT);
	return sf_enter_caller(walk, caller, slot, sender, frame_pointer, known);
}

/*
 * A leaf of the interpreter that is at the end of a return: [pop r13; mov rsp, rbx;] jmp r13, after `leave`. Like
 * sf_step_hotspot.
 */
__attribute__((noinline)) int sf_step_method_return(struct sf_walk *walk, struct sf_frames *frames)
{
	__u64 stack_pointer, sender, caller, code;

	if (!walk || !frames || sf_read_hotspot_code(walk, walk->pc))
		return SF_STEP_NOT_MINE;
	code = sf_hotspot_code(walk, SF_AT_PC);
	if ((code & 0xffffffffffULL) != 0xe38b485d41ULL && (code & 0xffffffffffffULL) != 0xe5ff41e38b48ULL)
		return SF_STEP_NOT_MINE;
	stack_pointer = walk->registers[SF_RSP];
	caller = walk->registers[13];
	if ((code & 0xff) == 0x41 && sf_read_stack(&walk->window, stack_pointer, &caller))
		return sf_stop(walk, SF_OUTCOME_STACK_UNREADABLE);
	sender = walk->registers[SF_RBX];
	sf_add_hotspot(walk, frames, walk->pc, SF_HOTSPOT_CODELET, 0, 0, SF_HOTSPOT_NOT_A_POSITION, 0);
	if (!caller || sender - stack_pointer >= SF_HOTSPOT_MAX_FRAME_BYTES)
		return sf_stop_hotspot(walk, SF_SCRIPT_INCONSISTENT);
	return sf_enter_caller(walk, caller, 0, sender, walk->registers[SF_RBP],
			       SF_REGISTER_BIT(SF_RSP) | SF_REGISTER_BIT(SF_RBP));
}

/* A frame of the interpreter that is whole. Like sf_step_hotspot. */
__attribute__((noinline)) int sf_step_interpreted(struct sf_walk *walk, struct sf_frames *frames)
{
	__u64 frame_pointer, method, bcp, sender, caller_frame_pointer, caller;

	if (!walk || !frames)
		return SF_STEP_NOT_MINE;
	frame_pointer = walk->registers[SF_RBP];
	if (!(walk->known & SF_REGISTER_BIT(SF_RBP)))
		return sf_stop(walk, SF_OUTCOME_REGISTER_LOST);
	if (frame_pointer < walk->registers[SF_RSP])
		return sf_stop(walk, SF_OUTCOME_STACK_NOT_RISING);
	if (sf_read_stack(&walk->window, frame_pointer + SF_HOTSPOT_BCP, &bcp) ||
	    sf_read_stack(&walk->window, frame_pointer + SF_HOTSPOT_METHOD, &method) ||
	    sf_read_stack(&walk->window, frame_pointer + SF_HOTSPOT_SENDER_SP, &sender) ||
	    sf_read_stack(&walk->window, frame_pointer, &caller_frame_pointer) ||
	    sf_read_stack(&walk->window, frame_pointer + 8, &caller))
		return sf_stop(walk, SF_OUTCOME_STACK_UNREADABLE);
	sf_add_interpreted(walk, frames, method, bcp);
	if (!caller || sender <= frame_pointer || sender - frame_pointer >= SF_HOTSPOT_MAX_FRAME_BYTES)
		return sf_stop_hotspot(walk, SF_SCRIPT_INCONSISTENT);
	walk->last_was_frame_pointer = 0;
	return sf_enter_caller(walk, caller, frame_pointer + 8, sender, caller_frame_pointer,
			       SF_REGISTER_BIT(SF_RSP) | SF_REGISTER_BIT(SF_RBP));
}

/* Eight bytes of text as a number. */
#define SF_TEXT_NMETHOD 0x00646f6874656d6eULL        /* "nmethod" */
#define SF_TEXT_NATIVE_NMETHOD 0x6e2065766974616eULL /* "native nmethod" */
#define SF_TEXT_ADAPTERS 0x204932432f433249ULL       /* "I2C/C2I adapters" */
#define SF_TEXT_METHOD_HANDLES 0x6148646f6874654dULL /* "MethodHandles adapters" */
#define SF_TEXT_FLUSH 0x63695f6873756c66ULL          /* "flush_icache_stub" */

/* How the name of the blob in walk->object_bytes begins. 0: it cannot be read. */
static __always_inline __u64 sf_hotspot_name(struct sf_walk *walk, __u64 name)
{
	if (name && name == walk->layout.hotspot.nmethod_name)
		return SF_TEXT_NMETHOD;
	if (bpf_probe_read_user(&walk->object_bytes[SF_HOTSPOT_CODE_AT], 8, (void *)name))
		return 0;
	return *(const __u64 *)&walk->object_bytes[SF_HOTSPOT_CODE_AT];
}

/* The address of a deoptimisation handler that the field at `offset` of the blob tells. */
static __always_inline __u64 sf_hotspot_handler(const struct sf_walk *walk, __u64 blob, __u32 offset)
{
	const struct sf_hotspot *layout = &walk->layout.hotspot;

	if (!offset)
		return 0;
	offset += layout->heap_block_bytes;
	return layout->blob_is_compact ? blob + sf_object_u32(walk, offset) : sf_object_u64(walk, offset);
}

/* A frame of a blob, which walk->object_bytes has. Like sf_step_hotspot. */
__attribute__((noinline)) int sf_step_hotspot_blob(struct sf_walk *walk, struct sf_frames *frames)
{
	const struct sf_hotspot *layout;
	__u64 blob, begin, name, text, complete, pc, offset, method = 0, original;
	__u32 header, kind, frame_words, identity, position, state = SF_HOTSPOT_FRAME_WHOLE, has_frame_size;
	__s64 frame_complete;

	if (!walk || !frames)
		return SF_STEP_NOT_MINE;
	layout = &walk->layout.hotspot;
	header = layout->heap_block_bytes;
	pc = walk->pc;
	blob = *(const __u64 *)&walk->object_bytes[SF_HOTSPOT_BLOB_ADDRESS_AT];
	name = sf_object_u64(walk, header + layout->blob_name);
	frame_words = sf_object_u32(walk, header + layout->blob_frame_size);
	if (layout->blob_is_compact) {
		begin = blob + sf_object_u32(walk, header + layout->blob_code_begin);
		frame_complete = (__s16)sf_object_u16(walk, header + layout->blob_frame_complete);
	} else {
		begin = sf_object_u64(walk, header + layout->blob_code_begin);
		frame_complete = (__s32)sf_object_u32(walk, header + layout->blob_frame_complete);
	}
	has_frame_size = frame_words != SF_HOTSPOT_NO_FRAME_SIZE;
	if (!has_frame_size)
		frame_words = 0;
	if (frame_words > SF_HOTSPOT_MAX_FRAME_BYTES / 8 || begin - blob > (1 << 20))
		return sf_stop_hotspot(walk, SF_SCRIPT_INCONSISTENT);
	text = sf_hotspot_name(walk, name);
	kind = text == SF_TEXT_NMETHOD          ? SF_HOTSPOT_COMPILED
	       : text == SF_TEXT_NATIVE_NMETHOD ? SF_HOTSPOT_NATIVE_WRAPPER
						: SF_HOTSPOT_STUB;
	if (kind == SF_HOTSPOT_STUB) {
		position = SF_HOTSPOT_NOT_A_POSITION;
		identity = sf_hotspot_identity(
			sf_hotspot_hash(name, sf_object_u32(walk, header + layout->blob_bytes)));
	} else {
		method = sf_object_u64(walk, header + layout->nmethod_method);
		position = sf_object_u32(walk, header + layout->nmethod_compile_id);
		identity = sf_hotspot_identity(
			sf_hotspot_hash(sf_hotspot_hash(method, position),
					sf_object_u32(walk, header + layout->nmethod_entry_bci)));
		if (walk->pc_is_return && pc &&
		    (pc == sf_hotspot_handler(walk, blob, layout->nmethod_deopt) ||
		     pc == sf_hotspot_handler(walk, blob, layout->nmethod_deopt_mh))) {
			original = walk->registers[SF_RSP] +
				   sf_object_u32(walk, header + layout->nmethod_orig_pc);
			if (sf_read_stack(&walk->window, original, &original))
				return sf_stop(walk, SF_OUTCOME_STACK_UNREADABLE);
			if (original >= begin && original < pc)
				pc = original;
		}
	}
	if (!walk->pc_is_return) {
		complete = frame_complete < 0 ? 0 : frame_complete;
		offset = pc - begin;
		if (text == SF_TEXT_FLUSH)
			state = SF_HOTSPOT_FRAME_NONE;
		else if (kind == SF_HOTSPOT_STUB && (!frame_words || frame_complete < 0))
			state = sf_hotspot_leaf_stub(walk, begin);
		else
			state = sf_hotspot_leaf_state(walk, offset, complete, frame_words * 8);
	}
	if (sf_add_hotspot(walk, frames, pc - walk->pc_is_return, kind, blob,
			   kind == SF_HOTSPOT_STUB ? name : method, position, identity) == 0)
		sf_see_script(walk, blob, identity);
	if (text == SF_TEXT_ADAPTERS)
		return sf_leave_adapter(walk);
	if (text == SF_TEXT_METHOD_HANDLES)
		return sf_leave_method_handle(walk);
	if (kind == SF_HOTSPOT_STUB && state == SF_HOTSPOT_FRAME_UNKNOWN) {
		if (sf_hotspot_scan_stub(walk, begin))
			return sf_stop_hotspot(walk, SF_SCRIPT_UNSUPPORTED);
		/* Its caller's rbp may be anywhere; compiled code has no need of it. */
		walk->known &= ~(__u64)SF_REGISTER_BIT(SF_RBP);
		state = SF_HOTSPOT_FRAME_NONE;
	}
	if (!has_frame_size && state == SF_HOTSPOT_FRAME_NONE && sf_hotspot_caller_pops(walk))
		return sf_stop_hotspot(walk, SF_SCRIPT_UNSUPPORTED);
	/* A stub that is known to have a frame by rbp is left by it. */
	if (kind == SF_HOTSPOT_STUB && !walk->pc_is_return && state == SF_HOTSPOT_FRAME_WHOLE &&
	    frame_complete < 0)
		frame_words = 0;
	return sf_leave_hotspot(walk, state, (__u64)frame_words * 8);
}

/* A frame of the interpreter, as much of it as there is. Like sf_step_hotspot. */
static __always_inline int sf_step_in_interpreter(struct sf_walk *walk, struct sf_frames *frames)
{
	int step = SF_STEP_NOT_MINE;

	if (!walk->pc_is_return) {
		if (walk->pc >= walk->layout.hotspot.method_entries_begin &&
		    walk->pc < walk->layout.hotspot.method_entries_end)
			step = sf_step_method_entry(walk, frames);
		else
			step = sf_step_method_return(walk, frames);
	}
	return step == SF_STEP_NOT_MINE ? sf_step_interpreted(walk, frames) : step;
}

/* Notes that generated code is in no blob; the walk is over. */
__attribute__((noinline)) int sf_stop_without_blob(struct sf_walk *walk, struct sf_frames *frames, int found)
{
	if (!walk || !frames)
		return 1;
	sf_push_frame(walk, frames, (walk->pc - walk->pc_is_return) & SF_FRAME_ADDRESS_MASK);
	return sf_stop_hotspot(walk, found == SF_HOTSPOT_BLOB_UNREADABLE ? SF_SCRIPT_UNREADABLE
									 : SF_SCRIPT_INCONSISTENT);
}

/* walk->layout.hotspot says where things are. 0: gone to the caller; 1: the walk is over; SF_STEP_NOT_MINE. */
static __always_inline int sf_step_hotspot(struct sf_walk *walk, struct sf_frames *frames)
{
	const struct sf_hotspot *layout = &walk->layout.hotspot;
	__u64 address = walk->pc - walk->pc_is_return;
	int found;

	if (address < layout->code_begin || address >= layout->code_end)
		return SF_STEP_NOT_MINE;
	if (address >= layout->interpreter_begin && address < layout->interpreter_end)
		return sf_step_in_interpreter(walk, frames);
	found = sf_find_hotspot_blob(walk, address);
	if (found != SF_HOTSPOT_BLOB_FOUND)
		return sf_stop_without_blob(walk, frames, found);
	return sf_step_hotspot_blob(walk, frames);
}

#endif /* SF_UNWIND_HOTSPOT_H */
