/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Where HotSpot keeps what unwind/hotspot.h reads, in one process. Part of spanflame.h. */
#ifndef SF_LAYOUTS_HOTSPOT_H
#define SF_LAYOUTS_HOTSPOT_H

#define SF_HOTSPOT_HEAPS 4
#define SF_HOTSPOT_ENTRIES 4

/* A code heap: blocks of code, in segments of 1 << log2_segment bytes, each with a byte in the segment map. */
struct sf_hotspot_heap {
	unsigned long long begin;
	unsigned long long end;         /* of what is reserved */
	unsigned long long segment_map; /* process address of the first segment's byte */
	unsigned long long log2_segment;
};

/*
 * Where the interpreter begins to work on a method. Code addresses: in [begin, pop] the return address is on
 * top of the stack, in (pop, push] it is in rax, at push + 1 and push + 2 `push rbp; mov rbp, rsp` stand.
 */
struct sf_hotspot_entry {
	unsigned long long begin;
	unsigned long long end;
	unsigned long long pop;
	unsigned long long push;
};

/* Map `hotspot_processes`, key = tgid, written by user space. */
struct sf_hotspot {
	unsigned int version; /* the feature release: 17; never 0 */
	unsigned int heap_count;
	unsigned long long code_begin; /* of all code heaps */
	unsigned long long code_end;
	unsigned long long interpreter_begin;
	unsigned long long interpreter_end;
	unsigned long long method_entries_begin; /* code in the interpreter that may have no frame yet */
	unsigned long long method_entries_end;
	unsigned long long nmethod_name; /* CodeBlob::_name of compiled methods, as far as known; else 0 */
	unsigned long long symbol_mask;  /* the first eight bytes of a Symbol that do not change */
	struct sf_hotspot_heap heaps[SF_HOTSPOT_HEAPS];
	struct sf_hotspot_entry entries[SF_HOTSPOT_ENTRIES];

	/* Offsets. */
	unsigned short heap_block_bytes; /* sizeof(HeapBlock): the blob follows it */
	unsigned short heap_block_used;  /* HeapBlock::Header::_used, a byte */
	unsigned short blob_name;
	unsigned short blob_bytes;          /* CodeBlob::_size, 4 bytes */
	unsigned short blob_frame_complete; /* 4 bytes, or 2 if blob_is_compact */
	unsigned short blob_frame_size;     /* in words */
	unsigned short blob_code_begin;     /* a pointer; if blob_is_compact 4 bytes, from the blob on */
	unsigned short blob_is_compact;     /* JDK 23 and later */
	unsigned short blob_read_bytes;     /* of a CodeBlob that is no nmethod */
	unsigned short nmethod_read_bytes;
	unsigned short nmethod_method;
	unsigned short nmethod_compile_id;
	unsigned short nmethod_entry_bci;
	unsigned short nmethod_orig_pc;  /* 4 bytes: offset of the slot in the frame */
	unsigned short nmethod_deopt;    /* pointer, or 4 bytes from the blob on */
	unsigned short nmethod_deopt_mh; /* likewise; 0: there is none */
	unsigned short method_const_method;
	unsigned short const_method_constants;
	unsigned short const_method_code_size;
	unsigned short const_method_name_index;
	unsigned short const_method_signature_index;
	unsigned short const_method_idnum;
	unsigned short const_method_bytes; /* sizeof(ConstMethod): the bytecode follows it */
	unsigned short constants_holder;
	unsigned short klass_name;
	unsigned short reserved[3];
};

#endif /* SF_LAYOUTS_HOTSPOT_H */
