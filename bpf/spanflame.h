/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The contract between the BPF programs and user space: every event, map value, limit and loss
 * reason that crosses the border, with its unit and its owner (who writes it).
 *
 * Rust sees these types through the skeleton's BTF (src/kernel/abi.rs); the unwind-table types are
 * also declared by the symbols crate, which knows nothing of BPF, and compared with these by size
 * and offset when the binary is compiled.
 *
 * How unwind tables are laid out
 * ------------------------------
 * All variable-size data that the unwinder reads lives in 4 KiB *pages*. Pages come in *slabs*
 * (ARRAY maps of SF_SLAB_PAGES pages, created when needed; mmapable, so that their pages are pages of memory) that
 * stand in one ARRAY_OF_MAPS, so that finding page N is two array look-ups that the JIT inlines, no helper call.
 * A page number is slab * SF_SLAB_PAGES + index; an *extent* is a run of consecutive page numbers. Four things
 * live in pages:
 *
 *   mapping table  of a process: struct sf_mapping, sorted by begin, without overlaps
 *   directory      of an object: one struct sf_directory_entry per 4 KiB chunk of text
 *   rules          of an object: its distinct struct sf_unwind_rule
 *   leaves         of an object: rows (u16 offset in the chunk, u16 rule index), sorted
 *
 * An object's three kinds lie in one extent: directory first, rules, leaves. From pc to rule:
 * chunk = (pc - text_begin) >> 12; directory[chunk] names a leaf and a run of rows in it; a binary
 * search in that one leaf gives the rule index. Each chunk starts with a row for its first byte, so
 * that no search ever looks at the chunk before. User space publishes a new extent before it
 * points to it and frees the old one only after the readers that may hold it are gone.
 */
#ifndef SPANFLAME_H
#define SPANFLAME_H

/* ---- limits -------------------------------------------------------------------------------- */

#define SF_PAGE_BYTES 4096
#define SF_SLAB_PAGES 1024 /* 4 MiB a slab: small hosts need one or two */
#define SF_MAX_SLABS 256   /* 1 GiB of tables in all */
#define SF_MAX_PAGES (SF_MAX_SLABS * SF_SLAB_PAGES)

#define SF_CHUNK_BITS 12                            /* text bytes per directory entry: 4 KiB */
#define SF_LEAF_ROWS 1024                           /* 1024 * (2 + 2) bytes fill a page */
#define SF_RULES_PER_PAGE 256                       /* 16 bytes each */
#define SF_DIRECTORY_PER_PAGE 512                   /* 8 bytes each */
#define SF_MAPPINGS_PER_PAGE 128                    /* 32 bytes each */
#define SF_MAX_MAPPINGS (32 * SF_MAPPINGS_PER_PAGE) /* executable mappings of one process */
#define SF_MAX_OBJECTS 0xff00                       /* ids from here on are no objects, see runtimes.h */
#define SF_OBJECT_SLOTS 16384                       /* entries of map `objects`, ≤ SF_MAX_OBJECTS */
#define SF_MAX_PROCESSES 32768

#define SF_MAX_USER_FRAMES 256
#define SF_MAX_KERNEL_FRAMES 127
#define SF_COMM_BYTES 16

#include "runtimes.h"

/* ---- unwind tables (written by user space, read by BPF) -------------------------------------- */

/* A page, whatever it holds. The alignment lets every kind of content be read as it is. */
struct sf_page {
	unsigned char bytes[SF_PAGE_BYTES];
} __attribute__((aligned(8)));

/* How the canonical frame address (CFA) of a frame is had. Numbers are kept on disk: only add. */
enum sf_cfa {
	SF_CFA_NONE = 0,          /* no unwind information for these addresses */
	SF_CFA_REGISTER = 1,      /* CFA = reg + cfa_offset */
	SF_CFA_DEREF = 2,         /* CFA = *(reg + cfa_offset) + cfa_addend */
	SF_CFA_PLT = 3,           /* CFA = rsp + cfa_offset + ((pc & 15) >= cfa_addend ? 8 : 0) */
	SF_CFA_SIGNAL = 4,        /* rt_sigreturn trampoline: all registers are in the ucontext at rsp */
	SF_CFA_FRAME_POINTER = 5, /* push rbp; mov rbp, rsp: CFA = rbp + 16, rbp and pc below it */
	SF_CFA_END = 6,           /* outermost frame: the return address is undefined */
	SF_CFA_UNSUPPORTED = 7,   /* there is information, but of a form that is not evaluated */
	SF_CFA_RUNTIME = 8,       /* V8's code in the executable (v8.h); elsewhere code that keeps rbp */
};

/* Where a frame saved the caller's rbp. */
enum sf_saved_fp {
	SF_FP_SAME = 0,    /* not touched: the caller's value is in the register */
	SF_FP_AT_CFA = 1,  /* at CFA + fp_offset */
	SF_FP_AT_FP = 2,   /* at rbp + fp_offset (stack realignment of GCC) */
	SF_FP_UNKNOWN = 3, /* overwritten, or a form that is not evaluated: lost from here on */
};

