#!/bin/sh
# Builds walk.c and records, stopped at the bottom of its stack: registers, memory of both stacks, and
# the stack as gdb sees it, which is the oracle. Needs gcc and gdb. Run in this folder.
set -eu
gcc -O2 -fomit-frame-pointer -fno-stack-protector -fasynchronous-unwind-tables -ffreestanding -nostdlib \
	-static -no-pie -fcf-protection=none -Wl,--build-id=sha1 -Wl,-z,noseparate-code -o walk.elf walk.c
strip --keep-symbol=stop_here --keep-symbol=_start walk.elf
cat > record.py <<'PY'
import gdb
gdb.execute("set pagination off")
gdb.execute("set disable-randomization on")
gdb.execute("handle SIGUSR1 nostop pass")
gdb.execute("break stop_here")
gdb.execute("run")
inferior = gdb.selected_inferior()
names = "rax rdx rcx rbx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 rip".split()
value = lambda name: int(gdb.parse_and_eval("(unsigned long)$" + name))
with open("walk.txt", "w") as out:
    out.write("registers " + " ".join("%x" % value(name) for name in names) + "\n")
    frames = []
    frame = gdb.newest_frame()
    while frame is not None:
        frames.append(frame)
        frame = frame.older()
    out.write("frames " + " ".join("%x" % f.pc() for f in frames) + "\n")
    # Both stacks, from the lowest frame on each to a little above the highest; what is zero is left out.
    spans = []
    for line in gdb.execute("info proc mappings", to_string=True).splitlines():
        words = line.split()
        if len(words) >= 5 and words[0].startswith("0x"):
            begin, end = int(words[0], 16), int(words[1], 16)
            stack_pointers = [int(f.read_register("rsp")) for f in frames if begin <= int(f.read_register("rsp")) < end]
            if stack_pointers:
                spans.append((min(stack_pointers), min(end, max(stack_pointers) + 1024)))
    for begin, end in spans:
        out.write("span %x %x\n" % (begin, end))
        memory = bytes(inferior.read_memory(begin, end - begin))
        for at in range(0, len(memory), 64):
            piece = memory[at:at + 64]
            if any(piece):
                out.write("memory %x %s\n" % (begin + at, piece.hex()))
gdb.execute("kill")
gdb.execute("quit")
PY
gdb -q -batch -nx -x record.py ./walk.elf
rm record.py
