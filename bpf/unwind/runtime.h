/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Which runtime a frame of generated code belongs to, and how its script frames are recorded
 * (runtimes.h says what those are). Included by native.h, in its middle.
 */
#ifndef SF_UNWIND_RUNTIME_H
#define SF_UNWIND_RUNTIME_H

/* What the unwinder of a runtime returns besides 0 (gone to the caller) and 1 (the walk is over). */
#define SF_STEP_NOT_MINE 2

/* Notes that an object was seen in this process. */
static __always_inline void sf_see_script(struct sf_walk *walk, __u64 object, __u32 identity)
{
	__u64 hash = (object ^ ((__u64)identity << 20) ^ ((__u64)walk->owner << 44)) * 0x9e3779b97f4a7c15ULL;
	__u32 index = hash >> 50; /* its upper bits, as many as SF_SEEN_SCRIPTS has */
	__u64 *seen = bpf_map_lookup_elem(&seen_scripts, &index);

	if (seen && *seen != hash) {
		*seen = hash;
		walk->has_new_script = 1;
	}
}

/* Appends a script frame; NULL if there is no room left. The caller fills in all of it. */
static __always_inline struct sf_script_frame *sf_add_script(struct sf_walk *walk)
{
	__u64 index = walk->script_frames;

	if (index >= SF_MAX_SCRIPT_FRAMES)
		return NULL;
	walk->script_frames = index + 1;
	SF_OPAQUE(index);
	return &walk->scripts[index & (SF_MAX_SCRIPT_FRAMES - 1)];
}

/* The word of the user frames that stands for the script frame that was added last. */
static __always_inline __u64 sf_word_of_script(const struct sf_walk *walk)
{
	return SF_FRAME_SCRIPT << SF_FRAME_OBJECT_SHIFT | (walk->script_frames - 1);
}

static __always_inline long sf_enter_caller(struct sf_walk *walk, __u64 pc, __u64 pc_slot, __u64 cfa,
					    __u64 frame_pointer, __u64 known);

#include "python.h"

#ifdef SF_WITHOUT_GENERATED_FRAMES

static __always_inline int sf_is_builtin(const struct sf_walk *walk, __u64 address)
{
	(void)walk;
	(void)address;
	return 0;
}

static __always_inline int sf_step_runtime(struct sf_walk *walk, struct sf_frames *frames)
{
	(void)walk;
	(void)frames;
	return SF_STEP_NOT_MINE;
}

#else

#include "hotspot.h"
#include "v8.h"

/* Finds out which runtime generates code in the process; enum sf_runtime. */
__attribute__((noinline)) int sf_take_layout(struct sf_walk *walk)
{
	const struct sf_hotspot *hotspot;
	const struct sf_v8 *v8;
	__u32 owner;

	if (!walk)
		return SF_RUNTIME_NONE;
	owner = walk->owner;
	v8 = bpf_map_lookup_elem(&v8_processes, &owner);
	walk->layout_of = SF_RUNTIME_NONE;
	if (v8) {
		walk->layout.v8 = *v8;
		walk->layout_of = SF_RUNTIME_V8;
	} else {
		hotspot = bpf_map_lookup_elem(&hotspot_processes, &owner);
		if (hotspot) {
			walk->layout.hotspot = *hotspot;
			walk->layout_of = SF_RUNTIME_HOTSPOT;
			walk->method_class.constants = 0;
		}
	}
	walk->runtime = walk->layout_of;
	if (walk->runtime)
		walk->script_outcome = SF_SCRIPT_COMPLETE;
	return walk->runtime;
}

/*
 * Whether an address of the mapping of the frame before is in code that V8 generated when Node was built. All of that
 * lies together, so if that frame was in it, too, this one's rule is to come here.
 */
static __always_inline int sf_is_builtin(const struct sf_walk *walk, __u64 address)
{
	const struct sf_v8 *v8 = &walk->layout.v8;

	return walk->layout_of == SF_RUNTIME_V8 &&
	       address - walk->bias - v8->builtins_begin < v8->builtins_end - v8->builtins_begin;
}

/* One frame of generated code: records it and goes to its caller, if its runtime is known. */
static __always_inline int sf_step_runtime(struct sf_walk *walk, struct sf_frames *frames)
{
	if (walk->layout_of == SF_RUNTIMES)
		sf_take_layout(walk);
	if (walk->layout_of == SF_RUNTIME_V8)
		return sf_step_v8(walk, frames);
	if (walk->layout_of == SF_RUNTIME_HOTSPOT)
		return sf_step_hotspot(walk, frames);
	return SF_STEP_NOT_MINE;
}

#endif /* SF_WITHOUT_GENERATED_FRAMES */

/* Reads the frames of an interpreter that keeps them aside, once the machine stack was walked. */
static __always_inline void sf_walk_aside(struct sf_walk *walk)
{
	__u32 owner = walk->owner;
	const struct sf_python *python = bpf_map_lookup_elem(&python_processes, &owner);

	if (!python)
		return;
	walk->layout.python = *python;
	walk->runtime = SF_RUNTIME_PYTHON;
	walk->script_outcome = sf_walk_python(walk);
}

#endif /* SF_UNWIND_RUNTIME_H */
