/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Frames of V8, as in Node 18 to 24 (V8 10.2, 11.3, 12.4, 13.6; x86-64, no pointer compression).
 *
 * Code. What V8 generates at run time (baseline = Sparkplug, Maglev, TurboFan; regular expressions;
 * WebAssembly) lies in anonymous mappings. What was generated when Node was built, the builtins, lies in
 * Node's own text without call-frame information; Node 20 and later map that part of the file a second time
 * near the generated code. The object's unwind table has SF_CFA_RUNTIME for it. The interpreter consists of
 * builtins too: InterpreterEntryTrampoline makes the frame of an interpreted function and calls the first
 * bytecode's handler; handlers jump to one another. They are the last builtins.
 *
 * Frames. All of it keeps frame pointers:
 *   fp+8   return address                fp      caller's fp
 *   fp-8   a Smi: the type of a frame that is no function's (stubs, handlers that call, entry from C++,
 *          exit to C++, WebAssembly, regular expressions); else the context of a function's frame
 *   fp-16  JSFunction                    fp-24   number of arguments
 *   fp-32  BytecodeArray                 fp-40   offset in it, a Smi (interpreted functions only)
 * Tagged words: a Smi is a number in the upper 32 bits above 32 zeros (markers of frame types are only
 * shifted by one); a pointer to an object has its lowest two bits 01.
 *
 * So the chain of frame pointers leads to all functions, and what is on it names them whatever the pc is.
 * What has to be found out is what the innermost code has made of its frame yet. It is told
 * by its bytes at pc where that is certain (push rbp; mov rbp, rsp; the sequences that end a function), by
 * rcx, which holds a function's first address when it is called, and for builtins by the word at rsp: a
 * return address if it stands behind a call of this very builtin. Otherwise the frame at fp is taken to be
 * the one of the code at pc, or of the function that called it.
 *
 * What is recorded (struct sf_script_frame):
 *   address   pc; 0: not known (a function that called a builtin which has no frame of its own)
 *   object    SharedFunctionInfo, untagged
 *   other     interpreted: BytecodeArray, untagged
 *   position  interpreted: byte offset in the bytecodes' object; compiled: hash of the code around pc, so
 *             that code which was thrown away since is not taken for what ran
 *   identity  of the SharedFunctionInfo: which function of its script and its unique number in the isolate, or
 *             its script's where V8 has no such number (before 12)
 *   kind      enum sf_v8_kind
 * Bytecode handlers are no frames of their own: they are the interpreter at work on the function. Other
 * builtins are recorded as native code, which their symbols name; so are generated frames that are no
 * function's, by their address.
 *
 * Reads of user memory, besides the stack's: JSFunction, SharedFunctionInfo, then compiled code's bytes, then the
 * Script before V8 12; once a walk the map of SharedFunctionInfos, and the code at pc of the innermost frame.
 *
 * Not covered: a function at the very end of its epilogue whose frame was written over by a signal handler (it
 * is missing); functions of WebAssembly (unnamed); pointer compression (Electron, Chromium).
 */
#ifndef SF_UNWIND_V8_H
#define SF_UNWIND_V8_H

/* sf_script_frame.kind */
enum sf_v8_kind {
	SF_V8_INTERPRETED = 1,
	SF_V8_COMPILED = 2, /* baseline or optimised: the code at the address says which */
};

#define SF_V8_SMI_MASK 1
#define SF_V8_TAG_MASK 3
#define SF_V8_TAG 1
/* Of JSFunction and SharedFunctionInfo; both are at least as large with what follows them. */
#define SF_V8_OBJECT_BYTES 72
/* Room in object_bytes: an object, the code around pc, the code before a return address. */
#define SF_V8_CODE 128
#define SF_V8_CODE_BYTES 64
#define SF_V8_CODE_BEFORE 24
#define SF_V8_CALL 256
#define SF_V8_HASHED 288
#define SF_V8_HASHED_BYTES 16
/* A function's frame is set up before this many bytes of it. */
#define SF_V8_ENTRY_BYTES 24
/* Behind the begin of a builtin; the largest ones have more, and are then not recognised. */
#define SF_V8_MAX_BUILTIN_BYTES 0x4000

