/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Frames of CPython 3.8 to 3.14, which lie aside of the machine stack.
 *
 * How the interpreter keeps them. Each thread that runs Python has a thread state for its interpreter (there
 * may be several interpreters in a process). It leads to the innermost frame, each frame to the one that
 * called it and to its code object, which says what function it is.
 *
 *   3.8 – 3.10   tstate->frame → PyFrameObject, by f_back. Every frame is worked through by a call of
 *                _PyEval_EvalFrameDefault of its own. f_lasti is the index of the instruction: in bytes up to
 *                3.9, in units of two bytes in 3.10.
 *   3.11         tstate->cframe → _PyCFrame.current_frame → _PyInterpreterFrame, by previous. Python functions
 *                that call Python functions stay in one evaluation call; is_entry marks the frame it began
 *                with. prev_instr points to the instruction.
 *   3.12         likewise, but what marks an evaluation call is a frame without a function, of owner
 *                FRAME_OWNED_BY_CSTACK, which lies in the C stack before the first frame of the call.
 *   3.13         tstate->current_frame; f_executable need not be a code object in such a frame (None).
 *   3.14         references have tags in their lowest bits; owner FRAME_OWNED_BY_INTERPRETER. The evaluation
 *                function may be split into one function for each instruction, which call each other in tail
 *                position; _PyEval_EvalFrameDefault stays on the stack below them all the same.
 *
 * A generator's or coroutine's frame lies in its object and is linked in as any other while it runs.
 *
 * The thread state of the sampled thread is found without anything of the thread's own: by walking all threads
 * of all interpreters and comparing thread_id, which is pthread_self(), which with glibc and musl is the thread
 * pointer. What was found is remembered, and each time checked to be still in its list and still this thread's.
 * A thread with frames in several interpreters is refused: which of them came first is not known.
 *
 * What is recorded of a frame: object = its code object; position = byte offset of the instruction in the
 * bytecode, SF_PYTHON_NOT_BEGUN before the first; identity = a hash over the fields of the code object, which never
 * change, among them in 3.12 and later its version number. Before that, where the next code object often comes
 * to lie in the very memory of one that was freed, with all that belongs to it, the characters of its name and
 * file are hashed too. symbols/src/python/code.rs computes it again. kind = the frame's owner.
 *
 * An innermost evaluation call may have no frame in the list: it has just begun, or is about to return. Hence
 * evaluation calls and segments of frames are to be matched from the outermost on.
 *
 * Not covered: free-threaded builds (their layout is refused in user space); the thread of a frame whose greenlet is
 * suspended (it is not running). In 3.13 and later the evaluation function does not store each instruction
 * that it executes, so the innermost frame's position may be one of a few instructions earlier.
 *
 * Cost: reads for each sample 4, for each frame 2, before 3.12 3, and 4 where its file is not that of the one before.
 */
#ifndef SF_UNWIND_PYTHON_H
#define SF_UNWIND_PYTHON_H

#define SF_PYTHON_NOT_BEGUN 0xffffffffU

/* Threads and interpreters that are looked at for one that is not known. */
#define SF_PYTHON_MAX_THREADS 4096
/* That no thread state was found is only remembered where looking took this many, and for so many samples. */
#define SF_PYTHON_MANY_THREADS 64
#define SF_PYTHON_TRUST_NONE 16

/* Between two frames of functions there may be one of an evaluation call. */
#define SF_PYTHON_MAX_STEPS (2 * SF_MAX_SCRIPT_FRAMES + 2)

/* walk->object_bytes: a thread state, a frame or a string in its first half, a code object in the other. */
#define SF_PYTHON_HALF (SF_OBJECT_BYTES / 2)

/* Of a string as many bytes are read as should tell it from others. */
#define SF_PYTHON_STRING_BYTES 128
#define SF_PYTHON_SHORT_STRING_BYTES 64
#define SF_PYTHON_STRING_WORDS 8

/* A code object begins with ob_refcnt, which changes, and ob_type; then comes what identity is of. */
#define SF_PYTHON_TYPE 8
#define SF_PYTHON_BODY 16
#define SF_PYTHON_BODY_WORDS 24

#define SF_PYTHON_HASH_FACTOR 0x9e3779b97f4a7c15ULL

