/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Where CPython keeps what unwind/python.h reads, in one process. Part of spanflame.h. */
#ifndef SF_LAYOUTS_PYTHON_H
#define SF_LAYOUTS_PYTHON_H

/* Bits of sf_python.flags: what differs between versions besides offsets. */
enum sf_python_flag {
	SF_PYTHON_INDIRECT_FRAME =
		1, /* thread_frame leads to a _PyCFrame, which has the frame (3.11, 3.12) */
	SF_PYTHON_EVERY_FRAME_ENTERS = 2, /* each frame has an evaluation call of its own (up to 3.10) */
	SF_PYTHON_FLAGGED_ENTRY = 4,      /* frame_entry is a byte that tells it (3.11) */
	SF_PYTHON_OWNED_ENTRY = 8,     /* … and here a frame of its own, told by its owner (3.12 and later) */
	SF_PYTHON_INDEX_POSITION = 16, /* frame_position is an index into the bytecode, not a pointer */
	SF_PYTHON_INDEX_IN_UNITS = 32, /* … in code units of two bytes (3.10) */
	SF_PYTHON_CODE_UNNUMBERED = 64, /* code objects have no version number, so strings tell them apart */
};

/*
 * Map `python_processes`, key = tgid, written by user space. Addresses are of the process, everything else is
 * a number of bytes into the structure that its name begins with.
 */
struct sf_python {
	unsigned int version;                 /* PY_VERSION_HEX as far as it is known: 0x030b07f0; never 0 */
	unsigned int flags;                   /* enum sf_python_flag */
	unsigned long long interpreters_head; /* address of _PyRuntime.interpreters.head */
	unsigned long long code_type;         /* address of PyCode_Type */
	unsigned int interpreter_next;
	unsigned int interpreter_threads;
	/* PyThreadState: `thread_bytes` of it are read, the rest lies within. */
	unsigned short thread_bytes;
	unsigned short thread_prev;
	unsigned short thread_next;
	unsigned short thread_interpreter;
	unsigned short thread_frame;
	unsigned short thread_id;
	unsigned short cframe_frame; /* _PyCFrame.current_frame */
	/* PyFrameObject (up to 3.10) or _PyInterpreterFrame. */
	unsigned short frame_bytes;
	unsigned short frame_code;
	unsigned short frame_previous;
	unsigned short frame_position;
	unsigned short frame_entry; /* is_entry (3.11), owner (3.12 and later) */
	/* PyCodeObject: from its header to code_bytes there is nothing that changes during its life. */
	unsigned short code_bytes;
	unsigned short code_instructions; /* co_code_adaptive */
	unsigned short code_name;         /* co_qualname, before 3.11 co_name */
	unsigned short code_file;
	unsigned short string_header; /* bytes before the characters of a compact ASCII string */
	unsigned short reserved[3];
};

#define SF_PYTHON_THREADS 8192

/* Map `python_threads`: of kernel side only. */
struct sf_python_thread_key {
	unsigned long long owner; /* tgid of the process's entry in python_processes */
	unsigned long long thread_pointer;
};

struct sf_python_thread {
	unsigned long long thread; /* process address of its thread state; 0: it has none */
	unsigned long long interpreter;
	unsigned long long trusted; /* samples for which it is still believed to have none */
};

#endif /* SF_LAYOUTS_PYTHON_H */
