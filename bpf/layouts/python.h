/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Where CPython keeps what unwind/python.h reads, in one process. Part of spanflame.h. */
#ifndef SF_LAYOUTS_PYTHON_H
#define SF_LAYOUTS_PYTHON_H

/* Map `python_processes`, key = tgid, written by user space. */
struct sf_python {
	unsigned int version; /* of the runtime, as its symbols crate module numbers it; never 0 */
	unsigned int reserved;
};

#endif /* SF_LAYOUTS_PYTHON_H */
