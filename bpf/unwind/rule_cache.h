/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Rules that were found lately, by object and address.
 *
 * A few thousand return addresses make up most stacks of a busy host. What a search for one of them
 * costs is memory: a directory entry, three or four lines of a leaf, a rule, none of which anything
 * else keeps in a processor's cache. Here it is one line. Each CPU has a cache of its own, so that
 * nothing in it is ever seen half written.
 *
 * Four-way set associative, a set a cache line of 64 bytes; what is new replaces the oldest. An entry
 * is the address and the rule in one word each. Only rules of the plainest form fit a word, and those
 * are nearly all: the CFA is rsp or rbp plus some words, the return address lies right below it, and
 * the caller's rbp is untouched, lost, or less than 128 words below the CFA. Or the frame is the
 * outermost. rbx is not told, so objects that track it have no rules here.
 *
 * A word also holds the low 24 bits of the generation of the object's slot. A table that is replaced,
 * or a slot that is used again, thus makes its entries miss without anybody's doing. (An entry would
 * have to stay while its slot changes 16 million times to be taken for a new one.)
 */
#ifndef SF_UNWIND_RULE_CACHE_H
#define SF_UNWIND_RULE_CACHE_H

#include "../vmlinux.h"

#include <bpf/bpf_helpers.h>

#include "../spanflame.h"

#define SF_RULE_CACHE_BITS 11
#define SF_RULE_CACHE_WAYS 4

struct sf_cached_rule {
	__u64 key;  /* object and ELF address, as in a frame's word */
	__u64 rule; /* see below; 0: empty */
};

struct sf_rule_cache {
	struct sf_cached_rule sets[1 << SF_RULE_CACHE_BITS][SF_RULE_CACHE_WAYS];
};

/* A rule's word: 24 bits of generation, and below them … */
#define SF_PLAIN_GENERATION_SHIFT 40
#define SF_PLAIN_VALID (1ULL << 24)
#define SF_PLAIN_BY_RBP (1ULL << 25)   /* the CFA is based on rbp, not on rsp */
#define SF_PLAIN_RBP_LOST (1ULL << 26) /* the caller's rbp is not known */
#define SF_PLAIN_END (1ULL << 27)      /* outermost frame; all other bits are 0 */
#define SF_PLAIN_RBP_SHIFT 16          /* seven bits: words from the CFA down to rbp; 0: untouched */
#define SF_PLAIN_RBP_MAX 0x7f
#define SF_PLAIN_CFA_MAX 0xffff /* sixteen bits: words from the register up to the CFA */

/* What a rule's word is compared by. */
static __always_inline __u64 sf_plain_generation(__u32 generation)
{
	return (__u64)generation << SF_PLAIN_GENERATION_SHIFT;
}

/* The word of a rule, 0 if it is not of the plain form. */
static __always_inline __u64 sf_plain_rule(const struct sf_unwind_rule *rule, __u32 generation)
{
	__u64 word = sf_plain_generation(generation) | SF_PLAIN_VALID;
	__s64 cfa_offset = rule->cfa_offset, fp_offset = rule->fp_offset;

	if (rule->cfa == SF_CFA_END)
		return word | SF_PLAIN_END;
	if (rule->cfa != SF_CFA_REGISTER || rule->return_address != SF_RA_AT_CFA)
		return 0;
	if (rule->cfa_register == SF_RBP)
		word |= SF_PLAIN_BY_RBP;
	else if (rule->cfa_register != SF_RSP)
		return 0;
	if (cfa_offset <= 0 || cfa_offset & 7 || cfa_offset > SF_PLAIN_CFA_MAX * 8)
		return 0;
	word |= cfa_offset >> 3;
	if (rule->frame_pointer == SF_FP_AT_CFA) {
		if (fp_offset >= 0 || fp_offset & 7 || fp_offset < -SF_PLAIN_RBP_MAX * 8)
			return 0;
		word |= (-fp_offset >> 3) << SF_PLAIN_RBP_SHIFT;
	} else if (rule->frame_pointer == SF_FP_UNKNOWN) {
		word |= SF_PLAIN_RBP_LOST;
	} else if (rule->frame_pointer != SF_FP_SAME) {
		return 0;
	}
	return word;
}

/* The set where a key is if it is anywhere. Fibonacci hashing: the golden ratio spreads neighbours. */
static __always_inline struct sf_cached_rule *sf_cached_rules(struct sf_rule_cache *cache, __u64 key)
{
	return cache->sets[(key * 0x9e3779b97f4a7c15ULL) >> (64 - SF_RULE_CACHE_BITS)];
}

/* The word of the key's rule, 0 if it is not there. */
static __always_inline __u64 sf_find_cached_rule(const struct sf_cached_rule *set, __u64 key,
						 __u64 generation)
{
#pragma unroll
	for (int way = 0; way < SF_RULE_CACHE_WAYS; way++)
		if (set[way].key == key)
			return (set[way].rule ^ generation) >> SF_PLAIN_GENERATION_SHIFT ? 0 : set[way].rule;
	return 0;
}

static __always_inline void sf_cache_rule(struct sf_cached_rule *set, __u64 key, __u64 rule)
{
#pragma unroll
	for (int way = SF_RULE_CACHE_WAYS - 1; way > 0; way--)
		set[way] = set[way - 1];
	set[0].key = key;
	set[0].rule = rule;
}

#endif /* SF_UNWIND_RULE_CACHE_H */
