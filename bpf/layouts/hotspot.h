/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Where HotSpot keeps what unwind/hotspot.h reads, in one process. Part of spanflame.h. */
#ifndef SF_LAYOUTS_HOTSPOT_H
#define SF_LAYOUTS_HOTSPOT_H

/* Map `hotspot_processes`, key = tgid, written by user space. */
struct sf_hotspot {
	unsigned int version; /* of the runtime, as its symbols crate module numbers it; never 0 */
	unsigned int reserved;
};

#endif /* SF_LAYOUTS_HOTSPOT_H */
