/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The sampler: on every tick of a CPU's clock, whose stack is it, and what is on it?
 *
 * Runs in the timer interrupt of its CPU. A second event of this program cannot interrupt it, so one
 * scratch a CPU is enough, and it belongs to this program alone: programs of other types, which this
 * one does interrupt, have their own.
 */
#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "process_maps.h"
#include "request_maps.h"
#include "runtime_maps.h"
#include "shared_contexts.h"
#include "spanflame.h"
#include "table_maps.h"
#include "unwind/native.h"
#include "unwind/uprobe.h"
#include "words.h"

char LICENSE[] SEC("license")
= "Dual BSD/GPL";

const volatile struct sf_config config SEC(".rodata.config");

/* The agent's own tgid in the initial pid namespace, which the agent cannot see for itself. */
__u32 agent_tgid;

/* Samples, in the order of their CPUs' ticks. Sized by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SF_COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

struct sf_sample_scratch {
	struct sf_walk walk;
	struct sf_sample sample;
	__u64 last_wake_ns;
	__u64 second_ns;     /* when the second began in which time is being spent */
	__u64 spent_ns;      /* on samples within requests since then */
	__u32 thinned_ticks; /* since the last sample that stands for such */
	__u32 unasked_bytes; /* sent since it was asked how full the ring is */
};

/* One for each CPU; user space sets how many. Not a per-CPU map, whose values are limited to 32 KiB. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sf_sample_scratch);
} sample_scratch SEC(".maps");

/* User code segment of 32-bit programs (asm/segment.h, __USER32_CS). */
#define SF_USER32_CS 0x23

/*
 * The contract's types, so that they reach the object's BTF and from there Rust (src/kernel/abi.rs).
 * Nothing refers to this section and user space does not create its map.
 */
enum sf_limit {
	SF_LIMIT_PAGE_BYTES = SF_PAGE_BYTES,
	SF_LIMIT_SLAB_PAGES = SF_SLAB_PAGES,
	SF_LIMIT_SLABS = SF_MAX_SLABS,
	SF_LIMIT_CHUNK_BITS = SF_CHUNK_BITS,
	SF_LIMIT_LEAF_ROWS = SF_LEAF_ROWS,
	SF_LIMIT_RULES_PER_PAGE = SF_RULES_PER_PAGE,
	SF_LIMIT_DIRECTORY_PER_PAGE = SF_DIRECTORY_PER_PAGE,
	SF_LIMIT_MAPPINGS_PER_PAGE = SF_MAPPINGS_PER_PAGE,
	SF_LIMIT_MAPPINGS = SF_MAX_MAPPINGS,
	SF_LIMIT_OBJECT_SLOTS = SF_OBJECT_SLOTS,
	SF_LIMIT_PROCESSES = SF_MAX_PROCESSES,
	SF_LIMIT_USER_FRAMES = SF_MAX_USER_FRAMES,
	SF_LIMIT_KERNEL_FRAMES = SF_MAX_KERNEL_FRAMES,
	SF_LIMIT_SCRIPT_FRAMES = SF_MAX_SCRIPT_FRAMES,
	SF_LIMIT_FRAME_SCRIPT = SF_FRAME_SCRIPT,
};

struct sf_contract {
	enum sf_limit limit;
	struct sf_page page;
	struct sf_leaf leaf;
	struct sf_unwind_rule rule;
	struct sf_directory_entry directory_entry;
	struct sf_object object;
	struct sf_mapping mapping;
	struct sf_process process;
	struct sf_target target;
	struct sf_sample sample;
	struct sf_config config;
	struct sf_words words;
	struct sf_script_frame script_frame;
	struct sf_label label;
	struct sf_python python;
	struct sf_v8 v8;
	struct sf_hotspot hotspot;
	struct sf_shared_context shared_context;
	enum sf_words_kind words_kind;
	enum sf_cfa cfa;
	enum sf_saved_fp saved_fp;
	enum sf_return_address return_address;
	enum sf_register register_number;
	enum sf_object_state object_state;
	enum sf_object_flag object_flag;
	enum sf_mapping_kind mapping_kind;
	enum sf_process_flag process_flag;
	enum sf_outcome outcome;
	enum sf_sample_flag sample_flag;
	enum sf_runtime runtime;
	enum sf_script_flag script_flag;
	enum sf_script_outcome script_outcome;
	enum sf_event_type event_type;
	enum sf_counter counter;
};
struct sf_contract contract SEC(".data.contract");