struct sf_python_search {
	struct sf_walk *walk;
	__u64 interpreter;
	__u64 thread; /* next to look at; 0: go to the next interpreter */
	__u64 found;
	__u64 frame; /* of `found` */
	__u64 found_in;
	__u32 interpreters;
	__u32 steps;
	__u32 outcome;
	__u32 is_idle; /* a state of this thread without frames was seen */
};

struct sf_python_frames {
	struct sf_walk *walk;
	__u64 frame;
	__u32 outcome;
	__u32 begun; /* script frames when this evaluation call began */
};

/* Offsets come from user space: whatever they are, nothing is read outside of the half. */
static __always_inline __u64 sf_python_word(const unsigned char *half, __u64 offset)
{
	offset &= SF_PYTHON_HALF - 8;
	SF_OPAQUE(offset);
	return *(const __u64 *)(half + offset);
}

static __always_inline __u8 sf_python_byte(const unsigned char *half, __u64 offset)
{
	offset &= SF_PYTHON_HALF - 1;
	SF_OPAQUE(offset);
	return half[offset];
}

static __always_inline long sf_python_read(unsigned char *half, __u64 bytes, __u64 address)
{
	bytes &= SF_PYTHON_HALF - 1;
	SF_OPAQUE(bytes);
	return bpf_probe_read_user(half, bytes, (void *)address);
}

static __always_inline long sf_python_read_word(__u64 address, __u64 *word)
{
	return bpf_probe_read_user(word, sizeof(*word), (void *)address);
}

/* The innermost frame of the thread state that was read into the first half. */
static __always_inline long sf_python_frame_of_thread(struct sf_walk *walk, __u64 *frame)
{
	const struct sf_python *python = &walk->layout.python;

	*frame = sf_python_word(walk->object_bytes, python->thread_frame);
	if (!(python->flags & SF_PYTHON_INDIRECT_FRAME) || !*frame)
		return 0;
	return sf_python_read_word(*frame + python->cframe_frame, frame);
}

/* One thread, or on to the next interpreter. */
static long sf_python_look_at_thread(__u64 step, struct sf_python_search *search)
{
	struct sf_walk *walk = search->walk;
	const struct sf_python *python = &walk->layout.python;
	__u64 frame, interpreter;

	search->steps = step;
	if (!search->thread) {
		if (search->interpreters &&
		    sf_python_read_word(search->interpreter + python->interpreter_next, &search->interpreter))
			goto unreadable;
		if (!search->interpreter) {
			search->outcome = SF_SCRIPT_COMPLETE;
			return 1;
		}
		search->interpreters++;
		if (sf_python_read_word(search->interpreter + python->interpreter_threads, &search->thread))
			goto unreadable;
		return 0;
	}
	if (sf_python_read(walk->object_bytes, python->thread_bytes, search->thread))
		goto unreadable;
	interpreter = sf_python_word(walk->object_bytes, python->thread_interpreter);
	if (interpreter != search->interpreter) {
		/* It was freed between finding it in the list and reading it. */
		search->outcome = SF_SCRIPT_INCONSISTENT;
		return 1;
	}
	if (sf_python_word(walk->object_bytes, python->thread_id) == walk->thread_pointer) {
		if (sf_python_frame_of_thread(walk, &frame))
			goto unreadable;
		if (!frame) {
			/* Up to 3.11 also one that this thread has just made for another that is yet to start. */
			search->is_idle = 1;
		} else if (search->found) {
			search->outcome = SF_SCRIPT_UNSUPPORTED;
			return 1;
		} else {
			search->found = search->thread;
			search->frame = frame;
			search->found_in = search->interpreter;
		}
	}
	search->thread = sf_python_word(walk->object_bytes, python->thread_next);
	return 0;

unreadable:
	search->outcome = SF_SCRIPT_UNREADABLE;
	return 1;
}

