/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* How to say a thing so that neither the compiler nor the kernel's verifier makes something else of it. */
#ifndef SF_VERIFIER_H
#define SF_VERIFIER_H

/* Keeps the compiler from knowing x, hence from turning masks back into branches. */
#define SF_OPAQUE(x) asm volatile("" : "+r"(x))

/* Bounds x, right before its use: Linux 6.1's verifier forgets what was compared once x has been on the stack. */
#define SF_AT_MOST(x, limit)           \
	do {                           \
		SF_OPAQUE(x);          \
		if ((x) > (limit))     \
			(x) = (limit); \
	} while (0)

#endif /* SF_VERIFIER_H */