static __always_inline void count(__u32 counter, __u64 amount)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &counter);

	if (value)
		*value += amount;
}

/* Finds the process's mapping table, its own or the one it shares with the parent that forked it. */
static __always_inline int take_process(struct sf_walk *walk, __u32 tgid)
{
	const struct sf_process *process = bpf_map_lookup_elem(&processes, &tgid);

	if (!process)
		return 0;
	if (process->alias_of) {
		__u32 owner = process->alias_of, version = process->alias_version;

		process = bpf_map_lookup_elem(&processes, &owner);
		if (!process || process->alias_of || process->version != version)
			return 0;
	}
	walk->mapping_page = process->mapping_page;
	walk->mappings = process->mappings;
	walk->process_flags = process->flags;
	return 1;
}

/*
 * Takes the registers the task had in user mode: the interrupted ones, or those it entered the kernel
 * with. SF_OUTCOME_COMPLETE if there is a stack to walk, else why not.
 */
static __always_inline __u32 take_user_registers(struct bpf_perf_event_data *ctx, struct task_struct *task,
						 struct sf_walk *walk, bool in_kernel)
{
	struct pt_regs *regs;
	__u64 code_segment;

	walk->in_syscall = 0;
	if (!in_kernel) {
		SF_TAKE_REGISTERS(walk, &ctx->regs);
		code_segment = ctx->regs.cs;
	} else {
		if (task->flags & (PF_KTHREAD | PF_IO_WORKER) || !task->mm)
			return SF_OUTCOME_NO_USER;
		/*
		 * In the middle of execve the old program's memory is gone and the new one has not begun: it
		 * has no stack yet, and the registers are the old one's (fs/binfmt_elf.c sets this last).
		 */
		if (!task->mm->start_stack)
			return SF_OUTCOME_NO_USER;
		regs = (struct pt_regs *)bpf_task_pt_regs(task);
		if (!regs)
			return SF_OUTCOME_NO_REGISTERS;
		SF_TAKE_REGISTERS(walk, regs);
		code_segment = regs->cs;
		/* User workers (vhost, since 6.4) never were in user mode; their registers are zeros. */
		if (!walk->pc && !walk->registers[SF_RSP])
			return SF_OUTCOME_NO_USER;
		/* Interrupts and exceptions put -1 here, system calls their number. */
		walk->in_syscall = regs->orig_ax != (unsigned long)-1;
	}
	if ((code_segment & 0xffff) == SF_USER32_CS)
		return SF_OUTCOME_UNSUPPORTED_RULE;
	return SF_OUTCOME_COMPLETE;
}

static __always_inline void take_user_stack(struct bpf_perf_event_data *ctx, struct task_struct *task,
					    __u32 tgid, struct sf_sample_scratch *scratch, bool in_kernel,
					    struct sf_frames *frames)
{
	struct sf_walk *walk = &scratch->walk;
	__u32 outcome;

	walk->frames = 0;
	walk->stopped_at = 0;
	walk->script_frames = 0;
	walk->aside_frame = 0;
	walk->runtime = SF_RUNTIME_NONE;
	walk->script_outcome = SF_SCRIPT_NONE;
	walk->has_new_script = 0;
	walk->owner = tgid;
	walk->thread_pointer = task->thread.fsbase;
	outcome = take_user_registers(ctx, task, walk, in_kernel);
	if (outcome == SF_OUTCOME_COMPLETE && !take_process(walk, tgid))
		outcome = SF_OUTCOME_UNKNOWN_PROCESS;
	walk->outcome = outcome;
	if (outcome == SF_OUTCOME_COMPLETE) {
		sf_walk_stack(walk, frames);
	} else if (outcome == SF_OUTCOME_UNKNOWN_PROCESS || outcome == SF_OUTCOME_UNSUPPORTED_RULE) {
		frames->words[0] = (walk->pc - walk->in_syscall) & SF_FRAME_ADDRESS_MASK;
		walk->frames = 1;
		walk->stopped_at = walk->pc;
	}
}

#define SF_SECOND_NS 1000000000ULL

/*
 * How many ticks of its CPU a sample taken now would stand for; 0: this tick is left to a later one. All
 * ticks of the CPU are counted, whoever is on it, so that the sum over all samples is the sum over all ticks
 * and each process gets its share of it.
 */
