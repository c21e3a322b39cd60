/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Frames of HotSpot. */
#ifndef SF_UNWIND_HOTSPOT_H
#define SF_UNWIND_HOTSPOT_H

/* walk->layout.hotspot says where things are. 0: gone to the caller; 1: the walk is over; SF_STEP_NOT_MINE. */
__attribute__((noinline)) int sf_step_hotspot(struct sf_walk *walk, struct sf_frames *frames)
{
	if (!walk || !frames)
		return SF_STEP_NOT_MINE;
	return SF_STEP_NOT_MINE;
}

#endif /* SF_UNWIND_HOTSPOT_H */
