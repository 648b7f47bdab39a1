"""Processes that share the work of training, and what they tell: bars, curves in TensorBoard."""

from __future__ import annotations

import multiprocessing
import queue
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import torch
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from torch.utils.tensorboard import SummaryWriter

PROCESSES = 2

Events: TypeAlias = "queue.Queue[tuple[str, float, dict[str, float]]]"

_EVENTS: Events | None = None


def _start_worker(events: Events) -> None:
    global _EVENTS
    _EVENTS = events
    torch.set_num_threads(1)


def tell(label: str, done: float, figures: dict[str, float]) -> None:
    """Report progress to whoever waits for this worker."""
    if _EVENTS is not None:
        _EVENTS.put((label, done, figures))


@contextmanager
def workers() -> Iterator[tuple[Executor, Progress, Events]]:
    """A pool that ends with the block, at once where it ends by an exception or Ctrl-C."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        events = manager.Queue()
        columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
        pool = ProcessPoolExecutor(
            PROCESSES, mp_context=context, initializer=_start_worker, initargs=(events,)
        )
        with Progress(*columns, TextColumn("{task.fields[figures]}")) as progress:
            try:
                yield pool, progress, events
            except BaseException:
                for process in list(pool._processes.values()):
                    process.terminate()
                raise
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


class Follow:
    """Shows what the workers tell, as bars here and as curves in TensorBoard."""

    def __init__(self, progress: Progress, events: Events, curves: Path) -> None:
        self.progress, self.events = progress, events
        self.writer = SummaryWriter(str(curves))
        self.bars: dict[str, TaskID] = {}

    def until_done(self, futures: list[Future[None]]) -> None:
        """Wait for the workers; raises what they raised."""
        if not futures:
            return
        waiting = self.progress.add_task("batches", total=len(futures), figures="")
        while not all(f.done() for f in futures):
            self.progress.update(waiting, completed=sum(f.done() for f in futures))
            self._drain(0.5)
        self._drain(0.0)
        self.progress.remove_task(waiting)
        for future in futures:
            future.result()
        self._note(f"{len(futures)} batches done")

    def close(self) -> None:
        """Flush the curves."""
        self.writer.close()

    def _note(self, line: str) -> None:
        """Bars move on a terminal only; a log gets a line at a time."""
        if not self.progress.console.is_terminal:
            self.progress.console.print(f"{time.strftime('%H:%M:%S')}  {line}", soft_wrap=True)

    def _drain(self, wait_s: float) -> None:
        try:
            while True:
                self._show(*self.events.get(timeout=wait_s) if wait_s else self.events.get_nowait())
        except queue.Empty:
            return

    def _show(self, label: str, done: float, figures: dict[str, float]) -> None:
        shown = "  ".join(f"{k} {v:.4f}" for k, v in figures.items())
        if label not in self.bars:
            self.bars[label] = self.progress.add_task(label, total=1.0, figures=shown)
        self.progress.update(self.bars[label], completed=done, figures=shown)
        if figures:
            self._note(f"{label}  {done:4.0%}  {shown}")
        for name, value in figures.items():
            self.writer.add_scalar(f"{label}/{name}", value, round(1000 * done))