/* Where the return address is. */
enum sf_return_address {
	SF_RA_AT_CFA = 0,      /* at CFA - 8, as on every call */
	SF_RA_IN_REGISTER = 1, /* in ra_register (vfork keeps it in rdi) */
};

/* Registers by their DWARF numbers (System V ABI x86-64, figure 3.36). */
enum sf_register {
	SF_RAX = 0,
	SF_RDX = 1,
	SF_RCX = 2,
	SF_RBX = 3,
	SF_RSI = 4,
	SF_RDI = 5,
	SF_RBP = 6,
	SF_RSP = 7,
	SF_R8 = 8,
	SF_R15 = 15,
};

/* One way to get from a frame to its caller. 16 bytes. */
struct sf_unwind_rule {
	unsigned char cfa;            /* enum sf_cfa */
	unsigned char cfa_register;   /* enum sf_register, for REGISTER and DEREF */
	unsigned char frame_pointer;  /* enum sf_saved_fp */
	unsigned char return_address; /* low nibble enum sf_return_address, high nibble its register */
	int cfa_offset;               /* bytes */
	int cfa_addend;               /* bytes; for PLT the low four bits of pc from which it is pushed */
	short fp_offset;              /* bytes from the CFA or rbp */
	short rbx_offset;             /* caller's rbx at CFA + this; 0: not touched. Only objects whose
	                               * CFA is somewhere based on rbx (ld.so) carry it. */
};

/* A run of rows of one leaf: the rows of one 4 KiB chunk of text. count 0: nothing is known. */
struct sf_directory_entry {
	unsigned int leaf;    /* pages from the object's first leaf page */
	unsigned short first; /* index of the chunk's first row in the leaf */
	unsigned short count; /* rows, at most SF_LEAF_ROWS */
};

struct sf_leaf {
	unsigned short pc[SF_LEAF_ROWS];   /* address - start of its chunk */
	unsigned short rule[SF_LEAF_ROWS]; /* index in the object's rules; rule 0 is always NONE */
};

/*
 * Map `objects`, index = object id (1 … SF_OBJECT_SLOTS - 1; 0 is "no object"). Written by memory
 * writes of user space, `state` last; readers look at `state` first.
 */
struct sf_object {
	unsigned long long text_begin; /* ELF address of the first chunk, multiple of 4 KiB */
	unsigned int chunks;           /* directory entries; 0: no table (yet) */
	unsigned int directory_page;   /* page number of the extent */
	unsigned int rules_page;       /* page number of the first page of rules */
	unsigned int leaf_page;        /* page number of the first leaf */
	unsigned short state;          /* enum sf_object_state */
	unsigned short flags;          /* enum sf_object_flag */
	unsigned int generation;       /* grows with every change of this slot */
};

enum sf_object_flag {
	/* The rules say where rbx is saved. Passing through a frame of any other object loses rbx. */
	SF_OBJECT_TRACKS_RBX = 1,
};

enum sf_object_state {
	SF_OBJECT_FREE = 0,
	SF_OBJECT_PENDING = 1, /* its table is being built */
	SF_OBJECT_READY = 2,
	SF_OBJECT_NO_INFO = 3, /* read, and it has no unwind information, or it could not be read */
};

/* What an executable mapping holds, which decides how its frames are unwound. */
enum sf_mapping_kind {
	SF_MAPPING_OBJECT = 1,  /* file or vDSO: the object's table */
	SF_MAPPING_JIT = 2,     /* anonymous or memfd without ELF: frame pointers */
	SF_MAPPING_UPROBES = 3, /* [uprobes]: return addresses replaced by the kernel */
};

/* An executable mapping of a process, half open [begin, end), process addresses. 32 bytes. */
struct sf_mapping {
	unsigned long long begin;
	unsigned long long end;
	unsigned long long bias; /* process address - ELF address; wraps */
	unsigned int object;     /* object id, for OBJECT */
	unsigned int kind;       /* enum sf_mapping_kind */
};

/*
 * Map `processes`, key = tgid in the initial pid namespace.
 *
 * User space owns the mapping tables and frees their pages; the kernel side only ever adds and
 * deletes entries. A child of fork runs before user space can hear of it, in a copy of its parent's
 * address space, so the fork handler gives it an *alias*: an entry without a table of its own that
 * names the parent and the version of the parent's entry. The sampler follows an alias once, and only
 * while the parent's entry still has that version. Pages are thus reachable from their owner's entry
 * alone, and can be freed without knowing who forked. An alias of an alias names the same owner. exec
 * deletes the entry if it is of the old program. That it is of the new one is possible, because user
 * space hears of the new program's mappings before the exec is over; image_ns tells.
 */