/* Whether the remembered state is still one in the interpreter's list, and this thread's. Takes its frame. */
static __always_inline int sf_python_is_still(struct sf_walk *walk, const struct sf_python_thread *known,
					      __u64 *frame)
{
	const struct sf_python *python = &walk->layout.python;
	__u64 thread = known->thread, interpreter = known->interpreter, previous, link;

	if (!thread || sf_python_read(walk->object_bytes, python->thread_bytes, thread) ||
	    sf_python_word(walk->object_bytes, python->thread_id) != walk->thread_pointer ||
	    sf_python_word(walk->object_bytes, python->thread_interpreter) != interpreter)
		return 0;
	previous = sf_python_word(walk->object_bytes, python->thread_prev);
	previous = previous ? previous + python->thread_next : interpreter + python->interpreter_threads;
	if (sf_python_read_word(previous, &link) || link != thread)
		return 0;
	return !sf_python_frame_of_thread(walk, frame);
}

/* Finds the innermost frame of this thread; an outcome. COMPLETE with frame 0: it runs no Python now. */
__attribute__((noinline)) int sf_python_find_thread(struct sf_walk *walk, __u64 *frame)
{
	struct sf_python_thread_key key = {};
	struct sf_python_thread remembered = {}, *known;
	struct sf_python_search search = {};
	__u64 head;

	if (!walk || !frame)
		return SF_SCRIPT_NONE;
	*frame = 0;
	search.walk = walk;
	search.outcome = SF_SCRIPT_NO_THREAD_STATE;
	if (sf_python_read_word(walk->layout.python.interpreters_head, &head))
		return SF_SCRIPT_UNREADABLE;
	search.interpreter = head;
	key.owner = walk->owner;
	key.thread_pointer = walk->thread_pointer;
	known = bpf_map_lookup_elem(&python_threads, &key);
	/* A new interpreter becomes the head. */
	if (known && known->interpreter == head) {
		if (known->trusted) {
			known->trusted--;
			return SF_SCRIPT_NONE;
		}
		if (sf_python_is_still(walk, known, frame))
			return SF_SCRIPT_COMPLETE;
		*frame = 0;
	}
	bpf_loop(SF_PYTHON_MAX_THREADS, sf_python_look_at_thread, &search, 0);
	if (search.outcome != SF_SCRIPT_COMPLETE)
		return search.outcome;
	/* With several interpreters this thread may at any time get a state in another one. */
	if (search.interpreters == 1 && (search.found || search.steps > SF_PYTHON_MANY_THREADS)) {
		remembered.thread = search.found;
		remembered.interpreter = head;
		if (!search.found && !search.is_idle)
			remembered.trusted = SF_PYTHON_TRUST_NONE;
		bpf_map_update_elem(&python_threads, &key, &remembered, BPF_ANY);
	}
	*frame = search.frame;
	return search.found || search.is_idle ? SF_SCRIPT_COMPLETE : SF_SCRIPT_NONE;
}

static __always_inline __u64 sf_python_hash(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * SF_PYTHON_HASH_FACTOR;
	return hash ^ hash >> 29;
}

/* An odd number for a word's place, like a random one (splitmix64; Steele and others 2014). Known when this is compiled. */
static __always_inline __u64 sf_python_factor(__u64 place)
{
	__u64 factor = (place + 1) * SF_PYTHON_HASH_FACTOR;

	factor = (factor ^ factor >> 30) * 0xbf58476d1ce4e5b9ULL;
	factor = (factor ^ factor >> 27) * 0x94d049bb133111ebULL;
	return (factor ^ factor >> 31) | 1;
}

/*
 * The body of a code object in one number: multilinear hashing (Lemire and Kaser 2014), in which no product waits for
 * another one.
 */
static __always_inline __u64 sf_python_hash_body(const unsigned char *half, __u64 bytes)
{
	__u64 hash = 0;

#pragma unroll
	for (__u64 place = 0; place < SF_PYTHON_BODY_WORDS; place++) {
		__u64 offset = SF_PYTHON_BODY + place * 8;

		if (offset < bytes)
			hash += *(const __u64 *)(half + offset) * sf_python_factor(place);
	}
	return hash;
}

/*
 * Length and characters of a string in one number: of an ASCII string its first 64 at most, fewer where its page
 * ends. Which they are depends on nothing but address and length, since user space has to do the same. 0 if it could
 * be read.
 */