/* What the innermost code has made of its frame. */
enum sf_v8_leaf {
	SF_V8_FRAMED = 0, /* fp is its own, or nothing is known */
	SF_V8_CALLED = 1, /* the return address at rsp, fp the caller's; the function in rdi */
	SF_V8_PUSHED = 2, /* likewise, with the caller's fp pushed below */
	SF_V8_LEFT = 3, /* the return address at rsp, fp the caller's again; what was the frame lies below */
	SF_V8_POPPED =
		4, /* likewise, but the return address is in a register, which is told in bits 8 to 11 */
	SF_V8_DROPPED = 5, /* likewise, and the arguments are off the stack */
};

static __always_inline __u8 sf_v8_byte(const struct sf_walk *walk, __u64 offset)
{
	SF_OPAQUE(offset);
	return walk->object_bytes[offset & (SF_OBJECT_BYTES - 1)];
}

static __always_inline __u32 sf_v8_u32(const struct sf_walk *walk, __u64 offset)
{
	SF_OPAQUE(offset);
	return *(const __u32 *)&walk->object_bytes[offset & (SF_OBJECT_BYTES - 1) & ~3ULL];
}

static __always_inline __u64 sf_v8_u64(const struct sf_walk *walk, __u64 offset)
{
	SF_OPAQUE(offset);
	return *(const __u64 *)&walk->object_bytes[offset & (SF_OBJECT_BYTES - 1) & ~7ULL];
}

/* Four bytes that may begin anywhere. */
static __always_inline __u32 sf_v8_bytes4(const struct sf_walk *walk, __u64 at)
{
	return sf_v8_byte(walk, at) | (__u32)sf_v8_byte(walk, at + 1) << 8 |
	       (__u32)sf_v8_byte(walk, at + 2) << 16 | (__u32)sf_v8_byte(walk, at + 3) << 24;
}

#define SF_V8_ENTER_WITH_PUSH 0xe5894855U /* push rbp; mov rbp, rsp */
#define SF_V8_ENTER 0xe58948U             /* mov rbp, rsp */
#define SF_V8_ENTER_OTHER 0xec8b48U       /* the same, encoded the other way */

static __always_inline int sf_v8_is_enter(__u32 bytes)
{
	bytes &= 0xffffff;
	return bytes == SF_V8_ENTER || bytes == SF_V8_ENTER_OTHER;
}

static __always_inline int sf_v8_is_push_and_enter(__u32 bytes)
{
	return (bytes & 0xff) == 0x55 && sf_v8_is_enter(bytes >> 8);
}

/*
 * What the innermost code has made of its frame; see above. JavaScript functions end with
 *   mov rsp, rbp; pop rbp; cmp count, n; jg over; ret 8n; over: pop r10; lea rsp, [rsp + count * 8]; push r10; ret
 * with registers of the compiler's choice. `generated`: the code is no builtin's.
 */
