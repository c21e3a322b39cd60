/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Walks the stack of compiled code: x86-64, System V ABI.
 *
 * A walk goes frame by frame. For each it finds the mapping that holds the pc, in the mapping's object
 * the rule for that pc, applies the rule to the registers known so far, and gets the caller's pc, sp
 * and rbp. The caller's pc is a return address, and the call may be the last instruction of its
 * function, so everything about a caller is looked up one byte before it. The exceptions are the
 * leaf and a frame that a signal interrupted: there pc is the next instruction itself.
 *
 * Registers: all sixteen are known in the leaf and in a frame interrupted by a signal. Of the others
 * only rsp and, as far as the rules tell, rbp and rbx survive to the caller; `known` has a bit for
 * each. A rule that needs an unknown one ends the walk; nothing is guessed.
 *
 * Cost: most frames have rules of the same plain form, which are remembered (rule_cache.h), and a stack
 * that is read a stretch at a time (stack_window.h). sf_walk_plain_frames goes through such frames in a
 * tight loop without any helper call; whatever it does not like goes through sf_step, which knows every
 * case. The mapping and its object are kept from frame to frame.
 *
 * Code that a runtime generated goes through runtime.h first, which knows its frames if the process is known
 * to have that runtime; else it is expected to keep frame pointers. So is the code of programs that are built with
 * those instead of unwind tables (symbols/src/unwind/frame_pointers.rs).
 *
 * Needs from whoever includes it: the maps `slabs`, `objects` and `rule_cache` and those of runtime_maps.h,
 * bpf_map_lookup_elem, bpf_loop, bpf_probe_read_user, and the two functions of uprobe.h that are declared below.
 *
 * Known gaps: compat (32-bit) code; callee-saved registers other than rbp and rbx in the CFA of a
 * frame that is not the leaf; of code that is expected to keep frame pointers, a leaf function that does not: its
 * caller is skipped (of one that does, prologue and epilogue are read); code that nothing describes in an object whose
 * other code is described, but for leaves without a frame (bare_leaf.h).
 */
#ifndef SF_UNWIND_NATIVE_H
#define SF_UNWIND_NATIVE_H

#include "../spanflame.h"
#include "pages.h"
#include "rule_cache.h"
#include "stack_window.h"

#define SF_KNOWN_ALL 0xffff
#define SF_REGISTER_BIT(number) (1U << (number))

/* Words of the ucontext's general registers, in the order of asm/sigcontext.h (struct sigcontext_64). */
#define SF_SIGNAL_WORDS 17
/* uc_flags, uc_link and uc_stack stand before them. */
#define SF_SIGNAL_OFFSET 40

/*
 * A frame takes a round, one more if it is the first of its mapping, and one more if it is the first of generated code.
 * A few pending uretprobes in one stack must not cost frames.
 */
#define SF_MAX_STEPS (3 * SF_MAX_USER_FRAMES + 64)

/*
 * Frames that sf_walk_plain_frames goes through in one call. More make no walk faster, but the verifier
 * looks at each: with 32 of them loading takes 0.2 s longer.
 */
#define SF_PLAIN_STEPS 8

/* Room for what is read of a runtime's object at once. */
#define SF_OBJECT_BYTES 512

/* What hotspot.h has read of a method's class. */
struct sf_hotspot_class {
	__u64 constants; /* the method's ConstantPool, which leads there; 0: nothing was read */
	__u64 holder;
	__u64 name;
	__u64 symbol; /* first word of what `name` points to, as far as it stays the same */
};

/* A walk in progress. Lives in a map value: it is too large for the BPF stack. */
struct sf_walk {
	__u64 pc;
	__u64 pc_is_return; /* 1: pc is a return address, the frame's own instruction lies before it */
	__u64 in_syscall;   /* 1: pc is the leaf's and stands after its `syscall` instruction */
	__u64 pc_slot;      /* stack address that pc was read from; 0: from a register */
	__u64 registers[16];
	__u64 known;                  /* bit mask of the registers whose value is known */
	__u64 last_was_frame_pointer; /* 1: this frame was reached through a frame pointer in JIT code */
	__u64 passed_jit;             /* 1: some frame so far was */

	/* The mapping of the frame before, and its object: frames of one object come in runs. */
	__u64 mapping_begin;
	__u64 mapping_bytes; /* 0: none */
	__u64 bias;
	__u64 text_begin;
	__u32 kind;
	__u32 object;
	__u32 chunks;
	__u32 directory_page;
	__u32 rules_page;
	__u32 leaf_page;
	__u32 object_flags;
	__u32 object_state;
	__u32 object_generation;

