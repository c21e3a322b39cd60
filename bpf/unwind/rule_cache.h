/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Rules that were found lately, by object and address.
 *
 * A few thousand return addresses make up most stacks of a busy host. What a search for one of them
 * costs is memory: a directory entry, three or four lines of a leaf, a rule, none of which anything
 * else keeps in a processor's cache. Here it is one line. Each CPU has a cache of its own, so that
 * nothing in it is ever seen half written.
 *
 * A set is a cache line, and an entry a word of it: the less memory all the entries take, the longer they stay where
 * the processor finds them at once, and the less of what the sampled program had there they push out. What is new
 * replaces the oldest of its set.
 *
 * Only rules of the plainest form fit, and those are nearly all: the CFA is rsp or rbp plus less than 1024 words, the
 * return address lies right below it, and the caller's rbp is untouched, lost, or less than 16 words below the CFA. Or
 * the frame is the outermost. rbx is not told, so objects that track it have no rules here.
 *
 * An entry is exact: object and address have 46 bits together, a multiplication by an odd number maps these one to one,
 * ten bits of what comes out choose the set and the other 36 are in the entry. It also holds 11 bits of the generation of
 * the object's slot. A table that is replaced, or a slot that is used again, thus makes its entries miss without
 * anybody's doing. (An entry would have to stay while its slot changes 2048 times to be taken for a new one.)
 */
#ifndef SF_UNWIND_RULE_CACHE_H
#define SF_UNWIND_RULE_CACHE_H

#include "../vmlinux.h"

#include <bpf/bpf_helpers.h>

#include "../spanflame.h"
#include "../verifier.h"

#define SF_RULE_CACHE_BITS 10
#define SF_RULE_CACHE_WAYS 8

struct sf_rule_cache {
	__u64 sets[1 << SF_RULE_CACHE_BITS][SF_RULE_CACHE_WAYS]; /* 0: empty */
};

/* Of what is remembered: ELF addresses below 4 GiB, of objects that have 14 bits. */
#define SF_CACHED_ADDRESS_BITS 32
#define SF_CACHED_OBJECT_BITS 14
_Static_assert(SF_OBJECT_SLOTS <= 1 << SF_CACHED_OBJECT_BITS, "an object has to fit an entry's key");

/* An entry: 36 bits of the key, 11 of the generation, and the rule, which is never 0. */
#define SF_PLAIN_BITS 17
#define SF_CACHED_GENERATION_SHIFT SF_PLAIN_BITS
#define SF_CACHED_GENERATION_MAX 0x7ff
#define SF_PLAIN_CFA_MAX 0x3ff /* ten bits: words from the register up to the CFA */
#define SF_PLAIN_RBP_SHIFT 10  /* four bits: words from the CFA down to rbp; 0: untouched */
#define SF_PLAIN_RBP_MAX 0xf
#define SF_PLAIN_BY_RBP (1ULL << 14)   /* the CFA is based on rbp, not on rsp */
#define SF_PLAIN_RBP_LOST (1ULL << 15) /* the caller's rbp is not known */
#define SF_PLAIN_END (1ULL << 16)      /* outermost frame; all other bits are 0 */

/* A rule in 17 bits, 0 if it is not of the plain form. */
static __always_inline __u64 sf_plain_rule(const struct sf_unwind_rule *rule)
{
	__s64 cfa_offset = rule->cfa_offset, fp_offset = rule->fp_offset;
	__u64 word = 0;

	if (rule->cfa == SF_CFA_END)
		return SF_PLAIN_END;
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

/* The 46 bits of object and address, mixed, in the upper ones of a word. `object`: as in a frame's word. */
static __always_inline __u64 sf_cached_key(__u64 object, __u64 elf_address)
{
	__u64 key = object >> SF_FRAME_OBJECT_SHIFT << SF_CACHED_ADDRESS_BITS | elf_address;

	/* Fibonacci hashing: the golden ratio spreads neighbours. */
	return (key << (64 - SF_CACHED_OBJECT_BITS - SF_CACHED_ADDRESS_BITS)) * 0x9e3779b97f4a7c15ULL;
}

/* The set where a key is if it is anywhere. */
static __always_inline __u64 *sf_cached_rules(struct sf_rule_cache *cache, __u64 key)
{
	return cache->sets[key >> (64 - SF_RULE_CACHE_BITS)];
}

/* What the entry of a key holds above its rule. */
static __always_inline __u64 sf_cached_tag(__u64 key, __u32 generation)
{
	return key << SF_RULE_CACHE_BITS | (__u64)(generation & SF_CACHED_GENERATION_MAX)
						   << SF_CACHED_GENERATION_SHIFT;
}

/* The rule with that tag, 0 if it is not there. Takes no branch, see pages.h. */
static __always_inline __u64 sf_find_cached_rule(const __u64 *set, __u64 tag)
{
	__u64 rule = 0;

#pragma unroll
	for (int way = 0; way < SF_RULE_CACHE_WAYS; way++) {
		__u64 difference = set[way] ^ tag, other = (difference >> SF_PLAIN_BITS) - 1;

		SF_OPAQUE(other);
		rule |= difference & (__u64)((__s64)other >> 63);
	}
	return rule;
}

static __always_inline void sf_cache_rule(__u64 *set, __u64 tag, __u64 rule)
{
#pragma unroll
	for (int way = SF_RULE_CACHE_WAYS - 1; way > 0; way--)
		set[way] = set[way - 1];
	set[0] = tag | rule;
}

#endif /* SF_UNWIND_RULE_CACHE_H */