__attribute__((noinline)) int sf_python_hash_string(struct sf_walk *walk, __u64 string, __u64 *hash)
{
	__u64 in_page = SF_USER_PAGE_BYTES - (string & (SF_USER_PAGE_BYTES - 1));
	__u64 bytes = SF_PYTHON_STRING_BYTES, characters, word, sum, header, length;

	if (!walk || !hash)
		return -1;
	if (in_page < bytes)
		bytes = in_page < SF_PYTHON_SHORT_STRING_BYTES ? SF_PYTHON_SHORT_STRING_BYTES : in_page;
	if (sf_python_read(walk->object_bytes, bytes, string))
		return -1;
	header = walk->layout.python.string_header;
	length = sf_python_word(walk->object_bytes, 16);
	characters = header < bytes ? bytes - header : 0;
	if (length < characters)
		characters = length;
	sum = length * sf_python_factor(SF_PYTHON_STRING_WORDS);
#pragma unroll
	for (__u64 place = 0; place < SF_PYTHON_STRING_WORDS; place++) {
		__u64 left = characters - place * 8;

		if (characters <= place * 8)
			break;
		word = sf_python_word(walk->object_bytes, header + place * 8);
		/* What lies behind the last character is not the string's. */
		if (left < 8)
			word &= (1ULL << (left & 7) * 8) - 1;
		sum += word * sf_python_factor(place);
	}
	*hash = sum;
	return 0;
}

/* The same of the file that a code object was compiled from. Functions that call each other are often of one. */
static __always_inline int sf_python_hash_file(struct sf_walk *walk, __u64 file, __u64 *hash)
{
	if (walk->file_name != file) {
		walk->file_name = 0;
		if (sf_python_hash_string(walk, file, hash))
			return -1;
		walk->file_name = file;
		walk->file_name_hash = *hash;
	}
	*hash = walk->file_name_hash;
	return 0;
}

/* Reads a code object into the second half and computes its identity; an outcome. */
__attribute__((noinline)) int sf_python_read_code(struct sf_walk *walk, __u64 code, __u64 *identity)
{
	const struct sf_python *python;
	unsigned char *half;
	__u64 hash;

	if (!walk || !identity)
		return SF_SCRIPT_INCONSISTENT;
	python = &walk->layout.python;
	half = walk->object_bytes + SF_PYTHON_HALF;
	if (sf_python_read(half, python->code_bytes, code))
		return SF_SCRIPT_UNREADABLE;
	if (sf_python_word(half, SF_PYTHON_TYPE) != python->code_type)
		return SF_SCRIPT_INCONSISTENT;
	hash = sf_python_hash_body(half, python->code_bytes);
	if (python->flags & SF_PYTHON_CODE_UNNUMBERED) {
		__u64 name = 0, file = 0;

		if (sf_python_hash_string(walk, sf_python_word(half, python->code_name), &name) ||
		    sf_python_hash_file(walk, sf_python_word(half, python->code_file), &file))
			return SF_SCRIPT_UNREADABLE;
		hash = sf_python_hash(sf_python_hash(hash, name), file);
	}
	*identity = (__u32)(hash ^ hash >> 32);
	return SF_SCRIPT_COMPLETE;
}

/* Marks the frame that was added last as the first of its evaluation call. */
static __always_inline void sf_python_mark_entry(struct sf_walk *walk, struct sf_python_frames *frames)
{
	__u64 last = walk->script_frames;

	if (last > frames->begun && last <= SF_MAX_SCRIPT_FRAMES) {
		last = (last - 1) & (SF_MAX_SCRIPT_FRAMES - 1);
		SF_OPAQUE(last);
		walk->scripts[last].flags |= SF_SCRIPT_ENTRY;
	}
	frames->begun = walk->script_frames;
}

/* Where in its bytecode a frame is. 0 if that can be. */
static __always_inline int sf_python_position(const struct sf_walk *walk, __u64 code, __u64 at,
					      __u32 *position)
{
	const struct sf_python *python = &walk->layout.python;
	__u64 units = (__u32)sf_python_word(walk->object_bytes + SF_PYTHON_HALF, SF_PYTHON_BODY), offset;

	if (python->flags & SF_PYTHON_INDEX_POSITION) {
		*position = (__u32)at;
		if (python->flags & SF_PYTHON_INDEX_IN_UNITS && *position != SF_PYTHON_NOT_BEGUN)
			*position <<= 1;
		return 0;
	}
	offset = at - (code + python->code_instructions);
	if (offset == -2ULL) {
		*position = SF_PYTHON_NOT_BEGUN;
		return 0;
	}
	*position = offset;
	return offset < units * 2 ? 0 : -1;
}