	__u32 mapping_page; /* the process's mapping table */
	__u32 mappings;
	__u32 process_flags;

	/* What comes out. */
	__u32 outcome;    /* enum sf_outcome */
	__u64 stopped_at; /* process address; 0 if complete */
	__u64 frames;     /* words written */

	/* Object id where a frame's word has it, if its rules may be remembered; else 0. */
	__u64 remembered;

	__u64 zero; /* never written: a 0 whose value the verifier does not know, see pages.h */

	__u64 uprobe_cursor; /* used by uprobe.h: next pending uretprobe to look at */
	__u64 uprobe_slot;
	__u64 uprobe_address;

	__u64 signal_words[SF_SIGNAL_WORDS];

	struct sf_stack_window window;

	/* For the unwinders of runtimes. */
	__u32 owner;          /* tgid: the process's key in the maps of runtimes */
	__u32 script_frames;  /* entries of `scripts` */
	__u32 aside_frame;    /* first of them that no word of the user frames stands for */
	__u32 runtime;        /* enum sf_runtime whose frames were looked for */
	__u32 script_outcome; /* enum sf_script_outcome */
	__u32 layout_of; /* enum sf_runtime: which of the layouts is set; SF_RUNTIMES: not looked up yet */
	__u32 has_new_script; /* 1: user space has not seen some object of `scripts` yet */
	__u32 next;           /* enum sf_next */
	__u64 thread_pointer; /* fs base of the thread */
	union {
		struct sf_v8 v8;
		struct sf_hotspot hotspot;
		struct sf_python python;
	} layout;
	struct sf_hotspot_class method_class; /* of the method that hotspot.h has read last */
	__u64 file_name;                      /* that python.h has read last; 0: none */
	__u64 file_name_hash;
	unsigned char object_bytes[SF_OBJECT_BYTES] __attribute__((aligned(8))); /* an object of a runtime */
	struct sf_script_frame scripts[SF_MAX_SCRIPT_FRAMES];
};

/* What the next round of a walk does. */
enum sf_next {
	SF_NEXT_FRAME = 0,
	SF_NEXT_GENERATED = 1, /* the frame is of code that a runtime has generated */
	SF_NEXT_BARE_LEAF = 2, /* the frame is recorded; it is a leaf that no rule covers */
};

/* Where the frames go. */
struct sf_frames {
	__u64 words[SF_MAX_USER_FRAMES];
};

struct sf_walk_context {
	struct sf_walk *walk;
	struct sf_frames *frames;
};

static __u64 sf_true_return_address(struct sf_walk *walk);
static int sf_in_uprobe_area(__u64 pc);

/* Takes the registers of a pt_regs of whatever type, which a function could not. */
#define SF_TAKE_REGISTERS(walk, regs)                \
	do {                                         \
		(walk)->registers[0] = (regs)->ax;   \
		(walk)->registers[1] = (regs)->dx;   \
		(walk)->registers[2] = (regs)->cx;   \
		(walk)->registers[3] = (regs)->bx;   \
		(walk)->registers[4] = (regs)->si;   \
		(walk)->registers[5] = (regs)->di;   \
		(walk)->registers[6] = (regs)->bp;   \
		(walk)->registers[7] = (regs)->sp;   \
		(walk)->registers[8] = (regs)->r8;   \
		(walk)->registers[9] = (regs)->r9;   \
		(walk)->registers[10] = (regs)->r10; \
		(walk)->registers[11] = (regs)->r11; \
		(walk)->registers[12] = (regs)->r12; \
		(walk)->registers[13] = (regs)->r13; \
		(walk)->registers[14] = (regs)->r14; \
		(walk)->registers[15] = (regs)->r15; \
		(walk)->pc = (regs)->ip;             \
		(walk)->known = SF_KNOWN_ALL;        \
	} while (0)

static __always_inline long sf_stop(struct sf_walk *walk, __u32 outcome)
{
	walk->outcome = outcome;
	walk->stopped_at = outcome == SF_OUTCOME_COMPLETE ? 0 : walk->pc;
	return 1;
}

/* Appends a frame. The walk ends by itself when there is no room left. */
static __always_inline void sf_push_frame(struct sf_walk *walk, struct sf_frames *frames, __u64 word)
{
	__u64 index = walk->frames;

	if (index < SF_MAX_USER_FRAMES) {
		frames->words[index] = word;
		walk->frames = index + 1;
	}
}

/*
 * Makes the mapping of `address` and its object the current ones. 0 if no mapping is known.
 *
 * This and the next one are global functions, which the verifier checks once and on their own: inlined
 * they would be checked again for each way that leads to them.
 */
