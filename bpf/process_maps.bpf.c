/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * No program, only the maps that say what is known of processes. The sampler and the life-cycle programs are loaded
 * with these. That the kernel verifies the sampler takes a tenth of a second; meanwhile user space fills them in.
 */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>

#include "process_maps.h"
#include "runtime_maps.h"
#include "table_maps.h"

char LICENSE[] SEC("license")
= "Dual BSD/GPL";
