/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* In place of libbpf's header: kernel structures are the shim's own memory here. */
#ifndef SF_SHIM_BPF_CORE_READ_H
#define SF_SHIM_BPF_CORE_READ_H

#define BPF_CORE_READ(source, member) ((source)->member)

#define bpf_core_field_exists(field) 1

#endif
