/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * In which span is the current thread, by the application's own word? It beats whatever else is known.
 *
 * Thread context, OpenTelemetry's OTEP 4947: the thread-local pointer `otel_thread_ctx_v1` leads to a record
 * of ids, packed: trace id (16 bytes, as on the wire), span id (8), valid (1: it is), flags, size of what
 * follows. It is read while its own thread is interrupted, as the OTEP wants it. Where the variable is, user
 * space has found out (symbols/src/thread_local.rs): at a distance from the thread pointer, or in a block of
 * the dynamic thread vector, whose entries are 16 bytes in glibc (dtv_t of sysdeps/generic/dl-dtv.h): the
 * block's address, -1 if there is none yet, and what to free.
 *
 * Labels of Go's profiler (runtime/pprof.Do, SetGoroutineLabels): g.labels of the goroutine that the thread
 * runs. From 1.24 on it leads to a slice of pairs of strings; before, to a map, of which one bucket is read:
 * up to eight labels. Hexadecimal texts named trace_id and span_id are ids, or a traceparent; all others go with
 * the sample as labels.
 */
#ifndef SF_WORDS_H
#define SF_WORDS_H

#include <bpf/bpf_helpers.h>

#include "process_maps.h"
#include "spanflame.h"
#include "unwind/pages.h"
#include "vmlinux.h"

/* glibc's dtv_t, and its mark of a block that is not allocated. */
#define SF_DTV_ENTRY_BYTES 16
#define SF_DTV_UNALLOCATED (~0ULL)
/* Modules with thread-local variables: more than any process has. */
#define SF_MAX_MODULES 65536

struct sf_thread_context {
	__u8 trace_id[16];
	__u8 span_id[8];
	__u8 valid;
	__u8 flags;
	__u16 attributes_bytes;
};

/* Whether no id is only zeros, which stand for none. */
static __always_inline bool sf_has_ids(const struct sf_sample *sample)
{
	const __u64 *trace = (const __u64 *)sample->said_trace_id,
		    *span = (const __u64 *)sample->said_span_id;

	return (trace[0] | trace[1]) && span[0];
}

static __always_inline bool sf_take_thread_context(const struct sf_words *own, __u64 thread_pointer,
						   struct sf_sample *sample)
{
	struct sf_thread_context context;
	__u64 slot = thread_pointer, record = 0, vector = 0, block = 0;

	if (own->kind == SF_WORDS_MODULE) {
		if (own->module >= SF_MAX_MODULES ||
		    bpf_probe_read_user(&vector, sizeof(vector), (void *)(thread_pointer + 8)) || !vector ||
		    bpf_probe_read_user(&block, sizeof(block),
					(void *)(vector + own->module * SF_DTV_ENTRY_BYTES)) ||
		    !block || block == SF_DTV_UNALLOCATED)
			return false;
		slot = block;
	}
	if (bpf_probe_read_user(&record, sizeof(record), (void *)(slot + own->offset)) || !record)
		return false;
	if (bpf_probe_read_user(&context, sizeof(context), (void *)record) || context.valid != 1)
		return false;
	__builtin_memcpy(sample->said_trace_id, context.trace_id, sizeof(context.trace_id));
	__builtin_memcpy(sample->said_span_id, context.span_id, sizeof(context.span_id));
	return true;
}

/* ---- labels of Go --------------------------------------------------------------------------------- */

#define SF_GO_LABELS 10 /* of a slice that are looked at */
#define SF_GO_BUCKET 8  /* entries of a bucket of a map */

struct sf_go_string {
	__u64 text;
	__u64 bytes;
};

struct sf_go_label {
	struct sf_go_string key;
	struct sf_go_string value;
};

/* Of a map as Go 1.23 and older have it (runtime/map.go, hmap). */
struct sf_go_map {
	__u64 count;
	__u8 flags;
	__u8 bucket_bits;
	__u16 overflows;
	__u32 seed;
	__u64 buckets;
};

