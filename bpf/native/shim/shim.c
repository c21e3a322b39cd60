/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The unwinder without a kernel: maps and user memory are arrays that Rust (src/lib.rs) lays out, and
 * the helpers look things up in them, with the kernel's behaviour at the edges: a look-up past the
 * end gives NULL, a read that is not wholly in one region fails and leaves zeros.
 */
#include "../../vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "../../spanflame.h"

struct shim_region {
	__u64 begin;
	__u64 bytes;
	const unsigned char *contents;
};

struct shim_return_instance {
	__u64 stack;
	__u64 address;
};

/* Everything a walk can see. Mirrored by src/lib.rs. */
struct shim_image {
	const struct shim_region *regions;
	__u64 region_count;
	const struct sf_page *pages;
	__u64 page_count;
	const struct sf_object *objects;
	__u64 object_count;
	const struct shim_return_instance *return_instances;
	__u64 return_instance_count;
	__u64 xol_address;    /* of the copy of a probed instruction that is being executed; 0: none */
	__u64 probed_address; /* of that instruction */
	__u64 uprobe_area;    /* begin of `[uprobes]`; 0: there is none */
	__u32 mapping_page;
	__u32 mappings;
	__u32 process_flags;
	__u32 in_syscall;
	__u64 thread_pointer;
	/* Of the process's runtimes; NULL: it has none such. */
	const struct sf_python *python;
	const struct sf_v8 *v8;
	const struct sf_hotspot *hotspot;
	/* Memory that is in no region; NULL: there is none. 0 if all of it was read. */
	long (*read)(const void *context, __u64 address, void *to, __u64 bytes);
	const void *read_context;
};

struct shim_result {
	__u64 frames;
	__u64 stopped_at;
	__u32 outcome;
	__u32 user_reads; /* calls of bpf_probe_read_user */
	__u32 script_frames;
	__u32 aside_frame;
	__u32 runtime;
	__u32 script_outcome;
};

/* Their keys are what the kernel side looks up by; which map it is, is told by the address. */
static struct {
	int unused;
} slabs, objects, rule_cache, seen_scripts, python_threads, python_processes, v8_processes, hotspot_processes;

static _Thread_local const struct shim_image *image;
static _Thread_local void *remembered_rules;
/* The only entry of map `python_threads`. */
struct shim_thread {
	struct sf_python_thread_key key;
	struct sf_python_thread thread;
	__u64 is_set;
};

static _Thread_local struct shim_thread *remembered_thread;
static _Thread_local __u32 user_reads;
static _Thread_local struct task_struct task;
static _Thread_local struct uprobe_task uprobes;
static _Thread_local struct mm_struct memory;
static _Thread_local struct xol_area uprobe_area;
static _Thread_local struct return_instance instances[256];

static void *bpf_map_lookup_elem(const void *map, const void *key)
{
	__u64 index = *(const __u32 *)key;
	const struct sf_page *slab = map;

	if (map == &slabs) {
		if (index >= SF_MAX_SLABS || index * SF_SLAB_PAGES >= image->page_count)
			return NULL;
		return (void *)(image->pages + index * SF_SLAB_PAGES);
	}
	if (map == &rule_cache)
		return remembered_rules;
	if (map == &seen_scripts)
		return NULL;
	if (map == &python_threads)
		return remembered_thread->is_set && !__builtin_memcmp(key, &remembered_thread->key,
								      sizeof(remembered_thread->key))
			       ? &remembered_thread->thread
			       : NULL;
	if (map == &python_processes)
		return (void *)image->python;
	if (map == &v8_processes)
		return (void *)image->v8;
	if (map == &hotspot_processes)
		return (void *)image->hotspot;
	if (map == &objects)
		return index < image->object_count ? (void *)(image->objects + index) : NULL;
	if (index >= SF_SLAB_PAGES || (__u64)(slab - image->pages) + index >= image->page_count)
		return NULL;
	return (void *)(slab + index);
}