struct sf_process {
	unsigned int mapping_page;   /* first page of the mapping table's extent */
	unsigned int mappings;       /* entries */
	unsigned int flags;          /* enum sf_process_flag */
	unsigned int version;        /* differs between any two tables of any process; never 0 */
	unsigned int alias_of;       /* tgid whose table it is; 0: the entry has its own */
	unsigned int alias_version;  /* … as long as that entry has this version */
	unsigned long long image_ns; /* CLOCK_MONOTONIC; the table's program ran by then; 0 in an alias */
};

enum sf_process_flag {
	/* User space has looked at the process: a pc outside of every mapping is news, not ignorance. */
	SF_PROCESS_KNOWN = 1,
};

/* Map `targets`, key = tgid; used when `sf_config.only_targets` is set. */
struct sf_target {
	unsigned int follow_children; /* 1: a child made by fork is a target too */
};

/* ---- samples (written by BPF, read by user space) -------------------------------------------- */

/* How unwinding the user stack ended. src/model/outcome.rs has a sentence for each. Only add. */
enum sf_outcome {
	SF_OUTCOME_COMPLETE = 0,           /* the outermost frame was reached */
	SF_OUTCOME_NO_USER = 1,            /* a kernel thread, or a task without memory: ending, in execve */
	SF_OUTCOME_UNKNOWN_PROCESS = 2,    /* no mapping table for the process yet */
	SF_OUTCOME_UNKNOWN_MAPPING = 3,    /* pc in no executable mapping that is known */
	SF_OUTCOME_TABLE_PENDING = 4,      /* the object's unwind table is still being built */
	SF_OUTCOME_NO_TABLE = 5,           /* the object has no unwind information at all */
	SF_OUTCOME_NO_RULE = 6,            /* the object has a table, but nothing for this pc */
	SF_OUTCOME_UNSUPPORTED_RULE = 7,   /* a form of rule that is not evaluated */
	SF_OUTCOME_STACK_UNREADABLE = 8,   /* user memory not resident: it is not faulted in */
	SF_OUTCOME_REGISTER_LOST = 9,      /* the rule needs a register that is not known here */
	SF_OUTCOME_STACK_NOT_RISING = 10,  /* the CFA did not grow: a loop or garbage */
	SF_OUTCOME_FRAME_POINTER_END = 11, /* a frame-pointer chain that ended in no known code */
	SF_OUTCOME_TRUNCATED = 12,         /* SF_MAX_USER_FRAMES reached */
	SF_OUTCOME_NO_REGISTERS = 13,      /* the user registers of the thread could not be had */
	SF_OUTCOME_UPROBE_RETURN = 14,     /* in a pending uretprobe whose true return address is gone */
	SF_OUTCOMES = 15,
};

/*
 * A user frame is one word: the object id in the upper 16 bits and the ELF address in the lower 48;
 * object 0 means a process address (JIT code, or no mapping known). Callers carry the address of
 * their call instruction's last byte (return address - 1), so every address is one to look up as it
 * is. Object SF_FRAME_SCRIPT: the address is the index of a script frame (runtimes.h).
 */
#define SF_FRAME_OBJECT_SHIFT 48
#define SF_FRAME_ADDRESS_MASK 0xffffffffffffULL

enum sf_sample_flag {
	SF_SAMPLE_IN_KERNEL = 1,        /* taken in kernel mode */
	SF_SAMPLE_KERNEL_TRUNCATED = 2, /* SF_MAX_KERNEL_FRAMES reached */
	SF_SAMPLE_SAID = 4,             /* said_trace_id and said_span_id are set, by the application */
	SF_SAMPLE_SHARED = 8,           /* … by another tracer */
};

enum sf_event_type {
	SF_EVENT_SAMPLE = 1,
};

/*
 * What a program says of what it is at, besides ids: a label of Go's profiler. Names that are longer than there
 * is room for are left out, values are cut.
 */
#define SF_MAX_LABELS 8
#define SF_LABEL_NAME_BYTES 32
#define SF_LABEL_VALUE_BYTES 92

struct sf_label {
	unsigned char name_bytes;
	unsigned char value_bytes;
	unsigned char is_cut; /* 1: the value is longer */
	unsigned char reserved;
	char name[SF_LABEL_NAME_BYTES];
	char value[SF_LABEL_VALUE_BYTES];
};

/*
 * Ring buffer `events`. Of `frames` only kernel_frames + user_frames words are sent, and behind them, at once,
 * script_frames of `struct sf_script_frame`, of which those from aside_frame on are of CPython and stand in no
 * word, and `labels` of `struct sf_label`.
 */