/* What each letter is as a hexadecimal digit: a table, since the verifier would follow branches. */
#define SF_IS_HEX 0x10
const volatile __u8 hex_values[256] SEC(".rodata.words")
= {
	['0'] = 0x10, ['1'] = 0x11, ['2'] = 0x12, ['3'] = 0x13, ['4'] = 0x14, ['5'] = 0x15,
	['6'] = 0x16, ['7'] = 0x17, ['8'] = 0x18, ['9'] = 0x19, ['a'] = 0x1a, ['b'] = 0x1b,
	['c'] = 0x1c, ['d'] = 0x1d, ['e'] = 0x1e, ['f'] = 0x1f,
};

/* Decodes `bytes` bytes of hexadecimal digits; zeros if one of them is none. */
static __always_inline void sf_from_hex(__u8 *to, const __u8 *text, __u32 bytes)
{
	__u8 all = SF_IS_HEX;
	__u32 index;

	for (index = 0; index < bytes; index++) {
		__u8 high = hex_values[text[2 * index]], low = hex_values[text[2 * index + 1]];

		all &= high & low;
		to[index] = high << 4 | (low & 0xf);
	}
	if (!(all & SF_IS_HEX))
		__builtin_memset(to, 0, bytes);
}

#define SF_TEXT8W(a, b, c, d, e, f, g, h)                                                        \
	((__u64)(a) | (__u64)(b) << 8 | (__u64)(c) << 16 | (__u64)(d) << 24 | (__u64)(e) << 32 | \
	 (__u64)(f) << 40 | (__u64)(g) << 48 | (__u64)(h) << 56)

/* Version, trace id, parent id, flags of a traceparent: where the ids are, and up to the last one's end. */
#define SF_PARENT_TRACE_AT 3
#define SF_PARENT_SPAN_AT 36
#define SF_PARENT_BYTES 52

/* Keeps a label that is no id. */
static __always_inline void sf_keep_label(const struct sf_go_label *label, struct sf_sample *sample)
{
	__u64 index = sample->labels, name_bytes = label->key.bytes, value_bytes = label->value.bytes;
	struct sf_label *kept;

	if (index >= SF_MAX_LABELS || !name_bytes || name_bytes > SF_LABEL_NAME_BYTES)
		return;
	kept = &sample->label[index & (SF_MAX_LABELS - 1)];
	kept->is_cut = value_bytes > SF_LABEL_VALUE_BYTES;
	if (value_bytes > SF_LABEL_VALUE_BYTES)
		value_bytes = SF_LABEL_VALUE_BYTES;
	kept->name_bytes = name_bytes;
	kept->value_bytes = value_bytes;
	SF_AT_MOST(name_bytes, SF_LABEL_NAME_BYTES);
	if (bpf_probe_read_user(kept->name, name_bytes, (void *)label->key.text))
		return;
	SF_AT_MOST(value_bytes, SF_LABEL_VALUE_BYTES);
	if (bpf_probe_read_user(kept->value, value_bytes, (void *)label->value.text))
		return;
	sample->labels = index + 1;
}

static __always_inline void sf_take_label(const struct sf_go_label *label, struct sf_sample *sample)
{
	__u8 text[SF_PARENT_BYTES];
	__u64 key = 0;

	/* span_id, trace_id, traceparent: by the first eight bytes and the length. */
	if (label->key.bytes != 7 && label->key.bytes != 8 && label->key.bytes != 11) {
		sf_keep_label(label, sample);
		return;
	}
	if (bpf_probe_read_user(&key, 7, (void *)label->key.text))
		return;
	if (label->key.bytes == 7 && key == SF_TEXT8W('s', 'p', 'a', 'n', '_', 'i', 'd', 0)) {
		if (label->value.bytes == 16 && !bpf_probe_read_user(text, 16, (void *)label->value.text))
			sf_from_hex(sample->said_span_id, text, 8);
	} else if (label->key.bytes == 8 && key == SF_TEXT8W('t', 'r', 'a', 'c', 'e', '_', 'i', 0)) {
		if (label->value.bytes == 32 && !bpf_probe_read_user(text, 32, (void *)label->value.text))
			sf_from_hex(sample->said_trace_id, text, 16);
	} else if (label->key.bytes == 11 && key == SF_TEXT8W('t', 'r', 'a', 'c', 'e', 'p', 'a', 0)) {
		if (label->value.bytes >= SF_PARENT_BYTES &&
		    !bpf_probe_read_user(text, SF_PARENT_BYTES, (void *)label->value.text)) {
			sf_from_hex(sample->said_trace_id, text + SF_PARENT_TRACE_AT, 16);
			sf_from_hex(sample->said_span_id, text + SF_PARENT_SPAN_AT, 8);
		}
	} else {
		sf_keep_label(label, sample);
	}
}