static long bpf_map_update_elem(const void *map, const void *key, const void *value, __u64 flags)
{
	(void)map;
	(void)flags;
	remembered_thread->key = *(const struct sf_python_thread_key *)key;
	remembered_thread->thread = *(const struct sf_python_thread *)value;
	remembered_thread->is_set = 1;
	return 0;
}

static long bpf_probe_read_user(void *to, __u32 bytes, const void *from)
{
	__u64 address = (__u64)from;

	user_reads++;
	for (__u64 i = 0; i < image->region_count; i++) {
		const struct shim_region *region = &image->regions[i];

		if (address < region->begin || address - region->begin > region->bytes ||
		    region->bytes - (address - region->begin) < bytes)
			continue;
		__builtin_memcpy(to, region->contents + (address - region->begin), bytes);
		return 0;
	}
	if (image->read && !image->read(image->read_context, address, to, bytes))
		return 0;
	__builtin_memset(to, 0, bytes);
	return -14; /* EFAULT */
}

static __u32 bpf_get_smp_processor_id(void)
{
	return 0;
}

static __u64 bpf_get_current_task(void)
{
	return (__u64)&task;
}

#include "../../unwind/native.h"
#include "../../unwind/uprobe.h"

static void set_up_uprobes(void)
{
	__u64 count = image->return_instance_count;

	__builtin_memset(&task, 0, sizeof(task));
	__builtin_memset(&uprobes, 0, sizeof(uprobes));
	uprobe_area.vaddr = image->uprobe_area;
	memory.uprobes_state.xol_area = image->uprobe_area ? &uprobe_area : NULL;
	task.mm = &memory;
	if (!count && !image->xol_address)
		return;
	if (count > sizeof(instances) / sizeof(instances[0]))
		count = sizeof(instances) / sizeof(instances[0]);
	for (__u64 i = 0; i < count; i++) {
		instances[i].stack = image->return_instances[i].stack;
		instances[i].orig_ret_vaddr = image->return_instances[i].address;
		instances[i].next = i + 1 < count ? &instances[i + 1] : NULL;
	}
	uprobes.return_instances = count ? &instances[0] : NULL;
	uprobes.xol_vaddr = image->xol_address;
	uprobes.vaddr = image->probed_address;
	task.utask = &uprobes;
}

/* What stays from walk to walk. */
struct shim_walker {
	struct sf_walk walk;
	struct sf_rule_cache rule_cache;
	struct shim_thread thread;
};

__u64 sf_shim_walker_bytes(void)
{
	return sizeof(struct shim_walker);
}

/*
 * One walk. `registers` are sixteen by DWARF number and the pc; `frames` has room for
 * SF_MAX_USER_FRAMES, `scripts` for SF_MAX_SCRIPT_FRAMES; `walker` is zeroed memory of sf_shim_walker_bytes(), and may be used again.
 */
void sf_shim_walk(const struct shim_image *of, const __u64 *registers, struct shim_walker *walker,
		  struct sf_frames *frames, struct sf_script_frame *scripts, struct shim_result *result)
{
	struct sf_walk *walk = &walker->walk;

	image = of;
	remembered_rules = &walker->rule_cache;
	remembered_thread = &walker->thread;
	user_reads = 0;
	set_up_uprobes();
	for (int i = 0; i < 16; i++)
		walk->registers[i] = registers[i];
	walk->pc = registers[16];
	walk->known = SF_KNOWN_ALL;
	walk->in_syscall = of->in_syscall;
	walk->mapping_page = of->mapping_page;
	walk->mappings = of->mappings;
	walk->process_flags = of->process_flags;
	walk->script_frames = 0;
	walk->thread_pointer = of->thread_pointer;
	sf_walk_stack(walk, frames);
	__builtin_memcpy(scripts, walk->scripts, walk->script_frames * sizeof(*scripts));
	result->script_frames = walk->script_frames;
	result->aside_frame = walk->aside_frame;
	result->runtime = walk->runtime;
	result->script_outcome = walk->script_outcome;
	result->frames = walk->frames;
	result->stopped_at = walk->stopped_at;
	result->outcome = walk->outcome;
	result->user_reads = user_reads;
	image = NULL;
	remembered_rules = NULL;
	remembered_thread = NULL;
}