__attribute__((noinline)) int sf_v8_leaf(struct sf_walk *walk, __u64 generated)
{
	__u64 at = SF_V8_CODE + SF_V8_CODE_BEFORE, behind_entry, begin;
	__u32 bytes, popped;

	if (!walk)
		return SF_V8_FRAMED;
	if (bpf_probe_read_user(walk->object_bytes + SF_V8_CODE, SF_V8_CODE_BYTES,
				(void *)(walk->pc - SF_V8_CODE_BEFORE)))
		return SF_V8_FRAMED;
	bytes = sf_v8_bytes4(walk, at);
	if (sf_v8_is_push_and_enter(bytes))
		return SF_V8_CALLED;
	if (sf_v8_is_enter(bytes) && sf_v8_byte(walk, at - 1) == 0x55)
		return SF_V8_PUSHED;
	if ((bytes & 0xff) == 0xc3 || (bytes & 0xff) == 0xc2)
		return SF_V8_LEFT;

	/* cmp with a byte, of any register; jg over the ret, near or far; and what comes after. */
	if ((bytes & 0xf8fffe) == 0xf88348)
		bytes = sf_v8_bytes4(walk, at += 4);
	if ((bytes & 0xffffff) == 0xc2037f ||
	    (bytes == 0x00038f0f && (sf_v8_bytes4(walk, at + 4) & 0xff0000) == 0xc20000))
		return SF_V8_LEFT;
	/* pop r8…r15; lea rsp, [rsp + …]; push the same; ret */
	at = SF_V8_CODE + SF_V8_CODE_BEFORE;
	bytes = sf_v8_bytes4(walk, at);
	if ((bytes & 0xf8ff) == 0x5841 && (sf_v8_bytes4(walk, at + 2) & 0xfffffd) == 0x248d48 &&
	    (sf_v8_bytes4(walk, at + 6) & 0xfff8ff) == 0xc35041)
		return SF_V8_LEFT;
	popped = SF_V8_DROPPED;
	if ((bytes & 0xfffffd) == 0x248d48) {
		popped = SF_V8_POPPED;
		bytes = sf_v8_bytes4(walk, at + 4);
	}
	if ((bytes & 0xfff8ff) == 0xc35041)
		return popped | (SF_R8 + ((bytes >> 8) & 7)) << 8;

	/* Before its frame: where its function begins is in rcx. */
	behind_entry = walk->pc - walk->registers[SF_RCX];
	if (!generated || behind_entry >= SF_V8_ENTRY_BYTES)
		return SF_V8_FRAMED;
	begin = SF_V8_CODE + SF_V8_CODE_BEFORE - behind_entry;
	bytes = sf_v8_bytes4(walk, begin);
	/* Baseline: xor ebx, ebx or mov ebx, …; mov r12, bytecode; call of the builtin that makes the frame. */
	if (bytes == 0xbc49db33)
		return behind_entry <= 12 ? SF_V8_CALLED : SF_V8_FRAMED;
	if ((bytes & 0xff) == 0xbb && (sf_v8_bytes4(walk, begin + 5) & 0xffff) == 0xbc49)
		return behind_entry <= 15 ? SF_V8_CALLED : SF_V8_FRAMED;
	for (__u64 i = 0; i < SF_V8_ENTRY_BYTES; i++) {
		if (behind_entry + i >= SF_V8_ENTRY_BYTES + 8)
			break;
		if (sf_v8_is_push_and_enter(sf_v8_bytes4(walk, SF_V8_CODE + SF_V8_CODE_BEFORE + i)))
			return SF_V8_CALLED;
	}
	return SF_V8_FRAMED;
}

static __always_inline __u32 sf_v8_hash(__u64 a, __u64 b)
{
	__u64 hash = (a ^ b * 0xff51afd7ed558ccdULL) * 0x9e3779b97f4a7c15ULL;

	return (hash >> 32) ^ hash;
}

/*
 * Reads a JSFunction and its SharedFunctionInfo into object_bytes. Returns the latter's address, or 0 if this is no
 * function, which is no error: generated code has other frames too.
 */