__attribute__((noinline)) int sf_enter_mapping(struct sf_walk *walk, __u64 address)
{
	const struct sf_mapping *mapping;
	const struct sf_object *object;
	__u32 object_id;
	__u64 state;

	if (!walk)
		return 0;
	walk->mapping_bytes = 0;
	walk->remembered = 0;
	mapping = sf_search_mappings(walk->mapping_page, walk->mappings, address, walk->zero);
	if (!mapping)
		return 0;
	walk->kind = mapping->kind;
	walk->mapping_begin = mapping->begin;
	walk->bias = mapping->bias;
	object_id = mapping->object;
	walk->object = object_id;
	walk->object_state = SF_OBJECT_FREE;
	if (mapping->kind == SF_MAPPING_OBJECT) {
		object = bpf_map_lookup_elem(&objects, &object_id);
		if (!object)
			return 0;
		state = *(volatile const __u64 *)&object->state;
		walk->object_state = (__u16)state;
		walk->object_flags = (__u16)(state >> 16);
		walk->object_generation = state >> 32;
		walk->text_begin = *(volatile const __u64 *)&object->text_begin;
		walk->chunks = *(volatile const __u32 *)&object->chunks;
		walk->directory_page = *(volatile const __u32 *)&object->directory_page;
		walk->rules_page = *(volatile const __u32 *)&object->rules_page;
		walk->leaf_page = *(volatile const __u32 *)&object->leaf_page;
		/* A table that changes meanwhile must not be taken for the generation before. */
		if (*(volatile const __u64 *)&object->state != state)
			walk->object_state = SF_OBJECT_PENDING;
		if (walk->object_state == SF_OBJECT_READY && !(walk->object_flags & SF_OBJECT_TRACKS_RBX) &&
		    ((mapping->begin - mapping->bias) | (mapping->end - mapping->bias)) >>
				    SF_CACHED_ADDRESS_BITS ==
			    0)
			walk->remembered = (__u64)object_id << SF_FRAME_OBJECT_SHIFT;
	}
	walk->mapping_bytes = mapping->end - mapping->begin;
	return 1;
}

/* The number of the current object's rule for an ELF address; negative if it covers no such address. */
__attribute__((noinline)) int sf_find_rule(struct sf_walk *walk, __u64 address)
{
	const struct sf_directory_entry *entry;
	const struct sf_page *page;
	__u64 chunk, row, first, count;

	if (!walk)
		return -1;
	chunk = (address - walk->text_begin) >> SF_CHUNK_BITS;
	if (chunk >= walk->chunks)
		return -1;
	page = sf_page_at(walk->directory_page + chunk / SF_DIRECTORY_PER_PAGE);
	if (!page)
		return -1;
	entry = (const struct sf_directory_entry *)page + chunk % SF_DIRECTORY_PER_PAGE;
	first = entry->first;
	count = entry->count;
	if (!count)
		return -1;

	page = sf_page_at(walk->leaf_page + entry->leaf);
	if (!page)
		return -1;
	row = sf_search_rows((const struct sf_leaf *)page, first, count, address & ((1 << SF_CHUNK_BITS) - 1),
			     walk->zero);
	row &= SF_LEAF_ROWS - 1;
	SF_OPAQUE(row);
	return ((const struct sf_leaf *)page)->rule[row];
}

/*
 * Goes from caller to caller as long as the next frame is of the current object, has a plain rule that
 * is remembered, and nothing about it is out of the ordinary; at most SF_PLAIN_STEPS frames. Whatever
 * ends it is left to sf_step, which begins that frame anew and knows all cases. Returns the frames it
 * went through; negative if the outermost was among them and the walk is over.
 */