struct sf_sample {
	unsigned int type; /* enum sf_event_type */
	unsigned int cpu;
	unsigned long long time_ns; /* CLOCK_MONOTONIC */
	unsigned int pid;           /* tgid, initial pid namespace */
	unsigned int tid;
	unsigned short kernel_frames;
	unsigned short user_frames;
	unsigned char outcome;         /* enum sf_outcome */
	unsigned char flags;           /* enum sf_sample_flag */
	unsigned short ticks;          /* ticks of its CPU's timer that it stands for, at least 1 */
	unsigned long long request;    /* key of the open request of its goroutine or thread, else 0 */
	unsigned long long stopped_at; /* process address at which an incomplete walk ended, else 0 */
	unsigned short script_frames;
	unsigned short aside_frame;
	unsigned char runtime;        /* enum sf_runtime that script_outcome is about */
	unsigned char script_outcome; /* enum sf_script_outcome */
	unsigned char labels;
	unsigned char reserved;
	unsigned char said_trace_id[16]; /* the span that the application, or another tracer, says it is in */
	unsigned char said_span_id[8];
	char comm[SF_COMM_BYTES];        /* of the process (thread group leader) */
	char thread_name[SF_COMM_BYTES]; /* of the thread */
	unsigned long long frames[SF_MAX_KERNEL_FRAMES + SF_MAX_USER_FRAMES]; /* kernel leaf → root,
	                                                                       * then user leaf → root */
	struct sf_script_frame scripts[SF_MAX_SCRIPT_FRAMES]; /* room for them; see above where they are */
	struct sf_label label[SF_MAX_LABELS];                 /* likewise */
};

/* ---- counters: per-CPU array `counters`, never reset ------------------------------------------ */
/* ticks = idle + not_selected + thinned + taken; taken = sent + lost_*. */
enum sf_counter {
	SF_COUNTER_TICKS = 0,        /* timer interrupts seen by the program */
	SF_COUNTER_IDLE = 1,         /* … of them on an idle CPU */
	SF_COUNTER_NOT_SELECTED = 2, /* … of them in a process that was not asked for */
	SF_COUNTER_TAKEN = 3,
	SF_COUNTER_SENT = 4,
	SF_COUNTER_LOST_RING_FULL = 5,
	SF_COUNTER_LOST_NO_SCRATCH = 6, /* the per-CPU scratch could not be had */
	SF_COUNTER_USER_FRAMES = 7,     /* sum over all samples, for ns per frame */
	SF_COUNTER_KERNEL_FRAMES = 8,
	SF_COUNTER_THINNED = 9,        /* ticks that a later sample of their CPU stands for */
	SF_COUNTER_OVER_BUDGET = 10,   /* … of them within a request: sampling took its share of the second */
	SF_COUNTER_STAMPED = 11,       /* taken within a request */
	SF_COUNTER_SAID = 12,          /* taken in a span that the application named */
	SF_COUNTER_SHARED = 13,        /* … that another tracer named, and nobody else */
	SF_COUNTER_SCRIPT_FRAMES = 14, /* sum over all samples, for ns per frame */
	SF_COUNTERS = 15,
};

/* Value of the map otel/traces_ctx_v1, see shared_contexts.h. Ids as on the wire. */
struct sf_shared_context {
	unsigned char trace_id[16];
	unsigned char span_id[8];
};
#define SF_MAX_SHARED_CONTEXTS 16384 /* as all who make it make it */

/* How a process says in which span a thread is; words.h tells. */
enum sf_words_kind {
	SF_WORDS_THREAD = 1,   /* OTEP 4947, the pointer `offset` from the thread pointer */
	SF_WORDS_MODULE = 2,   /* … `offset` into the thread's block of `module` */
	SF_WORDS_GO_SLICE = 3, /* labels of Go's profiler; `offset` from the thread pointer to g */
	SF_WORDS_GO_MAP = 4,   /* … of Go 1.23 and older */
};

/* Map `words`, key = tgid, written by user space. Offsets in bytes. */
struct sf_words {
	unsigned int kind; /* enum sf_words_kind */
	unsigned int module;
	long long offset;
	unsigned int g_m;
	unsigned int m_curg;
	unsigned int g_labels;
	unsigned int reserved;
};

/* Read-only data of sample.bpf.c (section .rodata.config), set before loading. */
struct sf_config {
	unsigned int only_targets;     /* 1: only processes in `targets` */
	unsigned int exclude_agent;    /* 1: ticks in the agent itself count as not selected */
	unsigned int wake_at_bytes;    /* wake the reader when this much lies in the ring */
	unsigned int wake_interval_ns; /* … or for news about a process, at most this often a CPU */
	/*
	 * 0: requests are not looked up, each tick is a sample. Else a tick within a request is one, and of
	 * all others each such one, which stands for as many.
	 */
	unsigned int ticks_per_sample;
	unsigned int budget_ns; /* time a second and CPU that samples within requests may take, then they
				 * are as rare as all others */
};

/* ---- sockets (written by socket.bpf.c, read by user space) ------------------------------------- */

