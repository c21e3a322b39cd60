/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The contract with user space for language runtimes: frames that are named by objects of a runtime and not
 * by symbols of a file, and what user space tells of each process's runtime. Part of spanflame.h.
 *
 * Runtimes come in two sorts.
 *
 *   on the stack   V8, HotSpot: generated code has machine frames. unwind/native.h hands such a frame to the
 *                  runtime's unwinder (v8.h, hotspot.h), which goes to the caller and records a script frame;
 *                  among the user frames stands a word of object SF_FRAME_SCRIPT whose address is the script
 *                  frame's index.
 *   aside          CPython: the interpreter's own frames lie in its heap, and one call of its evaluation
 *                  function works through several. python.h reads them once the machine stack is walked; user
 *                  space puts them where that function stands among the user frames. SF_SCRIPT_ENTRY marks
 *                  the last one of each call of the evaluation function.
 *
 * A script frame has addresses and what tells one object from another that comes to lie at the same address
 * (`identity`), because collectors move and reuse memory between sample and reading. Names are read in user
 * space (symbols/src/{python,v8,hotspot}), which computes the identity again and refuses what differs.
 */
#ifndef SF_RUNTIMES_H
#define SF_RUNTIMES_H

#define SF_MAX_SCRIPT_FRAMES 512
#define SF_SEEN_SCRIPTS 16384 /* a power of two; see sf_see_script */
/* The object of a user frame's word that stands for a script frame; ≥ SF_MAX_OBJECTS. */
#define SF_FRAME_SCRIPT 0xff00ULL

enum sf_runtime {
	SF_RUNTIME_NONE = 0,
	SF_RUNTIME_PYTHON = 1,
	SF_RUNTIME_V8 = 2,
	SF_RUNTIME_HOTSPOT = 3,
	SF_RUNTIMES = 4,
};

/* Bits of sf_script_frame.flags. */
enum sf_script_flag {
	SF_SCRIPT_ENTRY = 1, /* CPython: C code called the evaluation function for this frame */
	SF_SCRIPT_LEAF =
		2, /* the innermost frame: `address` is the instruction itself, not a return address - 1 */
};

/* Set in sf_script_frame.kind for machine code that was compiled of the function; else it is interpreted. */
#define SF_SCRIPT_COMPILED 0x80

/* One frame of a runtime. What the fields mean is said at the head of the runtime's unwinder. */
struct sf_script_frame {
	unsigned long long address; /* process address of the machine code, to look up as it is; CPython: 0 */
	unsigned long long object;  /* process address of what names the function */
	unsigned long long other;   /* of a second object, as the runtime has it, or 0 */
	unsigned int position;      /* in the function: bytecode offset or as the runtime has it */
	unsigned int identity;      /* hash of what tells `object` from others at its address */
	unsigned char runtime;      /* enum sf_runtime */
	unsigned char kind;         /* as the runtime's unwinder says, with SF_SCRIPT_COMPILED */
	unsigned char flags;        /* enum sf_script_flag */
	unsigned char reserved[5];
};

/* How reading a runtime's frames ended, for each sample of a process with one. Only add. */
enum sf_script_outcome {
	SF_SCRIPT_NONE = 0,            /* no runtime, or the thread is none of its threads' */
	SF_SCRIPT_COMPLETE = 1,        /* all frames were read */
	SF_SCRIPT_NO_THREAD_STATE = 2, /* the thread's state in the runtime was not found */
	SF_SCRIPT_UNREADABLE = 3,      /* memory that is not resident */
	SF_SCRIPT_INCONSISTENT = 4, /* what was read cannot be: it was being changed, or is no such thing */
	SF_SCRIPT_TRUNCATED = 5,    /* SF_MAX_SCRIPT_FRAMES reached */
	SF_SCRIPT_UNSUPPORTED = 6,  /* a state or version whose layout is not known */
	SF_SCRIPT_OUTCOMES = 7,
};

#include "layouts/hotspot.h"
#include "layouts/python.h"
#include "layouts/v8.h"

#endif /* SF_RUNTIMES_H */