__attribute__((noinline)) int sf_walk_plain_frames(struct sf_walk *walk, struct sf_frames *frames)
{
	__u64 pc, stack_pointer, frame_pointer, frame_pointer_known, count, address, elf_address;
	__u64 key, rule, cfa, caller_pc, saved_words, word, index;
	struct sf_rule_cache *cache;
	__u32 cpu;
	int step;

	if (!walk || !frames || !walk->remembered)
		return 0;
	cpu = bpf_get_smp_processor_id();
	cache = bpf_map_lookup_elem(&rule_cache, &cpu);
	if (!cache)
		return 0;
	pc = walk->pc;
	stack_pointer = walk->registers[SF_RSP];
	frame_pointer = walk->registers[SF_RBP];
	frame_pointer_known = walk->known & SF_REGISTER_BIT(SF_RBP);
	count = walk->frames;

	for (step = 0; step < SF_PLAIN_STEPS; step++) {
		address = pc - walk->pc_is_return;
		if (address - walk->mapping_begin >= walk->mapping_bytes || count >= SF_MAX_USER_FRAMES)
			break;
		elf_address = address - walk->bias;
		key = sf_cached_key(walk->remembered, elf_address);
		rule = sf_find_cached_rule(sf_cached_rules(cache, key),
					   sf_cached_tag(key, walk->object_generation));
		if (!rule)
			break;
		word = walk->remembered | ((elf_address - walk->in_syscall) & SF_FRAME_ADDRESS_MASK);
		if (rule & SF_PLAIN_END) {
			index = count;
			SF_OPAQUE(index);
			frames->words[index & (SF_MAX_USER_FRAMES - 1)] = word;
			walk->frames = count + 1;
			walk->pc = pc;
			sf_stop(walk, SF_OUTCOME_COMPLETE);
			return -1;
		}

		cfa = stack_pointer;
		if (rule & SF_PLAIN_BY_RBP) {
			if (!frame_pointer_known)
				break;
			cfa = frame_pointer;
		}
		cfa += (rule & SF_PLAIN_CFA_MAX) << 3;
		if (cfa <= stack_pointer)
			break;
		/* Lower addresses first, so that they are fetched together. */
		saved_words = (rule >> SF_PLAIN_RBP_SHIFT) & SF_PLAIN_RBP_MAX;
		if (saved_words) {
			__u64 caller_frame_pointer;

			if (sf_read_stack(&walk->window, cfa - (saved_words << 3), &caller_frame_pointer) ||
			    sf_read_stack(&walk->window, cfa - 8, &caller_pc) || !caller_pc)
				break;
			frame_pointer = caller_frame_pointer;
			frame_pointer_known = SF_REGISTER_BIT(SF_RBP);
		} else {
			if (sf_read_stack(&walk->window, cfa - 8, &caller_pc) || !caller_pc)
				break;
			if (rule & SF_PLAIN_RBP_LOST)
				frame_pointer_known = 0;
		}

		index = count;
		SF_OPAQUE(index);
		frames->words[index & (SF_MAX_USER_FRAMES - 1)] = word;
		count++;
		walk->pc_is_return = 1;
		walk->in_syscall = 0;
		pc = caller_pc;
		stack_pointer = cfa;
	}
	if (step) {
		walk->pc = pc;
		walk->pc_slot = stack_pointer - 8;
		walk->registers[SF_RSP] = stack_pointer;
		walk->registers[SF_RBP] = frame_pointer;
		walk->known = SF_REGISTER_BIT(SF_RSP) | frame_pointer_known;
		walk->frames = count;
		walk->last_was_frame_pointer = 0;
	}
	return step;
}

/* Remembers the rule of a frame of the current object. */
static __always_inline void sf_remember_rule(const struct sf_walk *walk, __u64 elf_address,
					     const struct sf_unwind_rule *rule)
{
	__u64 key = sf_cached_key(walk->remembered, elf_address), plain = sf_plain_rule(rule);
	__u32 cpu = bpf_get_smp_processor_id();
	struct sf_rule_cache *cache;

	if (!walk->remembered || !plain)
		return;
	cache = bpf_map_lookup_elem(&rule_cache, &cpu);
	if (cache)
		sf_cache_rule(sf_cached_rules(cache, key), sf_cached_tag(key, walk->object_generation),
			      plain);
}

/* Goes to the caller. Everything about the frame that is left must have been read before. */
static __always_inline long sf_enter_caller(struct sf_walk *walk, __u64 pc, __u64 pc_slot, __u64 cfa,
					    __u64 frame_pointer, __u64 known)
{
	walk->pc = pc;
	walk->pc_slot = pc_slot;
	walk->pc_is_return = 1;
	walk->in_syscall = 0;
	walk->registers[SF_RSP] = cfa;
	walk->registers[SF_RBP] = frame_pointer;
	walk->known = known;
	return 0;
}

/* Ends the walk at code that no rule covers. A leaf's caller may still be told, in a round of its own. */
static __always_inline long sf_leave_uncovered(struct sf_walk *walk)
{
	if (walk->pc_is_return)
		return sf_stop(walk, SF_OUTCOME_NO_RULE);
	walk->next = SF_NEXT_BARE_LEAF;
	return 0;
}

/* That round, and the unwinders of runtimes; they use what stands above. */
#include "bare_leaf.h"
#include "runtime.h"

