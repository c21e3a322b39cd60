/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The sampler for kernels whose verifier refuses the whole one: without the unwinders of V8 and HotSpot, which nest
 * deeper than the 512 bytes of stack that Linux before 6.13 allows. CPython's frames are read.
 */
#define SF_WITHOUT_GENERATED_FRAMES
#include "sample.bpf.c"