/*
 * Which end of which connection: TCP sockets by their cookie, UNIX sockets by their inode number with
 * the highest bit set. Ids are not used twice while the host is up (inode numbers: not soon).
 *
 * A request's key is minted by the kernel side, because a sample needs it at the first byte: the CPU's
 * number in the upper 16 bits and a count in the lower 48, never 0. With it come the ids that its span
 * will have. User space confirms them, replaces them or drops them; a sample carries the key alone.
 *
 * Who is at a request is kept in two places. `threads` (task storage) has what each thread does;
 * `goroutines` (hash by tgid and goroutine id) what each goroutine does, for processes that
 * `go_processes` describes. The sampler looks there and writes nothing. A key that was minted where a
 * goroutine begins to work on a request (go.bpf.c) has bit 47 set.
 */
#define SF_CONNECTION_UNIX (1ULL << 63)
#define SF_REQUEST_CPU_SHIFT 48

#define SF_MAX_CONNECTIONS 65536 /* followed at a time; those beyond are counted */
#define SF_MAX_GOROUTINES 32768  /* with an open request at a time; the oldest are forgotten */
#define SF_MAX_GO_SENDERS 4096   /* goroutines that wait for an HTTP/2 answer; the oldest are forgotten */
#define SF_MAX_GO_READS 65536    /* goroutines that read from TLS; of those beyond, what they read is lost */
#define SF_HEAD_BYTES 2048       /* captured of each call with SF_CAPTURE_HEADS, less the tail */
#define SF_TAIL_BYTES 64         /* the last bytes of a longer call */
#define SF_WHOLE_BYTES 16384     /* captured of each call with SF_CAPTURE_WHOLE */

/* How much of a connection user space wants to see. */
enum sf_capture {
	SF_CAPTURE_HEADS = 0, /* as all begin */
	SF_CAPTURE_WHOLE = 1,
	SF_CAPTURE_NOTHING = 2, /* no event at all until it ends */
	/*
	 * Added to those: it is said of the plain bytes inside of TLS. What is said of a connection's bytes as
	 * they are on the wire holds until plain ones come; from then on they are not captured.
	 */
	SF_CAPTURE_OF_DECRYPTED = 8,
};

enum sf_direction {
	SF_IN = 0,
	SF_OUT = 1,
};

enum sf_role {
	SF_ROLE_UNKNOWN = 0,
	SF_ROLE_ACCEPTED = 1,
	SF_ROLE_CONNECTED = 2,
};

/* An end of a connection. */
struct sf_endpoint {
	unsigned char
		address[16];   /* IPv6, or IPv4 mapped into it; UNIX: the inode number in the first 8 bytes */
	unsigned short port;   /* host byte order */
	unsigned short family; /* AF_INET, AF_INET6, AF_UNIX */
	unsigned int reserved;
};

enum sf_socket_event_type {
	SF_SOCKET_OPENED = 1,
	SF_SOCKET_DATA = 2,
	SF_SOCKET_AMENDED = 3,
	SF_SOCKET_SHUT_DOWN = 4,
	SF_SOCKET_ENDED = 5,
	SF_SOCKET_STREAM = 6,
	SF_SOCKET_LISTENS = 7, /* nothing but the head: a TCP socket is to be connected to */
	SF_SOCKET_NEW_CODE = 8,
	SF_SOCKET_IO_URING = 9, /* nothing but the head, of no connection: somebody uses io_uring */
};

/* Ring buffer `socket_events`: each event begins so. */
struct sf_socket_event {
	unsigned int type; /* enum sf_socket_event_type */
	unsigned int cpu;
	unsigned long long time_ns; /* CLOCK_MONOTONIC: reads when they return, writes when they begin */
	unsigned long long connection;
	unsigned int pid; /* tgid, initial pid namespace; 0: nobody's doing */
	unsigned int tid;
	unsigned long long goroutine; /* goroutine id, 0: none */
};

/* A connection's first event, before its first bytes or its failure. */
struct sf_socket_opened {
	struct sf_socket_event event;
	struct sf_endpoint local;
	struct sf_endpoint peer;
	unsigned long long opened_by; /* request that was open where it was connected, else 0 */
	unsigned long long opener_goroutine;
	unsigned int opener_pid;
	unsigned int opener_tid;
	unsigned int role;              /* enum sf_role */
	unsigned int network_namespace; /* its inode number; 0: unknown */
};

enum sf_data_flag {
	SF_DATA_DECRYPTED = 1,  /* from a TLS library; its positions count plain bytes */
	SF_DATA_MINTED = 2,     /* `minted` is set: a request begins here, or up to 7 bytes before */
	SF_DATA_UNREADABLE = 4, /* the memory could not be read: nothing is captured */
	SF_DATA_RECEIVED = 8, /* of a minted request: `trace_id` and `parent_span_id` came in TCP's header */
	SF_DATA_SENT = 16,    /* … `trace_id` and `span_id` go out in TCP's header */
	SF_DATA_EVENT_LOOP = 32, /* by a thread that serves many at a time: for whom is not known */
	SF_DATA_SEQUENCE = 64,   /* `sequence`: TCP's number of the first byte, the same at both ends */
	SF_DATA_POOLED =
		128, /* `within` is the request whose thread has taken the connection out of a pool */
};