static __always_inline __u32 sf_ticks_to_stand_for(struct sf_sample_scratch *scratch, __u64 now)
{
	__u32 ticks;

	if (!config.ticks_per_sample)
		return 1;
	if (scratch->sample.request) {
		if (now - scratch->second_ns >= SF_SECOND_NS) {
			scratch->second_ns = now;
			scratch->spent_ns = 0;
		}
		if (scratch->spent_ns < config.budget_ns)
			return 1;
		count(SF_COUNTER_OVER_BUDGET, 1);
	}
	ticks = scratch->thinned_ticks + 1;
	if (ticks < config.ticks_per_sample) {
		scratch->thinned_ticks = ticks;
		count(SF_COUNTER_THINNED, 1);
		return 0;
	}
	scratch->thinned_ticks = 0;
	return ticks;
}

/* Neither is inlined: what they keep on the stack need not be there while the stack is walked. */
static __attribute__((noinline)) __u64 current_request(struct task_struct *task, __u32 tgid)
{
	return sf_current_request(task, tgid);
}

static __attribute__((noinline)) int take_words(struct task_struct *task, __u32 tgid,
						struct sf_sample *sample)
{
	sf_take_words(task, tgid, sample);
	return 0;
}

/*
 * A task's name, as two loads: a call of a helper takes as long as a frame. What may stand behind the name's NUL does
 * not matter.
 */
static __always_inline void copy_name(char *to, const struct task_struct *task)
{
	const __u64 *name = (const __u64 *)&task->comm;

	((__u64 *)to)[0] = name[0];
	((__u64 *)to)[1] = name[1];
}

#define SF_WORDS_OF(type) (sizeof(type) / sizeof(__u64))

/* What a CPU sends before it asks anew how full the ring is. */
#define SF_ASKED_EACH_BYTES 4096

/* Whether the reader should look now instead of at its next timer, as there are `bytes` more. */
static __always_inline bool is_urgent(struct sf_sample_scratch *scratch, __u64 bytes)
{
	const struct sf_sample *sample = &scratch->sample;

	/* To ask is a call of a helper, too. A small ring is asked of more often. */
	scratch->unasked_bytes += bytes;
	if (scratch->unasked_bytes >= SF_ASKED_EACH_BYTES ||
	    scratch->unasked_bytes >= config.wake_at_bytes / 2) {
		scratch->unasked_bytes = 0;
		if (bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) > config.wake_at_bytes)
			return true;
	}
	/*
	 * Something about a process that user space does not know yet, a table that it is to build, an object
	 * of a runtime that may move.
	 */
	if (!scratch->walk.has_new_script && sample->outcome != SF_OUTCOME_TABLE_PENDING &&
	    (sample->user_frames > 1 || (sample->outcome != SF_OUTCOME_UNKNOWN_PROCESS &&
					 sample->outcome != SF_OUTCOME_UNKNOWN_MAPPING)))
		return false;
	if (sample->time_ns - scratch->last_wake_ns < config.wake_interval_ns)
		return false;
	scratch->last_wake_ns = sample->time_ns;
	return true;
}