/* A frame that begins with push rbp; mov rbp, rsp. `in_jit`: nothing but hope says that it does. */
static __always_inline long sf_step_by_frame_pointer(struct sf_walk *walk, __u64 in_jit)
{
	__u64 frame_pointer = walk->registers[SF_RBP], caller_frame_pointer, pc;

	if (!(walk->known & SF_REGISTER_BIT(SF_RBP)))
		return sf_stop(walk, SF_OUTCOME_REGISTER_LOST);
	/* A zero rbp marks the outermost frame (System V ABI 3.4.1), but a JIT need not keep to it. */
	if (!frame_pointer)
		return sf_stop(walk, SF_OUTCOME_FRAME_POINTER_END);
	/* A rule says so where Go changes stacks, and the other one may lie lower. */
	if (in_jit && frame_pointer + 16 <= walk->registers[SF_RSP])
		return sf_stop(walk, SF_OUTCOME_STACK_NOT_RISING);
	if (sf_read_stack(&walk->window, frame_pointer, &caller_frame_pointer) ||
	    sf_read_stack(&walk->window, frame_pointer + 8, &pc))
		return sf_stop(walk, SF_OUTCOME_STACK_UNREADABLE);
	if (!pc)
		return sf_stop(walk, SF_OUTCOME_FRAME_POINTER_END);
	walk->last_was_frame_pointer = in_jit;
	walk->passed_jit |= in_jit;
	return sf_enter_caller(walk, pc, frame_pointer + 8, frame_pointer + 16, caller_frame_pointer,
			       SF_REGISTER_BIT(SF_RSP) | SF_REGISTER_BIT(SF_RBP));
}

/* The trampoline that a signal handler returns to: the interrupted registers lie on the stack. */
static __always_inline long sf_step_over_signal(struct sf_walk *walk)
{
	__u64 *words = walk->signal_words;
	__u64 address = walk->registers[SF_RSP] + SF_SIGNAL_OFFSET;

	if (bpf_probe_read_user(words, sizeof(walk->signal_words), (void *)address))
		return sf_stop(walk, SF_OUTCOME_STACK_UNREADABLE);
	for (int i = 0; i < 8; i++)
		walk->registers[SF_R8 + i] = words[i];
	walk->registers[SF_RDI] = words[8];
	walk->registers[SF_RSI] = words[9];
	walk->registers[SF_RBP] = words[10];
	walk->registers[SF_RBX] = words[11];
	walk->registers[SF_RDX] = words[12];
	walk->registers[SF_RAX] = words[13];
	walk->registers[SF_RCX] = words[14];
	/* The handler may have run on a stack of its own, so rsp may fall here. */
	walk->registers[SF_RSP] = words[15];
	walk->pc = words[16];
	walk->pc_slot = 0;
	walk->pc_is_return = 0;
	walk->in_syscall = 0;
	walk->known = SF_KNOWN_ALL;
	return 0;
}

