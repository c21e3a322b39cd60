/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Text as words: what four or eight bytes of payload are compared with at once. */
#ifndef SF_SOCKET_TEXT_H
#define SF_SOCKET_TEXT_H

#define SF_TEXT4(a, b, c, d) ((__u32)(a) | (__u32)(b) << 8 | (__u32)(c) << 16 | (__u32)(d) << 24)
#define SF_TEXT8(a, b, c, d, e, f, g, h) ((__u64)SF_TEXT4(e, f, g, h) << 32 | SF_TEXT4(a, b, c, d))

#define SF_SPACES8 0x2020202020202020ULL /* what makes ASCII letters small */

#endif /* SF_SOCKET_TEXT_H */
