/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * From an address to its mapping and from an address to its unwind rule.
 *
 * Both are binary searches inside one map value. They take no branch on what they compare: the
 * comparison becomes a mask that is added or not, so that the verifier sees one path instead of
 * 2^steps, and the processor has nothing to mispredict. Steps that the number of entries makes
 * superfluous are skipped, which does cost a branch, but a predictable one. Searches start from a zero
 * that the verifier cannot see, so that a skipped step does not look different from one that was taken.
 *
 * All contents come from user space and are trusted to be sensible, not to be safe: every index is
 * masked to the value it indexes, so that nonsense leads to a wrong rule, never outside of a page.
 *
 * Needs from whoever includes it: the map `slabs`, bpf_map_lookup_elem.
 */
#ifndef SF_UNWIND_PAGES_H
#define SF_UNWIND_PAGES_H

#include "../spanflame.h"
#include "../verifier.h"

/* All ones if a < b, else 0. Both below 2^63. */
static __always_inline __u64 sf_mask_less(__u64 a, __u64 b)
{
	__u64 difference = a - b;

	SF_OPAQUE(difference);
	return (__u64)((__s64)difference >> 63);
}

/* Page `number`, or NULL if there is no such slab. Both look-ups are inlined by the JIT. */
static __always_inline const struct sf_page *sf_page_at(__u32 number)
{
	__u32 slab_index = number / SF_SLAB_PAGES;
	__u32 page_index = number % SF_SLAB_PAGES;
	void *slab = bpf_map_lookup_elem(&slabs, &slab_index);

	if (!slab)
		return NULL;
	return bpf_map_lookup_elem(slab, &page_index);
}

/* Bits of a user-space address: 56 with five-level page tables. Keeps comparisons below 2^63. */
#define SF_USER_ADDRESS_BITS 56

/*
 * The mapping of a table of `count` mappings, from page `first_page` on, that holds `address`; NULL
 * if none does. `zero` is 0, see sf_walk.
 */
static __always_inline const struct sf_mapping *sf_search_mappings(__u32 first_page, __u64 count,
								   __u64 address, __u64 zero)
{
	const struct sf_mapping *mappings, *mapping;
	const struct sf_page *page;
	__u64 chosen_page = zero, slot = zero, left;

	/* Without mappings `first_page` means nothing and would be another process's table. */
	if (!count || address >> SF_USER_ADDRESS_BITS)
		return NULL;

	/* The last page whose first mapping does not begin above the address. */
#pragma unroll
	for (__u64 step = SF_MAX_MAPPINGS / SF_MAPPINGS_PER_PAGE / 2; step; step >>= 1) {
		__u64 candidate = chosen_page + step;

		if (step * SF_MAPPINGS_PER_PAGE >= count)
			continue;
		page = sf_page_at(first_page + candidate);
		if (!page)
			return NULL;
		mappings = (const struct sf_mapping *)page;
		chosen_page += step & sf_mask_less(candidate * SF_MAPPINGS_PER_PAGE, count) &
			       ~sf_mask_less(address, mappings[0].begin);
	}

	page = sf_page_at(first_page + chosen_page);
	if (!page)
		return NULL;
	mappings = (const struct sf_mapping *)page;
	left = count - chosen_page * SF_MAPPINGS_PER_PAGE;
#pragma unroll
	for (__u64 step = SF_MAPPINGS_PER_PAGE / 2; step; step >>= 1) {
		__u64 candidate, index;

		if (step >= left)
			continue;
		candidate = slot + step;
		index = candidate & (SF_MAPPINGS_PER_PAGE - 1);
		SF_OPAQUE(index);
		slot += step & sf_mask_less(candidate, left) & ~sf_mask_less(address, mappings[index].begin);
	}

	slot &= SF_MAPPINGS_PER_PAGE - 1;
	SF_OPAQUE(slot);
	mapping = &mappings[slot];
	if (address < mapping->begin || address >= mapping->end)
		return NULL;
	return mapping;
}

/*
 * Index of the last of `count` rows, from `first` on, that begins at or below `offset` in its chunk.
 * A chunk's first row is at offset 0, so there always is one.
 */
static __always_inline __u64 sf_search_rows(const struct sf_leaf *leaf, __u64 first, __u64 count,
					    __u64 offset, __u64 zero)
{
	__u64 row = zero;

#pragma unroll
	for (__u64 step = SF_LEAF_ROWS / 2; step; step >>= 1) {
		__u64 candidate, index;

		if (step >= count)
			continue;
		candidate = row + step;
		index = (first + candidate) & (SF_LEAF_ROWS - 1);
		SF_OPAQUE(index);
		row += step & sf_mask_less(candidate, count) & ~sf_mask_less(offset, leaf->pc[index]);
	}
	return first + row;
}

#endif /* SF_UNWIND_PAGES_H */