/* Applies a rule with a CFA to the registers. */
static __always_inline long sf_step_by_rule(struct sf_walk *walk, const struct sf_unwind_rule *rule)
{
	__u64 stack_pointer = walk->registers[SF_RSP], frame_pointer = walk->registers[SF_RBP];
	__u64 known = walk->known, caller_known = SF_REGISTER_BIT(SF_RSP),
	      caller_rbx = walk->registers[SF_RBX];
	__u64 cfa, pc, pc_slot, number;
	__u32 cfa_kind = rule->cfa, saved_fp = rule->frame_pointer, return_address = rule->return_address;
	__s64 fp_offset = rule->fp_offset, rbx_offset = rule->rbx_offset;

	if (cfa_kind == SF_CFA_PLT) {
		cfa = stack_pointer + rule->cfa_offset;
		if ((walk->pc & 15) >= (__u32)rule->cfa_addend)
			cfa += 8;
	} else {
		number = rule->cfa_register & 15;
		if (!((known >> number) & 1))
			return sf_stop(walk, SF_OUTCOME_REGISTER_LOST);
		SF_OPAQUE(number);
		number &= 15;
		cfa = walk->registers[number] + rule->cfa_offset;
		if (cfa_kind == SF_CFA_DEREF) {
			if (sf_read_stack(&walk->window, cfa, &cfa))
				return sf_stop(walk, SF_OUTCOME_STACK_UNREADABLE);
			cfa += rule->cfa_addend;
		}
	}
	if ((return_address & 15) == SF_RA_AT_CFA) {
		/* The return address was pushed below the CFA, so a frame is at least eight bytes. */
		if (cfa <= stack_pointer)
			return sf_stop(walk, SF_OUTCOME_STACK_NOT_RISING);
	} else if (cfa < stack_pointer) {
		return sf_stop(walk, SF_OUTCOME_STACK_NOT_RISING);
	}

	/* Saved registers lie below the return address: lower addresses first fit one window. */
	if (walk->object_flags & SF_OBJECT_TRACKS_RBX) {
		if (!rbx_offset) {
			caller_known |= known & SF_REGISTER_BIT(SF_RBX);
		} else {
			if (sf_read_stack(&walk->window, cfa + rbx_offset, &caller_rbx))
				return sf_stop(walk, SF_OUTCOME_STACK_UNREADABLE);
			caller_known |= SF_REGISTER_BIT(SF_RBX);
		}
	}
	if (saved_fp == SF_FP_SAME) {
		caller_known |= known & SF_REGISTER_BIT(SF_RBP);
	} else if (saved_fp != SF_FP_UNKNOWN) {
		__u64 slot = cfa + fp_offset;

		if (saved_fp == SF_FP_AT_FP) {
			if (!(known & SF_REGISTER_BIT(SF_RBP)))
				return sf_stop(walk, SF_OUTCOME_REGISTER_LOST);
			slot = frame_pointer + fp_offset;
		}
		if (sf_read_stack(&walk->window, slot, &frame_pointer))
			return sf_stop(walk, SF_OUTCOME_STACK_UNREADABLE);
		caller_known |= SF_REGISTER_BIT(SF_RBP);
	}
	if ((return_address & 15) == SF_RA_AT_CFA) {
		pc_slot = cfa - 8;
		if (sf_read_stack(&walk->window, pc_slot, &pc))
			return sf_stop(walk, SF_OUTCOME_STACK_UNREADABLE);
	} else {
		number = (return_address >> 4) & 15;
		if (!((known >> number) & 1))
			return sf_stop(walk, SF_OUTCOME_REGISTER_LOST);
		SF_OPAQUE(number);
		number &= 15;
		pc_slot = 0;
		pc = walk->registers[number];
	}
	walk->registers[SF_RBX] = caller_rbx;

	/*
	 * The convention of every unwinder for code that nobody called (makecontext, new threads). But
	 * zeros are also what lies about in memory that is no stack: believed only where nothing before
	 * was taken on trust, and every stack pointer so far could be one.
	 */
	if (!pc)
		return sf_stop(walk, walk->passed_jit || cfa & 7 ? SF_OUTCOME_FRAME_POINTER_END
								 : SF_OUTCOME_COMPLETE);
	walk->last_was_frame_pointer = 0;
	return sf_enter_caller(walk, pc, pc_slot, cfa, frame_pointer, caller_known);
}

/* The word that stands for the frame of the current object at an ELF address. */
static __always_inline __u64 sf_word_of_object(const struct sf_walk *walk, __u64 elf_address)
{
	return ((__u64)walk->object << SF_FRAME_OBJECT_SHIFT) |
	       ((elf_address - walk->in_syscall) & SF_FRAME_ADDRESS_MASK);
}

