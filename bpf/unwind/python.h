/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Frames of CPython. */
#ifndef SF_UNWIND_PYTHON_H
#define SF_UNWIND_PYTHON_H

/* walk->layout.python says where things are. Appends script frames; enum sf_script_outcome. */
__attribute__((noinline)) int sf_walk_python(struct sf_walk *walk)
{
	if (!walk)
		return SF_SCRIPT_NONE;
	return SF_SCRIPT_UNSUPPORTED;
}

#endif /* SF_UNWIND_PYTHON_H */
