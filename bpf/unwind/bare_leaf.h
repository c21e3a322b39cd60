/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The caller of a leaf that no rule covers: a function in assembly without call-frame information, in an object that
 * otherwise has it (SpinPause of libjvm, which collectors' threads are in while they wait). Included by native.h.
 *
 * Such a function often makes no frame at all; then its return address is on top of the stack. That is believed only
 * where a `call rel32` stands before the address and leads to code shortly before the pc that no rule covers either:
 * what a function has pushed or left there of its own calls does not. Unknown is better than wrong, so everything
 * else is left as it is: calls through the PLT or a register, functions that have pushed something.
 */
#ifndef SF_UNWIND_BARE_LEAF_H
#define SF_UNWIND_BARE_LEAF_H

/* How far before the pc such a function may begin. */
#define SF_BARE_LEAF_BYTES 4096

/* Whether a rule of the current object covers an ELF address. */
static __always_inline int sf_is_covered(struct sf_walk *walk, __u64 elf_address)
{
	int rule_number = sf_find_rule(walk, elf_address);
	const struct sf_page *page;

	if (rule_number < 0)
		return 0;
	page = sf_page_at(walk->rules_page + (__u32)rule_number / SF_RULES_PER_PAGE);
	if (!page)
		return 0;
	return ((const struct sf_unwind_rule *)page + (__u32)rule_number % SF_RULES_PER_PAGE)->cfa !=
	       SF_CFA_NONE;
}

/* Goes from a leaf that no rule covers, and that is recorded, to its caller, if that is certain. 1 ends the walk. */
__attribute__((noinline)) int sf_step_bare_leaf(struct sf_walk *walk)
{
	__u64 slot, caller, target;

	if (!walk)
		return 1;
	slot = walk->registers[SF_RSP];
	/* The call's five bytes, of which the last four are aligned in a read of eight. */
	if (sf_read_stack(&walk->window, slot, &caller) ||
	    bpf_probe_read_user(walk->object_bytes, 8, (void *)(caller - 8)) || walk->object_bytes[3] != 0xe8)
		return sf_stop(walk, SF_OUTCOME_NO_RULE);
	target = caller + *(const __s32 *)&walk->object_bytes[4];
	if (walk->pc - target > SF_BARE_LEAF_BYTES || target - walk->mapping_begin >= walk->mapping_bytes ||
	    sf_is_covered(walk, target - walk->bias))
		return sf_stop(walk, SF_OUTCOME_NO_RULE);
	/* A call between its target and the pc would be the leaf's own: a function that calls itself is none. */
	if (caller - target <= walk->pc - target)
		return sf_stop(walk, SF_OUTCOME_NO_RULE);
	/* Only executable mappings are known, and no code in `[uprobes]` calls anything. */
	if (!sf_enter_mapping(walk, caller - 1) || walk->kind == SF_MAPPING_UPROBES)
		return sf_stop(walk, SF_OUTCOME_NO_RULE);
	walk->last_was_frame_pointer = 0;
	return sf_enter_caller(
		walk, caller, slot, slot + 8, walk->registers[SF_RBP],
		walk->known & (SF_REGISTER_BIT(SF_RSP) | SF_REGISTER_BIT(SF_RBP) | SF_REGISTER_BIT(SF_RBX)));
}

#endif /* SF_UNWIND_BARE_LEAF_H */