/* One frame: records it and goes to its caller. 1 ends the walk. */
__attribute__((noinline)) int sf_step(struct sf_walk *walk, struct sf_frames *frames)
{
	const struct sf_unwind_rule *rule;
	const struct sf_page *page;
	__u64 address, elf_address, word;
	__u32 cfa_kind;
	int rule_number, plain_frames;

	if (!walk || !frames)
		return 1;
	if (walk->remembered) {
		plain_frames = sf_walk_plain_frames(walk, frames);
		if (plain_frames < 0)
			return 1;
		if (plain_frames == SF_PLAIN_STEPS)
			return 0;
	}
	address = walk->pc - walk->pc_is_return;
	if (walk->frames >= SF_MAX_USER_FRAMES)
		return sf_stop(walk, SF_OUTCOME_TRUNCATED);

	if (address - walk->mapping_begin >= walk->mapping_bytes) {
		if (sf_enter_mapping(walk, address)) {
			if (walk->remembered)
				return 0; /* perhaps the rule of this frame is */
		} else if (sf_in_uprobe_area(walk->pc)) {
			/*
			 * `[uprobes]` appears without a record of it, so the kernel is asked. And the
			 * trampoline of uretprobes is its first byte, and nobody called it: pc itself
			 * counts.
			 */
			walk->kind = SF_MAPPING_UPROBES;
		} else {
			if (walk->last_was_frame_pointer)
				return sf_stop(walk, SF_OUTCOME_FRAME_POINTER_END);
			sf_push_frame(walk, frames, address & SF_FRAME_ADDRESS_MASK);
			return sf_stop(walk, walk->process_flags & SF_PROCESS_KNOWN
						     ? SF_OUTCOME_UNKNOWN_MAPPING
						     : SF_OUTCOME_UNKNOWN_PROCESS);
		}
	}

	if (walk->kind == SF_MAPPING_JIT) {
		walk->next = SF_NEXT_GENERATED;
		return 0;
	}
	if (walk->kind == SF_MAPPING_UPROBES) {
		__u64 true_pc = sf_true_return_address(walk);

		walk->mapping_bytes = 0;
		if (!true_pc) {
			sf_push_frame(walk, frames, walk->pc & SF_FRAME_ADDRESS_MASK);
			return sf_stop(walk, SF_OUTCOME_UPROBE_RETURN);
		}
		walk->pc = true_pc;
		return 0;
	}

	elf_address = address - walk->bias;
	word = sf_word_of_object(walk, elf_address);
	if (walk->object_state != SF_OBJECT_READY) {
		sf_push_frame(walk, frames, word);
		if (walk->object_state == SF_OBJECT_PENDING)
			return sf_stop(walk, SF_OUTCOME_TABLE_PENDING);
		if (walk->object_state == SF_OBJECT_NO_INFO)
			return sf_stop(walk, SF_OUTCOME_NO_TABLE);
		return sf_stop(walk, SF_OUTCOME_UNKNOWN_MAPPING);
	}

	rule_number = sf_find_rule(walk, elf_address);
	page = rule_number < 0 ? NULL : sf_page_at(walk->rules_page + (__u32)rule_number / SF_RULES_PER_PAGE);
	if (!page) {
		sf_push_frame(walk, frames, word);
		return sf_leave_uncovered(walk);
	}
	rule = (const struct sf_unwind_rule *)page + (__u32)rule_number % SF_RULES_PER_PAGE;
	sf_remember_rule(walk, elf_address, rule);
	cfa_kind = rule->cfa;
	if (cfa_kind == SF_CFA_RUNTIME) {
		walk->next = SF_NEXT_GENERATED;
		return 0;
	}
	if (cfa_kind == SF_CFA_SIGNAL) {
		/* Nobody called the trampoline: its return address is its own first byte. */
		sf_push_frame(walk, frames, word + walk->pc_is_return);
		return sf_step_over_signal(walk);
	}
	sf_push_frame(walk, frames, word);
	if (cfa_kind == SF_CFA_REGISTER || cfa_kind == SF_CFA_DEREF || cfa_kind == SF_CFA_PLT)
		return sf_step_by_rule(walk, rule);
	if (cfa_kind == SF_CFA_FRAME_POINTER)
		return sf_step_by_frame_pointer(walk, 0);
	if (cfa_kind == SF_CFA_END)
		return sf_stop(walk, SF_OUTCOME_COMPLETE);
	if (cfa_kind == SF_CFA_NONE)
		return sf_leave_uncovered(walk);
	return sf_stop(walk, SF_OUTCOME_UNSUPPORTED_RULE);
}

/*
 * Where the instructions around the pc say that a leaf has no frame yet or no more: the slot of its return address.
 * 0: they do not, or cannot be read.
 */
static __always_inline __u64 sf_slot_of_frameless_leaf(struct sf_walk *walk)
{
	__u64 before, code;

	if (bpf_probe_read_user(walk->object_bytes, 16, (void *)(walk->pc - 8)))
		return 0;
	before = ((const __u64 *)walk->object_bytes)[0];
	code = ((const __u64 *)walk->object_bytes)[1];
	if ((code & 0xffffffff) == 0xfa1e0ff3) /* endbr64 */
		code >>= 32;
	if ((code & 0xff) == 0xc3 || (code & 0xff) == 0xc2) /* ret; ret n */
		return walk->registers[SF_RSP];
	if ((code & 0xffffffff) == 0xe5894855 ||
	    (code & 0xffffffff) == 0xec8b4855) /* push rbp; mov rbp, rsp */
		return walk->registers[SF_RSP];
	if (before >> 56 == 0x55 && ((code & 0xffffff) == 0xe58948 || (code & 0xffffff) == 0xec8b48))
		return walk->registers[SF_RSP] + 8;
	/* pop rbp (not pop r13), and a call in place of a return: jmp n; jmp r; jmp [r + n]; or vzeroupper. */
	if (before >> 56 == 0x5d && (before >> 48 & 0xff) != 0x41 &&
	    ((code & 0xff) == 0xe9 || (code & 0xff) == 0xeb || (code & 0xf0ff) == 0xe0ff ||
	     (code & 0xf8ff) == 0x60ff || (code & 0xf8ff) == 0xa0ff || (code & 0xffffff) == 0x77f8c5))
		return walk->registers[SF_RSP];
	return 0;
}