/* Added to positions where it is not known how many bytes are missing. */
#define SF_UNKNOWN_GAP (1ULL << 40)

/* What a call moved. Only head_bytes + tail_bytes of `bytes` are sent. */
struct sf_socket_data {
	struct sf_socket_event event;
	unsigned long long position;     /* of the first byte in its stream */
	unsigned long long length;       /* bytes moved; for a write: to be moved, see SF_SOCKET_AMENDED */
	unsigned long long within;       /* request that was open where this was done, else 0 */
	unsigned long long minted;       /* key of the request that begins here, else 0 */
	unsigned char trace_id[16];      /* of `minted` */
	unsigned char span_id[8];        /* of `minted` */
	unsigned char parent_span_id[8]; /* see SF_DATA_RECEIVED */
	unsigned int head_bytes;
	unsigned int tail_bytes;
	unsigned int direction; /* enum sf_direction */
	unsigned int flags;     /* enum sf_data_flag */
	unsigned int sequence;  /* see SF_DATA_SEQUENCE */
	unsigned int reserved;
	unsigned char bytes[SF_WHOLE_BYTES];
};

/* The write at `position` moved only `length` bytes. */
struct sf_socket_amended {
	struct sf_socket_event event;
	unsigned long long position;
	unsigned long long length;
	unsigned int flags; /* enum sf_data_flag: DECRYPTED */
	unsigned int reserved;
};

struct sf_socket_shut_down {
	struct sf_socket_event event;
	unsigned int direction; /* enum sf_direction */
	unsigned int reserved;
};

/*
 * Who works on a request of a connection that carries many (HTTP/2): the event's goroutine. Of a request that was
 * read the event comes after its head, of one that is written before it.
 */
struct sf_socket_stream {
	struct sf_socket_event event;
	unsigned long long request; /* SF_IN: its key; SF_OUT: the one within which it is asked, 0: none */
	unsigned int stream;
	unsigned int direction; /* enum sf_direction */
};

/*
 * A process has mapped what may be a TLS library, or runs another program: not about a connection, which is 0.
 */
struct sf_socket_new_code {
	struct sf_socket_event event;
	unsigned int is_program;
	unsigned int reserved;
};

enum sf_ending {
	SF_ENDING_CLOSED = 0,
	SF_ENDING_RESET = 1,
	SF_ENDING_TIMED_OUT = 2,
	SF_ENDING_NOT_CONNECTED = 3,
	SF_ENDING_FAILED = 4,
};

struct sf_socket_ended {
	struct sf_socket_event event;
	unsigned int ending; /* enum sf_ending */
	int error;           /* errno of the socket, 0: none */
	unsigned long long
		moved[2]; /* bytes in all, by enum sf_direction; whoever was told of fewer has missed some */
	unsigned int is_decrypted; /* they are plain bytes inside of TLS */
	unsigned int reserved;
};

/* Map `unexplained`, key = tgid: what a process has moved that no system call explains. */
struct sf_unexplained {
	unsigned long long bytes[2]; /* by enum sf_direction */
};
#define SF_MAX_UNEXPLAINED 256 /* processes */

/* Read-only data of socket.bpf.c (section .rodata.config), set before loading. */
struct sf_socket_config {
	unsigned int wake_at_bytes; /* wake the reader each time that so much more was sent; a power of two */
	unsigned int exclude_agent; /* 1: nothing that the agent itself does is looked at */
	unsigned int cpus;          /* possible numbers of CPUs are below it */
	unsigned int leaves_some_alone; /* 1: processes in the map `left_alone` are not looked at */
};

/*
 * Map `excluded_ports`, one bit a port: word port / 64, bit port % 64. Connections with such a port at
 * either end are not followed.
 */
#define SF_PORT_WORDS 1024

