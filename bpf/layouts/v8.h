/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Where V8 keeps what unwind/v8.h reads, in one process. Part of spanflame.h. */
#ifndef SF_LAYOUTS_V8_H
#define SF_LAYOUTS_V8_H

/*
 * Map `v8_processes`, key = tgid, written by user space. Offsets in objects are counted from the object's
 * first byte, not from the tagged pointer to it, which is one more.
 */
struct sf_v8 {
	unsigned int version;           /* major << 16 | minor; never 0 */
	unsigned int function_shared;   /* JSFunction: its SharedFunctionInfo */
	unsigned int shared_type;       /* instance type of SharedFunctionInfo */
	unsigned int map_instance_type; /* Map: u16 */
	unsigned int shared_data;       /* SharedFunctionInfo: bytecode and the like; a Smi: a builtin's */
	unsigned int shared_script;     /* SharedFunctionInfo: Script (or DebugInfo) */
	unsigned int shared_literal;    /* SharedFunctionInfo: u32, which function of its script */
	unsigned int shared_unique;     /* SharedFunctionInfo: u32, unique in its isolate; 0: there is none */
	unsigned int script_id; /* Script: Smi, unique in its isolate; read where there is no unique id */
	unsigned int trampoline_bytes; /* of the builtin InterpreterEntryTrampoline */
	/* ELF addresses in the object whose unwind table has rows of SF_CFA_RUNTIME. */
	unsigned long long builtins_begin;
	unsigned long long builtins_end;
	unsigned long long handlers_begin; /* bytecode handlers: from here to the end of the builtins */
	unsigned long long trampoline_begin;
	/* Of a walk's own copy: the map of an object that was seen to be a SharedFunctionInfo; else 0. */
	unsigned long long shared_map;
};

#endif /* SF_LAYOUTS_V8_H */