static __always_inline __u64 sf_v8_read_shared(struct sf_walk *walk, __u64 function)
{
	struct sf_v8 *v8 = &walk->layout.v8;
	__u64 shared, map;
	__u16 type = 0;

	if ((function & SF_V8_TAG_MASK) != SF_V8_TAG)
		return 0;
	if (bpf_probe_read_user(walk->object_bytes, SF_V8_OBJECT_BYTES, (void *)(function - SF_V8_TAG))) {
		walk->script_outcome = SF_SCRIPT_UNREADABLE;
		return 0;
	}
	shared = sf_v8_u64(walk, v8->function_shared);
	if ((shared & SF_V8_TAG_MASK) != SF_V8_TAG)
		return 0;
	shared -= SF_V8_TAG;
	if (bpf_probe_read_user(walk->object_bytes, SF_V8_OBJECT_BYTES, (void *)shared)) {
		walk->script_outcome = SF_SCRIPT_UNREADABLE;
		return 0;
	}
	map = sf_v8_u64(walk, 0);
	if (map != v8->shared_map || !map) {
		if ((map & SF_V8_TAG_MASK) != SF_V8_TAG ||
		    bpf_probe_read_user(&type, sizeof(type),
					(void *)(map - SF_V8_TAG + v8->map_instance_type)) ||
		    type != v8->shared_type)
			return 0;
		v8->shared_map = map;
	}
	return shared;
}

/*
 * Records a frame of a function. `address` is 0 if it is not known. Interpreted code whose frame does not hold
 * bytecode (the trampoline before it has made its frame) is recorded so too. Returns 1 if it was recorded, 2 if the
 * function is a builtin's, 0 if it is none.
 */
__attribute__((noinline)) int sf_v8_record(struct sf_walk *walk, __u64 function, __u64 address, __u64 kind,
					   __u64 flags)
{
	__u64 frame_pointer;
	__u64 shared, script, script_id = 0, bytecode = 0, offset = 0, *hashed;
	struct sf_script_frame *frame;
	__u32 identity, position = 0;
	struct sf_v8 *v8;

	if (!walk)
		return 0;
	v8 = &walk->layout.v8;
	frame_pointer = walk->registers[SF_RBP];
	shared = sf_v8_read_shared(walk, function);
	if (!shared)
		return 0;
	if (!(sf_v8_u64(walk, v8->shared_data) & SF_V8_SMI_MASK))
		return 2;
	if (v8->shared_unique) {
		script_id = sf_v8_u32(walk, v8->shared_unique);
	} else {
		script = sf_v8_u64(walk, v8->shared_script);
		if ((script & SF_V8_TAG_MASK) == SF_V8_TAG &&
		    bpf_probe_read_user(&script_id, sizeof(script_id),
					(void *)(script - SF_V8_TAG + v8->script_id)))
			script_id = 0;
	}
	identity = sf_v8_hash(script_id, sf_v8_u32(walk, v8->shared_literal));
	if (kind == SF_V8_INTERPRETED) {
		if (frame_pointer - walk->registers[SF_RSP] < 40 ||
		    sf_read_stack(&walk->window, frame_pointer - 40, &offset) ||
		    sf_read_stack(&walk->window, frame_pointer - 32, &bytecode) ||
		    (bytecode & SF_V8_TAG_MASK) != SF_V8_TAG || (__u32)offset) {
			kind = SF_V8_COMPILED;
			address = bytecode = offset = flags = 0;
		} else {
			bytecode -= SF_V8_TAG;
		}
		position = offset >> 32;
	} else if (address) {
		hashed = (__u64 *)(walk->object_bytes + SF_V8_HASHED);
		if (!bpf_probe_read_user(hashed, SF_V8_HASHED_BYTES,
					 (void *)(address - SF_V8_HASHED_BYTES / 2)))
			position = sf_v8_hash(hashed[0], hashed[1]);
	}
	frame = sf_add_script(walk);
	if (!frame) {
		walk->script_outcome = SF_SCRIPT_TRUNCATED;
		return 0;
	}
	frame->address = address;
	frame->object = shared;
	frame->other = bytecode;
	frame->position = position;
	frame->identity = identity;
	frame->runtime = SF_RUNTIME_V8;
	frame->kind = kind;
	frame->flags = flags;
	__builtin_memset(frame->reserved, 0, sizeof(frame->reserved));
	sf_see_script(walk, shared, identity);
	return 1;
}

/*
 * Whether the word at rsp is the return address of the builtin at pc: it stands behind a call of that builtin,
 * or, for a handler, in the trampoline. `is_function`: the frame at fp is a function's.
 */
