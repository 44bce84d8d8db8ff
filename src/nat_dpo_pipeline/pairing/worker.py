"""A process that does tasks: `python -m nat_dpo_pipeline.pairing.worker`. Frames of pickles come in and go out, each
behind 8 bytes that say how long it is. It ends at once when whoever started it does."""

import gc
import os
import pickle
import signal
import sys
from queue import SimpleQueue
from threading import Thread
from typing import IO


def send(stream: IO[bytes], value: object) -> None:
    """Write a frame."""
    content = pickle.dumps(value)
    stream.write(len(content).to_bytes(8, "big") + content)
    stream.flush()


def receive(stream: IO[bytes]) -> object:
    """Read a frame, of which the other side is trusted. Raises EOFError when it is gone."""
    header = stream.read(8)
    content = stream.read(int.from_bytes(header, "big"))
    if len(header) < 8 or len(content) < int.from_bytes(header, "big"):
        raise EOFError
    return pickle.loads(content)  # noqa: S301 - from the process that started this one, or that this one started


def _main() -> None:
    # Ctrl-C is for the process that started this one, which ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    # What libraries print must not get between the frames.
    os.dup2(2, 1)
    # Rows are many small containers and no cycles, which the collector would walk again and again.
    gc.set_threshold(200_000, 50, 50)
    tasks: SimpleQueue[object] = SimpleQueue()
    Thread(target=_read, args=(sys.stdin.buffer, tasks), daemon=True).start()
    from nat_dpo_pipeline.pairing.tasks import PairTask, PartitionTask
    from nat_dpo_pipeline.pairing.work import do

    while True:
        task = tasks.get()
        assert isinstance(task, PairTask | PartitionTask)  # noqa: S101 - for the type checker
        try:
            answer: object = do(task)
        except Exception as error:  # noqa: BLE001 - goes on in the process that started this one
            answer = error
        send(answers, answer)


def _read(stream: IO[bytes], tasks: "SimpleQueue[object]") -> None:
    try:
        while True:
            tasks.put(receive(stream))
    except EOFError:
        os._exit(0)


if __name__ == "__main__":
    _main()