/* Per-CPU array `socket_counters`, never reset. */
enum sf_socket_counter {
	SF_SOCKET_COUNTER_EVENTS = 0,          /* sent */
	SF_SOCKET_COUNTER_BYTES = 1,           /* moved by calls that were looked at, both directions */
	SF_SOCKET_COUNTER_CONNECTIONS = 2,     /* followed, from then to now */
	SF_SOCKET_COUNTER_MINTED = 3,          /* requests that seemed to begin */
	SF_SOCKET_COUNTER_AMENDED = 4,         /* writes that moved less than asked for */
	SF_SOCKET_COUNTER_READ_LATE = 5,       /* writes whose memory could be read only when they returned */
	SF_SOCKET_COUNTER_LOST_RING_FULL = 6,  /* events for which there was no room */
	SF_SOCKET_COUNTER_LOST_NO_SCRATCH = 7, /* calls: the per-CPU scratch was in use or could not be had */
	SF_SOCKET_COUNTER_LOST_NO_THREAD = 8,  /* calls: no memory for the thread's state */
	SF_SOCKET_COUNTER_LOST_CONNECTION = 9, /* calls: SF_MAX_CONNECTIONS are followed already */
	SF_SOCKET_COUNTER_LOST_NO_COOKIE = 10, /* calls on TCP sockets that have no cookie */
	SF_SOCKET_COUNTER_LOST_UNREADABLE = 11,   /* events without bytes: the memory could not be read */
	SF_SOCKET_COUNTER_LOST_32_BIT = 12,       /* calls of 32-bit programs, which are not read */
	SF_SOCKET_COUNTER_LOST_PROTOCOL = 13,     /* calls on stream sockets of MPTCP, SCTP, … */
	SF_SOCKET_COUNTER_LOST_REQUEST = 14,      /* requests that could not be noted for who reads them */
	SF_SOCKET_COUNTER_UNEXPLAINED_IN = 15,    /* bytes received that no system call explains: io_uring */
	SF_SOCKET_COUNTER_UNEXPLAINED_OUT = 16,   /* … and sent */
	SF_SOCKET_COUNTER_CONTEXTS_SENT = 17,     /* requests whose context goes out in TCP's header */
	SF_SOCKET_COUNTER_CONTEXTS_RECEIVED = 18, /* … whose context came in it */
	SF_SOCKET_COUNTER_CONTEXTS_STRAY = 19, /* contexts that came, but not with a request's first byte */
	SF_SOCKET_COUNTER_EVENT_LOOP = 20, /* requests read by threads that serve many: nobody is at them */
	SF_SOCKET_COUNTER_AFTER_END = 21,  /* calls on TCP connections whose end has been told */
	SF_SOCKET_COUNTERS = 22,
};

/*
 * Map `event_loops`, key = tgid, written by user space: programs whose event loops are known, see
 * socket/requests.h.
 */
enum sf_event_loop {
	SF_EVENT_LOOP_PROMPT = 1, /* it handles each event to its end */
	SF_EVENT_LOOP_TURNS = 2,  /* it says when it has done so with all that came together (turns.bpf.c) */
};

/*
 * Map `propagation`, one entry, written by user space: whether contexts go out in TCP's header, and of which
 * traces that nobody has decided on: those whose lower 63 bits are below the bound.
 */
struct sf_propagation {
	unsigned long long sampling_bound;
	unsigned int is_on;
	unsigned int inserts_headers; /* … and in a header of HTTP/1 where that can be (http_header.bpf.c) */
};

/*
 * Per-CPU array `header_counters`, never reset: what has become of each request whose context goes out while headers
 * are inserted, and of connections.
 */
enum sf_header_counter {
	SF_HEADER_COUNTER_INSERTED = 0,
	SF_HEADER_COUNTER_LEFT_CONNECTION = 1, /* it was not connected here since, or is not fit for it */
	SF_HEADER_COUNTER_LEFT_CONTEXT = 2,    /* the head has a context of another kind, or a broken one */
	SF_HEADER_COUNTER_LEFT_HEAD = 3,       /* its head is not whole in what was looked at of the call */
	SF_HEADER_COUNTER_LEFT_LINE = 4, /* its first line is not that of HTTP/1.0 or 1.1, or is too long */
	SF_HEADER_COUNTER_LEFT_LATE = 5, /* its memory could not be read before it was sent */
	SF_HEADER_COUNTER_LEFT_CHANGED = 6,        /* TCP was given something else than the call showed */
	SF_HEADER_COUNTER_LEFT_UNACKNOWLEDGED = 7, /* something that was sent before is still on its way */
	SF_HEADER_COUNTER_LEFT_NO_ROOM = 8,        /* the kernel has no room in what is to be sent */
	SF_HEADER_COUNTER_FAILED = 9,              /* room was made, and could not be written */
	SF_HEADER_COUNTER_CONNECTIONS = 10,        /* that were made ready for headers */
	SF_HEADER_COUNTER_LOST_CONNECTION = 11,    /* … that could not be: too many, or the kernel refuses */
	SF_HEADER_COUNTERS = 12,
};

#define SF_MAX_HEADER_CONNECTIONS 16384 /* made ready for headers at a time; those beyond are counted */

/*
 * Map `publishing`, one entry, written by user space: whether other profilers are told which request a thread is at.
 */
struct sf_publishing {
	unsigned int is_on;
	unsigned int
		at_once; /* … of requests whose context says that they are sampled: as soon as they are read */
};
#define SF_MAX_FINAL_CONTEXTS 4096 /* requests that are to be told of at a time */

/*
 * Map `go_processes`, key = tgid, written by user space: how to get from a thread of a Go program to its
 * goroutine. g = *(fsbase + tls_offset); the goroutine is *(*(*(g + g_m) + m_curg) + g_goid). Bytes.
 */