SEC("perf_event")
int sample(struct bpf_perf_event_data *ctx)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	__u32 tgid = pid_tgid >> 32, cpu = bpf_get_smp_processor_id();
	struct sf_sample_scratch *scratch;
	struct sf_sample *sample;
	struct task_struct *task, *leader;
	__u64 kernel_frames = 0, user_frames, script_frames, labels, words, bytes, now;
	bool in_kernel;
	__u32 ticks;
	long taken;

	count(SF_COUNTER_TICKS, 1);
	if (!(__u32)pid_tgid) {
		count(SF_COUNTER_IDLE, 1);
		return 0;
	}
	if ((config.exclude_agent && tgid == agent_tgid) ||
	    (config.only_targets && !bpf_map_lookup_elem(&targets, &tgid))) {
		count(SF_COUNTER_NOT_SELECTED, 1);
		return 0;
	}
	scratch = bpf_map_lookup_elem(&sample_scratch, &cpu);
	if (!scratch) {
		count(SF_COUNTER_TAKEN, 1);
		count(SF_COUNTER_LOST_NO_SCRATCH, 1);
		return 0;
	}
	sample = &scratch->sample;
	task = bpf_get_current_task_btf();
	now = bpf_ktime_get_ns();
	sample->request = config.ticks_per_sample ? current_request(task, tgid) : 0;
	ticks = sf_ticks_to_stand_for(scratch, now);
	if (!ticks)
		return 0;
	count(SF_COUNTER_TAKEN, 1);

	sample->type = SF_EVENT_SAMPLE;
	sample->cpu = cpu;
	sample->time_ns = now;
	sample->pid = tgid;
	sample->tid = (__u32)pid_tgid;
	sample->flags = 0;
	sample->ticks = ticks;
	take_words(task, tgid, sample);
	if (sample->flags & SF_SAMPLE_SAID) {
		count(SF_COUNTER_SAID, 1);
	} else if (!sample->request && sf_take_shared_context(pid_tgid, sample) && sf_has_ids(sample)) {
		sample->flags |= SF_SAMPLE_SHARED;
		count(SF_COUNTER_SHARED, 1);
	}
	leader = task->group_leader;
	copy_name(sample->thread_name, task);
	if (leader == task)
		__builtin_memcpy(sample->comm, sample->thread_name, sizeof(sample->comm));
	else
		copy_name(sample->comm, leader);

	in_kernel = (ctx->regs.cs & 3) == 0;
	if (in_kernel) {
		sample->flags |= SF_SAMPLE_IN_KERNEL;
		taken = bpf_get_stack(ctx, sample->frames, SF_MAX_KERNEL_FRAMES * sizeof(__u64), 0);
		if (taken > 0)
			kernel_frames = (__u64)taken / sizeof(__u64);
		if (kernel_frames >= SF_MAX_KERNEL_FRAMES) {
			kernel_frames = SF_MAX_KERNEL_FRAMES;
			sample->flags |= SF_SAMPLE_KERNEL_TRUNCATED;
		}
	}
	take_user_stack(ctx, task, tgid, scratch, in_kernel,
			(struct sf_frames *)&sample->frames[kernel_frames]);

	user_frames = scratch->walk.frames;
	if (user_frames > SF_MAX_USER_FRAMES)
		user_frames = SF_MAX_USER_FRAMES;
	sample->kernel_frames = kernel_frames;
	sample->user_frames = user_frames;
	sample->outcome = scratch->walk.outcome;
	sample->stopped_at = scratch->walk.stopped_at;
	count(SF_COUNTER_USER_FRAMES, user_frames);
	count(SF_COUNTER_KERNEL_FRAMES, kernel_frames);

	script_frames = scratch->walk.script_frames;
	SF_AT_MOST(script_frames, SF_MAX_SCRIPT_FRAMES);
	sample->script_frames = script_frames;
	sample->aside_frame = scratch->walk.aside_frame;
	sample->runtime = scratch->walk.runtime;
	sample->script_outcome = scratch->walk.script_outcome;
	words = kernel_frames + user_frames;
	if (script_frames) {
		count(SF_COUNTER_SCRIPT_FRAMES, script_frames);
		SF_AT_MOST(words, SF_MAX_KERNEL_FRAMES + SF_MAX_USER_FRAMES);
		SF_AT_MOST(script_frames, SF_MAX_SCRIPT_FRAMES);
		bpf_probe_read_kernel(&sample->frames[words], script_frames * sizeof(struct sf_script_frame),
				      scratch->walk.scripts);
		words += script_frames * SF_WORDS_OF(struct sf_script_frame);
	}
	labels = sample->labels;
	if (labels) {
		SF_AT_MOST(words, SF_MAX_KERNEL_FRAMES + SF_MAX_USER_FRAMES +
					  SF_MAX_SCRIPT_FRAMES * SF_WORDS_OF(struct sf_script_frame));
		SF_AT_MOST(labels, SF_MAX_LABELS);
		bpf_probe_read_kernel(&sample->frames[words], labels * sizeof(struct sf_label),
				      sample->label);
		words += labels * SF_WORDS_OF(struct sf_label);
	}
	bytes = __builtin_offsetof(struct sf_sample, frames) + words * sizeof(__u64);
	if (bytes > sizeof(*sample))
		bytes = sizeof(*sample);
	if (bpf_ringbuf_output(&events, sample, bytes,
			       is_urgent(scratch, bytes) ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP))
		count(SF_COUNTER_LOST_RING_FULL, 1);
	else
		count(SF_COUNTER_SENT, 1);
	if (sample->request) {
		count(SF_COUNTER_STAMPED, 1);
		scratch->spent_ns += bpf_ktime_get_ns() - now;
	}
	return 0;
}

/* Run once by the agent, on itself, before the sampler is attached. */
SEC("raw_tp")
int learn_agent(void *ctx)
{
	agent_tgid = bpf_get_current_pid_tgid() >> 32;
	return 0;
}
