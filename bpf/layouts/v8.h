/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Where V8 keeps what unwind/v8.h reads, in one process. Part of spanflame.h. */
#ifndef SF_LAYOUTS_V8_H
#define SF_LAYOUTS_V8_H

/* Map `v8_processes`, key = tgid, written by user space. */
struct sf_v8 {
	unsigned int version; /* of the runtime, as its symbols crate module numbers it; never 0 */
	unsigned int reserved;
};

#endif /* SF_LAYOUTS_V8_H */