struct sf_go_process {
	int tls_offset;
	unsigned int g_m;
	unsigned int m_curg;
	unsigned int g_goid;
	unsigned int g_parent_goid; /* 0: this version does not have it */
	unsigned int g_start_pc;
	unsigned int m_p; /* the processor that the thread has, the one before its system call follows */
	unsigned int
		p_goidcache; /* the next goroutine id that the processor gives, the end of its ids follows */
	unsigned long long goroutine_ids; /* where the last id is that was given to a processor; 0: unknown */
	unsigned int code_ranges;         /* entries of sf_go_code that count; 0: nothing is inherited */
	unsigned int http2_sender_ranges; /* of those the first ones: code that sends one HTTP/2 request */
	/* Of gRPC, if its programs are attached: see GrpcOffsets in symbols/src/go/request_code.rs. */
	unsigned int grpc_stream_id;
	unsigned int grpc_server_conn;
	unsigned int grpc_writer_conn;
	unsigned int grpc_stream_is_pointer;
};

/* Per-CPU array `go_counters`, never reset. */
enum sf_go_counter {
	SF_GO_COUNTER_HANDLERS = 0,  /* streams whose goroutine became known */
	SF_GO_COUNTER_ASKERS = 1,    /* requests whose asking goroutine was seen */
	SF_GO_COUNTER_INHERITED = 2, /* goroutines found to work for who began them, at a probe */
	SF_GO_COUNTER_LOST_CONNECTION =
		3, /* calls whose connection was not found: of an unknown kind, or none */
	SF_GO_COUNTERS = 4,
};

#define SF_MAX_GO_CODE_RANGES 160
#define SF_MAX_GO_CODE_RANGES_LOG2 8

struct sf_code_range {
	unsigned long long begin;
	unsigned long long end; /* behind the last byte */
};

/*
 * Map `go_code`, key = tgid, written by user space: where goroutines begin that work for who began them, as
 * process addresses. First code that sends one HTTP/2 request each, then the program's own, each in order
 * of address.
 */
struct sf_go_code {
	struct sf_code_range ranges[SF_MAX_GO_CODE_RANGES];
};

/* ---- TLS libraries (tls.bpf.c) ------------------------------------------------------------------ */

/* What a probe sits on: the cookie that user space gives it. The names are OpenSSL's. */
enum sf_tls_function {
	SF_TLS_READ = 1,      /* int SSL_read(SSL *, void *, int) */
	SF_TLS_READ_EX = 2,   /* int SSL_read_ex(SSL *, void *, size_t, size_t *) */
	SF_TLS_WRITE = 3,     /* int SSL_write(SSL *, const void *, int) */
	SF_TLS_WRITE_EX = 4,  /* int SSL_write_ex(SSL *, const void *, size_t, size_t *) */
	SF_TLS_SENDFILE = 5,  /* ssize_t SSL_sendfile(SSL *, int, off_t, size_t, int) */
	SF_TLS_HANDSHAKE = 6, /* int SSL_do_handshake(SSL *), SSL_connect, SSL_accept */
	SF_TLS_WRITE_EX2 = 7, /* int SSL_write_ex2(SSL *, const void *, size_t, uint64_t, size_t *) */
};

/* Per-CPU array `tls_counters`, never reset. */
enum sf_tls_counter {
	SF_TLS_COUNTER_READS = 0,           /* that gave plain bytes */
	SF_TLS_COUNTER_WRITES = 1,          /* that took plain bytes, each attempt */
	SF_TLS_COUNTER_BYTES = 2,           /* plain bytes told, both directions */
	SF_TLS_COUNTER_BOUND = 3,           /* objects whose connection became known */
	SF_TLS_COUNTER_CONTRADICTED = 4,    /* … and then seemed to be another one: known no more */
	SF_TLS_COUNTER_MOVED = 5,           /* … and then was certainly another one */
	SF_TLS_COUNTER_LOST_UNBOUND = 6,    /* reads and writes of objects whose connection is not known */
	SF_TLS_COUNTER_LOST_GONE = 7,       /* … whose connection is not followed, or no more */
	SF_TLS_COUNTER_LOST_NO_SCRATCH = 8, /* reads and writes: no scratch was free */
	SF_TLS_COUNTER_LOST_NO_THREAD = 9,  /* calls: no memory for the thread's state */
	SF_TLS_COUNTER_LOST_DEPTH = 10,     /* calls within SF_MAX_TLS_CALLS calls */
	SF_TLS_COUNTER_LOST_RETURN = 11,    /* returns of reads and writes whose beginning was not seen */
	SF_TLS_COUNTER_LOST_NO_ROOM = 12,   /* objects: no room for another pair */
	SF_TLS_COUNTERS = 13,
};

#define SF_MAX_TLS_CALLS 4 /* within each other on one thread: TLS in TLS, handshakes */

#endif /* SPANFLAME_H */
