"""The same as server.js with asyncio: python3 server.py [PORT-OF-ANOTHER]. It says
`ready PID MONOTONIC_NS` and `listening PORT`."""

import asyncio
import os
import sys
import time

other = int(sys.argv[1]) if len(sys.argv) > 1 else 0
pool = []


async def head_of(reader):
    lines = []
    while (line := await reader.readline()) not in (b"\r\n", b"\n", b""):
        lines.append(line.decode("latin-1"))
    return lines


async def ask(path):
    reader, writer = pool.pop() if pool else await asyncio.open_connection("127.0.0.1", other)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    await head_of(reader)
    await reader.readexactly(3)
    pool.append((reader, writer))


async def serve(reader, writer):
    while lines := await head_of(reader):
        _, kind, number = lines[0].split(" ")[1].split("/")
        if not other:
            kind = "down"
        if kind == "timer":
            await asyncio.sleep(int(number) % 5 / 1000)
        elif kind in ("immediate", "promise"):
            await asyncio.sleep(0)
        elif kind == "pool":
            await asyncio.to_thread(time.sleep, 0.001)
        if kind != "down":
            await ask(f"/down/{number}")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n")
        await writer.drain()
    writer.close()


async def burn_for_nobody():
    while True:
        await asyncio.sleep(0.005)
        end = time.perf_counter() + 0.002
        while time.perf_counter() < end:
            pass
        await ask("/down/nobody")


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print("ready", os.getpid(), time.monotonic_ns())
    print("listening", server.sockets[0].getsockname()[1], flush=True)
    background = asyncio.create_task(burn_for_nobody()) if other else None
    async with server:
        await server.serve_forever()
    del background


asyncio.run(main())