struct sf_labels_walk {
	struct sf_sample *sample;
	__u64 labels; /* where they are */
	__u64 count;
	__u64 is_map;
};

/* bpf_loop callback. */
static long sf_look_at_label(__u32 index, struct sf_labels_walk *walk)
{
	struct sf_go_label label;
	__u8 top = 1;

	if (index >= walk->count)
		return 1;
	if (!walk->is_map) {
		if (bpf_probe_read_user(&label, sizeof(label),
					(void *)(walk->labels + index * sizeof(label))))
			return 1;
	} else {
		/* Eight bytes of hashes, of which 0 and 1 mean empty; the keys; the values. */
		__u64 key = walk->labels + SF_GO_BUCKET + index * sizeof(struct sf_go_string);

		if (bpf_probe_read_user(&top, sizeof(top), (void *)(walk->labels + index)) || top <= 1)
			return 0;
		if (bpf_probe_read_user(&label.key, sizeof(label.key), (void *)key) ||
		    bpf_probe_read_user(&label.value, sizeof(label.value),
					(void *)(key + SF_GO_BUCKET * sizeof(struct sf_go_string))))
			return 1;
	}
	sf_take_label(&label, walk->sample);
	return 0;
}

static __always_inline bool sf_take_go_labels(const struct sf_words *own, __u64 thread_pointer,
					      struct sf_sample *sample)
{
	struct sf_labels_walk walk = {.sample = sample};
	__u64 g = 0, m = 0, current_g = 0, labels = 0;

	if (bpf_probe_read_user(&g, sizeof(g), (void *)(thread_pointer + own->offset)) || !g ||
	    bpf_probe_read_user(&m, sizeof(m), (void *)(g + own->g_m)) || !m ||
	    bpf_probe_read_user(&current_g, sizeof(current_g), (void *)(m + own->m_curg)) || !current_g ||
	    bpf_probe_read_user(&labels, sizeof(labels), (void *)(current_g + own->g_labels)) || !labels)
		return false;
	if (own->kind == SF_WORDS_GO_SLICE) {
		struct sf_go_string slice;

		if (bpf_probe_read_user(&slice, sizeof(slice), (void *)labels))
			return false;
		walk.labels = slice.text;
		walk.count = slice.bytes;
	} else {
		struct sf_go_map map;
		__u64 address = 0;

		if (bpf_probe_read_user(&address, sizeof(address), (void *)labels) || !address ||
		    bpf_probe_read_user(&map, sizeof(map), (void *)address) || map.bucket_bits)
			return false;
		walk.labels = map.buckets;
		walk.count = SF_GO_BUCKET;
		walk.is_map = 1;
	}
	bpf_loop(SF_GO_LABELS, sf_look_at_label, &walk, 0);
	return true;
}

/* ---------------------------------------------------------------------------------------------------- */

/* Notes in the sample what the application says of its span. Its flags are set. */
static __always_inline void sf_take_words(struct task_struct *task, __u32 tgid, struct sf_sample *sample)
{
	const struct sf_words *own = bpf_map_lookup_elem(&words, &tgid);
	bool is_said;

	__builtin_memset(sample->said_trace_id, 0, sizeof(sample->said_trace_id));
	__builtin_memset(sample->said_span_id, 0, sizeof(sample->said_span_id));
	sample->labels = 0;
	if (!own)
		return;
	if (own->kind == SF_WORDS_GO_SLICE || own->kind == SF_WORDS_GO_MAP)
		is_said = sf_take_go_labels(own, task->thread.fsbase, sample);
	else
		is_said = sf_take_thread_context(own, task->thread.fsbase, sample);
	if (is_said && sf_has_ids(sample))
		sample->flags |= SF_SAMPLE_SAID;
}

#endif /* SF_WORDS_H */