static long sf_python_step(__u64 step, struct sf_python_frames *frames)
{
	struct sf_walk *walk = frames->walk;
	const struct sf_python *python = &walk->layout.python;
	struct sf_script_frame *script;
	__u64 code, at, identity = 0, previous;
	__u32 position = 0, flags = 0;
	__u8 owner;
	int outcome;

	(void)step;
	if (!frames->frame) {
		/* Whatever the outermost frame says, it was called from C. */
		sf_python_mark_entry(walk, frames);
		frames->outcome = SF_SCRIPT_COMPLETE;
		return 1;
	}
	if (sf_python_read(walk->object_bytes, python->frame_bytes, frames->frame)) {
		frames->outcome = SF_SCRIPT_UNREADABLE;
		return 1;
	}
	/* The lowest bits of a reference are tags in 3.14, and no object has any of them in its address. */
	code = sf_python_word(walk->object_bytes, python->frame_code) & ~7ULL;
	previous = sf_python_word(walk->object_bytes, python->frame_previous);
	at = sf_python_word(walk->object_bytes, python->frame_position);
	owner = sf_python_byte(walk->object_bytes, python->frame_entry);
	if (previous == frames->frame) {
		frames->outcome = SF_SCRIPT_INCONSISTENT;
		return 1;
	}
	if (python->flags & SF_PYTHON_OWNED_ENTRY) {
		/* FRAME_OWNED_BY_CSTACK, in 3.14 FRAME_OWNED_BY_INTERPRETER; 4 are kinds that are no functions either. */
		if (owner > 4) {
			frames->outcome = SF_SCRIPT_INCONSISTENT;
			return 1;
		}
		if (owner >= 3) {
			sf_python_mark_entry(walk, frames);
			frames->frame = previous;
			return 0;
		}
	}
	outcome = sf_python_read_code(walk, code, &identity);
	if (outcome != SF_SCRIPT_COMPLETE) {
		frames->outcome = outcome;
		return 1;
	}
	if (sf_python_position(walk, code, at, &position)) {
		frames->outcome = SF_SCRIPT_INCONSISTENT;
		return 1;
	}
	if (python->flags & SF_PYTHON_EVERY_FRAME_ENTERS ||
	    (python->flags & SF_PYTHON_FLAGGED_ENTRY && owner))
		flags = SF_SCRIPT_ENTRY;
	if (walk->script_frames == walk->aside_frame)
		flags |= SF_SCRIPT_LEAF;
	script = sf_add_script(walk);
	if (!script) {
		frames->outcome = SF_SCRIPT_TRUNCATED;
		return 1;
	}
	script->address = 0;
	script->object = code;
	script->other = 0;
	script->position = position;
	script->identity = identity;
	script->runtime = SF_RUNTIME_PYTHON;
	script->kind = python->flags & SF_PYTHON_OWNED_ENTRY ? owner : 0;
	script->flags = flags;
	__builtin_memset(script->reserved, 0, sizeof(script->reserved));
	sf_see_script(walk, code, identity);
	if (flags & SF_SCRIPT_ENTRY)
		frames->begun = walk->script_frames;
	frames->frame = previous;
	return 0;
}

/* walk->layout.python says where things are. Appends script frames; enum sf_script_outcome. */
__attribute__((noinline)) int sf_walk_python(struct sf_walk *walk)
{
	struct sf_python_frames frames = {};
	int outcome;

	if (!walk)
		return SF_SCRIPT_NONE;
	outcome = sf_python_find_thread(walk, &frames.frame);
	if (outcome != SF_SCRIPT_COMPLETE)
		return outcome;
	walk->file_name = 0;
	frames.walk = walk;
	frames.begun = walk->script_frames;
	frames.outcome = SF_SCRIPT_TRUNCATED;
	bpf_loop(SF_PYTHON_MAX_STEPS, sf_python_step, &frames, 0);
	return frames.outcome;
}

#endif /* SF_UNWIND_PYTHON_H */