/* A frame of code of which no more is known than that it may keep a frame pointer. */
__attribute__((noinline)) int sf_step_generated(struct sf_walk *walk, struct sf_frames *frames)
{
	__u64 address, word, slot, frame_pointer, pc;

	if (!walk || !frames)
		return 1;
	address = walk->pc - walk->pc_is_return;
	word = walk->kind == SF_MAPPING_JIT ? address & SF_FRAME_ADDRESS_MASK
					    : sf_word_of_object(walk, address - walk->bias);
	sf_push_frame(walk, frames, word);
	slot = walk->pc_is_return ? 0 : sf_slot_of_frameless_leaf(walk);
	if (!slot)
		return sf_step_by_frame_pointer(walk, 1);
	frame_pointer = walk->registers[SF_RBP];
	if (sf_read_stack(&walk->window, slot, &pc) ||
	    (slot != walk->registers[SF_RSP] &&
	     sf_read_stack(&walk->window, walk->registers[SF_RSP], &frame_pointer)))
		return sf_stop(walk, SF_OUTCOME_STACK_UNREADABLE);
	if (!pc)
		return sf_stop(walk, SF_OUTCOME_FRAME_POINTER_END);
	walk->last_was_frame_pointer = 1;
	walk->passed_jit = 1;
	return sf_enter_caller(walk, pc, slot, slot + 8, frame_pointer,
			       SF_REGISTER_BIT(SF_RSP) | SF_REGISTER_BIT(SF_RBP));
}

/*
 * Callback of bpf_loop; 1 ends the walk. What a runtime's frames take is called from here and not from sf_step, since
 * before Linux 6.13 the stacks of all functions that are called from one another may have 512 bytes together.
 */
static long sf_round(__u32 unused, struct sf_walk_context *context)
{
	struct sf_walk *walk = context->walk;
	__u64 from = walk->pc - walk->pc_is_return, address;
	__u32 next = walk->next;
	int step;

	(void)unused;
	if (next == SF_NEXT_FRAME)
		return sf_step(walk, context->frames) ? 1 : 0; /* as the verifier wants to see it */
	walk->next = SF_NEXT_FRAME;
	if (next == SF_NEXT_BARE_LEAF) {
		step = sf_step_bare_leaf(walk);
	} else {
		step = sf_step_runtime(walk, context->frames);
		if (step == SF_STEP_NOT_MINE)
			step = sf_step_generated(walk, context->frames);
	}
	SF_OPAQUE(step); /* else what the compiler knows of it leaves nothing to compare */
	if (step)
		return 1;
	/* Generated code mostly calls generated code. What sf_step would say of that is known. */
	address = walk->pc - walk->pc_is_return;
	if (address - walk->mapping_begin < walk->mapping_bytes && walk->frames < SF_MAX_USER_FRAMES &&
	    (walk->kind == SF_MAPPING_JIT || (sf_is_builtin(walk, from) && sf_is_builtin(walk, address))))
		walk->next = SF_NEXT_GENERATED;
	return 0;
}

/*
 * Walks from the registers that SF_TAKE_REGISTERS took. The caller has set mapping_page, mappings,
 * process_flags and in_syscall.
 */
static __always_inline void sf_walk_stack(struct sf_walk *walk, struct sf_frames *frames)
{
	struct sf_walk_context context = {.walk = walk, .frames = frames};

	walk->pc_is_return = 0;
	walk->pc_slot = 0;
	walk->last_was_frame_pointer = 0;
	walk->passed_jit = 0;
	walk->mapping_bytes = 0;
	walk->remembered = 0;
	walk->object_flags = 0;
	walk->frames = 0;
	walk->outcome = SF_OUTCOME_TRUNCATED;
	walk->stopped_at = 0;
	walk->window.bytes = 0;
	walk->layout_of = SF_RUNTIMES;
	walk->runtime = SF_RUNTIME_NONE;
	walk->script_outcome = SF_SCRIPT_NONE;
	walk->has_new_script = 0;
	walk->next = SF_NEXT_FRAME;
	bpf_loop(SF_MAX_STEPS, sf_round, &context, 0);
	if (walk->outcome == SF_OUTCOME_TRUNCATED)
		walk->stopped_at = walk->pc;
	walk->aside_frame = walk->script_frames;
	sf_walk_aside(walk);
}

#endif /* SF_UNWIND_NATIVE_H */
