"""Many servers in one thread, each at an address of its own on the loopback network."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING

from stack.ports import free_port

if TYPE_CHECKING:
    from bench.neighbours.answers import Answer


class World:
    """Start with `with`. A server is known by its address; where none is, connections are refused."""

    def __init__(self, answers: dict[str, Answer]) -> None:
        """`answers` has that of each address."""
        self.port = free_port()
        self._answers = answers
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="world")

    def __enter__(self) -> World:
        self._thread.start()
        self._do(asyncio.start_server(self._serve, list(self._answers), self.port, limit=2**17, backlog=512))
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _do(self, work: object) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)  # type: ignore[arg-type]

    @staticmethod
    async def _cancel_all() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request and its answer, which ends early with the client."""
        answer = self._answers[writer.get_extra_info("sockname")[0]]
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            await reader.readuntil(b"\r\n\r\n")
            tasks = [asyncio.create_task(work) for work in (answer(writer), reader.read())]  # type: ignore[arg-type]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        writer.close()