static __always_inline int sf_v8_is_called_from(struct sf_walk *walk, __u64 return_address, __u64 is_handler,
						__u64 is_function)
{
	const struct sf_v8 *v8 = &walk->layout.v8;
	__u64 target;

	if (is_handler)
		return is_function &&
		       return_address - walk->bias - v8->trampoline_begin < v8->trampoline_bytes;
	if (bpf_probe_read_user(walk->object_bytes + SF_V8_CALL, 8, (void *)(return_address - 8)) ||
	    sf_v8_byte(walk, SF_V8_CALL + 3) != 0xe8)
		return 0;
	target = return_address + (__s64)(__s32)sf_v8_u32(walk, SF_V8_CALL + 4);
	return walk->pc - target < SF_V8_MAX_BUILTIN_BYTES &&
	       target - walk->bias - v8->builtins_begin < v8->builtins_end - v8->builtins_begin;
}

/* Leaves by the frame pointer. `is_certain`: what the frame holds is what such a frame has to hold. */
static __always_inline int sf_v8_leave(struct sf_walk *walk, __u64 is_certain)
{
	__u64 frame_pointer = walk->registers[SF_RBP], caller_frame_pointer, pc;

	if (frame_pointer + 16 <= walk->registers[SF_RSP])
		return sf_stop(walk, SF_OUTCOME_STACK_NOT_RISING);
	if (sf_read_stack(&walk->window, frame_pointer, &caller_frame_pointer) ||
	    sf_read_stack(&walk->window, frame_pointer + 8, &pc))
		return sf_stop(walk, SF_OUTCOME_STACK_UNREADABLE);
	if (!pc)
		return sf_stop(walk, SF_OUTCOME_FRAME_POINTER_END);
	walk->last_was_frame_pointer = !is_certain;
	walk->passed_jit |= !is_certain;
	return sf_enter_caller(walk, pc, frame_pointer + 8, frame_pointer + 16, caller_frame_pointer,
			       SF_REGISTER_BIT(SF_RSP) | SF_REGISTER_BIT(SF_RBP));
}

/* Leaves code without a frame: the return address is at `slot`. */
static __always_inline int sf_v8_return(struct sf_walk *walk, __u64 pc, __u64 slot, __u64 frame_pointer)
{
	if (!pc)
		return sf_stop(walk, SF_OUTCOME_FRAME_POINTER_END);
	walk->last_was_frame_pointer = 0;
	return sf_enter_caller(walk, pc, slot, slot + 8, frame_pointer,
			       SF_REGISTER_BIT(SF_RSP) | SF_REGISTER_BIT(SF_RBP));
}

