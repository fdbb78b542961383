"""Answers each line `check`: a timer of asyncio and a thread have gone on."""

import asyncio
import os
import sys
import threading
import time

ticks = 0
rounds = 0


def thread():
    global rounds
    while True:
        time.sleep(0.01)
        rounds += 1


async def tick():
    global ticks
    while True:
        await asyncio.sleep(0.01)
        ticks += 1


async def grown():
    before = ticks, rounds
    for _ in range(1000):
        if ticks > before[0] and rounds > before[1]:
            return True
        await asyncio.sleep(0.01)
    return False


async def serve(reader, writer):
    while line := await reader.readline():
        good = line == b"check\n" and await grown()
        writer.write(f"ok {os.getpid()}\n".encode() if good else b"wrong: nothing goes on\n")
        await writer.drain()


async def main():
    ticking = asyncio.create_task(tick())
    threading.Thread(target=thread, daemon=True).start()
    server = await asyncio.start_server(serve, "0.0.0.0", int(sys.argv[1]))
    await asyncio.gather(ticking, server.serve_forever())


asyncio.run(main())