/* walk->layout.v8 says where things are. 0: gone to the caller; 1: the walk is over; SF_STEP_NOT_MINE. */
__attribute__((noinline)) int sf_step_v8(struct sf_walk *walk, struct sf_frames *frames)
{
	__u64 stack_pointer, frame_pointer, address, elf_address, word, flags, function = 0;
	__u64 marker = 0, is_builtin, is_handler, is_interpreter, is_leaf, is_function, return_address;
	const struct sf_v8 *v8;
	int leaf = SF_V8_FRAMED, recorded = 0;

	if (!walk || !frames)
		return SF_STEP_NOT_MINE;
	v8 = &walk->layout.v8;
	stack_pointer = walk->registers[SF_RSP];
	frame_pointer = walk->registers[SF_RBP];
	address = walk->pc - walk->pc_is_return;
	elf_address = address - walk->bias;
	is_builtin = walk->kind != SF_MAPPING_JIT;
	is_handler = is_builtin && elf_address >= v8->handlers_begin;
	is_interpreter =
		is_handler || (is_builtin && elf_address - v8->trampoline_begin < v8->trampoline_bytes);
	is_leaf = !walk->pc_is_return;
	flags = is_leaf ? SF_SCRIPT_LEAF : 0;
	word = is_builtin ? ((__u64)walk->object << SF_FRAME_OBJECT_SHIFT) |
				    (elf_address & SF_FRAME_ADDRESS_MASK)
			  : address & SF_FRAME_ADDRESS_MASK;
	if (!(walk->known & SF_REGISTER_BIT(SF_RBP))) {
		sf_push_frame(walk, frames, word);
		return sf_stop(walk, SF_OUTCOME_REGISTER_LOST);
	}

	if (is_leaf)
		leaf = sf_v8_leaf(walk, !is_builtin);
	if (leaf != SF_V8_FRAMED) {
		__u64 slot = stack_pointer;

		if (leaf == SF_V8_PUSHED) {
			if (sf_read_stack(&walk->window, slot, &frame_pointer))
				goto unreadable;
			slot += 8;
		}
		if (sf_read_stack(&walk->window, slot, &return_address))
			goto unreadable;
		function = walk->registers[SF_RDI];
		if (leaf >> 8) {
			__u64 number = (__u32)leaf >> 8;

			SF_OPAQUE(number);
			return_address = walk->registers[number & 15];
			slot -= 8;
			leaf &= 0xff;
		}
		if (leaf >= SF_V8_LEFT && (is_builtin || leaf == SF_V8_DROPPED ||
					   sf_read_stack(&walk->window, slot - 24, &function)))
			function = 0;
		if (!is_builtin)
			recorded = sf_v8_record(walk, function, address, SF_V8_COMPILED, flags);
		if (recorded == 1)
			word = sf_word_of_script(walk);
		if (!is_handler)
			sf_push_frame(walk, frames, word);
		return sf_v8_return(walk, return_address, slot, frame_pointer);
	}

	if (sf_read_stack(&walk->window, frame_pointer - 8, &marker) ||
	    sf_read_stack(&walk->window, frame_pointer - 16, &function)) {
	unreadable:
		sf_push_frame(walk, frames, word);
		return sf_stop(walk, SF_OUTCOME_STACK_UNREADABLE);
	}
	is_function = (marker & SF_V8_TAG_MASK) == SF_V8_TAG;
	/* A frame that is being made: the function is not in it yet. */
	if (is_leaf && (!is_builtin || (is_interpreter && !is_handler)) &&
	    frame_pointer - stack_pointer < 16 && sf_v8_byte(walk, SF_V8_CODE + SF_V8_CODE_BEFORE) != 0x5d) {
		is_function = 1;
		function = walk->registers[SF_RDI];
	}

	if (is_leaf && is_builtin) {
		if (!sf_read_stack(&walk->window, stack_pointer, &return_address) &&
		    sf_v8_is_called_from(walk, return_address, is_handler, is_function)) {
			if (!is_handler)
				sf_push_frame(walk, frames, word);
			return sf_v8_return(walk, return_address, stack_pointer, frame_pointer);
		}
	}

	if (!is_function) {
		/* Markers are small numbers, shifted by one. */
		if (!is_handler)
			sf_push_frame(walk, frames, word);
		return sf_v8_leave(walk, marker < 256 && !(marker & SF_V8_SMI_MASK));
	}
	if (is_interpreter) {
		recorded = sf_v8_record(walk, function, address, SF_V8_INTERPRETED, flags);
	} else if (!is_builtin) {
		recorded = sf_v8_record(walk, function, address, SF_V8_COMPILED, flags);
	} else if (is_leaf) {
		/* Its own frame, or that of the function that called it, which is somewhere then. */
		sf_push_frame(walk, frames, word);
		recorded = sf_v8_record(walk, function, 0, SF_V8_COMPILED, 0);
		if (recorded == 1)
			sf_push_frame(walk, frames, sf_word_of_script(walk));
		return sf_v8_leave(walk, recorded);
	}
	sf_push_frame(walk, frames, recorded == 1 ? sf_word_of_script(walk) : word);
	return sf_v8_leave(walk, recorded || is_builtin);
}

#endif /* SF_UNWIND_V8_H */
