"""Rows survive other writers, rotation, full disks and the death of a process."""

import fcntl
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.dataset.candidate_log import CandidateLog
from tests.waiting import wait_until

_LARGE = 10**9


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("candidates*.jsonl"))


def _rows(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for path in _files(folder) for line in path.read_bytes().splitlines()]


def _log(folder: Path, max_bytes: int = _LARGE) -> CandidateLog:
    return CandidateLog(folder / "candidates.jsonl", max_bytes)


@given(st.lists(st.dictionaries(st.text(st.characters()), st.text(st.characters())), max_size=5))
def test_rows_are_read_back_in_order(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]]) -> None:
    folder = tmp_path_factory.mktemp("log")
    log = _log(folder)
    for row in rows:
        log.append(row)
    log.close()
    assert _rows(folder) == rows


def test_a_folder_is_made_and_the_file_is_there_before_the_first_row(tmp_path: Path) -> None:
    log = _log(tmp_path / "new" / "folder")
    log.check()
    assert (tmp_path / "new" / "folder" / "candidates.jsonl").read_bytes() == b""
    log.close()


def test_full_files_are_numbered_and_no_row_is_split(tmp_path: Path) -> None:
    log = _log(tmp_path, max_bytes=100)
    for number in range(30):
        log.append({"number": number, "text": "x" * 20})
    log.append({"number": 30, "text": "larger than a file " * 10})
    log.append({"number": 31})
    log.close()
    names = [path.name for path in _files(tmp_path)]
    assert names[:3] == ["candidates-000001.jsonl", "candidates-000002.jsonl", "candidates-000003.jsonl"]
    assert names[-1] == "candidates.jsonl"
    assert [row["number"] for row in _rows(tmp_path)] == list(range(32))
    sizes = [path.stat().st_size for path in _files(tmp_path)]
    assert sum(size > 100 for size in sizes) == 1


def test_numbers_go_on_after_a_restart(tmp_path: Path) -> None:
    (tmp_path / "candidates-000041.jsonl").write_text('{"number": 0}\n')
    (tmp_path / "candidates-old.jsonl").touch()
    for number in (1, 2):
        log = _log(tmp_path, max_bytes=10)
        log.append({"number": number})
        log.close()
    assert (tmp_path / "candidates-000042.jsonl").read_text() == '{"number":1}\n'


def test_a_file_that_is_moved_away_is_begun_anew(tmp_path: Path) -> None:
    log = _log(tmp_path)
    log.append({"number": 1})
    (tmp_path / "candidates.jsonl").rename(tmp_path / "shipped.jsonl")
    log.append({"number": 2})
    log.close()
    assert (tmp_path / "shipped.jsonl").read_text() == '{"number":1}\n'
    assert (tmp_path / "candidates.jsonl").read_text() == '{"number":2}\n'


def test_half_a_row_that_somebody_left_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "candidates.jsonl"
    path.write_bytes(b'{"number": 1}\n{"number": ')
    log = _log(tmp_path)
    log.append({"number": 3})
    with path.open("ab") as other:
        other.write(b'{"number": ')
    log.append({"number": 5})
    log.append({"number": 6})
    log.close()
    assert path.read_bytes().split(b"\n") == [
        b'{"number": 1}',
        b'{"number": ',
        b'{"number":3}',
        b'{"number": ',
        b'{"number":5}',
        b'{"number":6}',
        b"",
    ]


def _write(folder: Path, writer: int, count: int, start: "multiprocessing.synchronize.Barrier") -> None:
    log = _log(folder, max_bytes=2_000)
    start.wait()
    for number in range(count):
        log.append({"writer": writer, "number": number, "text": "x" * (number % 50)})
    log.close()
    sys.exit(log.lost)


def _is_alive(process: "multiprocessing.process.BaseProcess") -> bool:
    return process.is_alive()


def test_several_processes_rotate_and_lose_nothing(tmp_path: Path) -> None:
    spawning = multiprocessing.get_context("spawn")
    start = spawning.Barrier(4)
    writers = [spawning.Process(target=_write, args=(tmp_path, writer, 1_000, start)) for writer in range(4)]
    try:
        for process in writers:
            process.start()
        # Each waits for all others at the start, so one that fails is not waited for.
        wait_until(lambda: any(process.exitcode for process in writers) or not any(map(_is_alive, writers)))
    finally:
        for process in writers:
            process.kill()
            process.join()
    assert [process.exitcode for process in writers] == [0, 0, 0, 0]
    found = [(row["writer"], row["number"]) for row in _rows(tmp_path)]
    assert len(found) == 4_000
    assert set(found) == {(writer, number) for writer in range(4) for number in range(1_000)}
    assert len(_files(tmp_path)) > 50
    assert max(path.stat().st_size for path in _files(tmp_path)) <= 2_200


def test_threads_share_a_log(tmp_path: Path) -> None:
    log = _log(tmp_path, max_bytes=5_000)

    def write(writer: int) -> None:
        for number in range(300):
            log.append({"writer": writer, "number": number})

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert {(row["writer"], row["number"]) for row in _rows(tmp_path)} == {(w, n) for w in range(4) for n in range(300)}


def _open_file(path: Path) -> int:
    """The descriptor that this process has of the file."""
    links = ((int(link.name), link) for link in Path("/proc/self/fd").iterdir())
    return next(number for number, link in links if link.exists() and link.samefile(path))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_process_has_a_lock_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "candidates.jsonl"
    log = _log(tmp_path)
    log.append({"writer": "parent"})
    has_written, is_locked = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        log.append({"writer": "child"})
        os.write(has_written[1], b"1")
        os.read(is_locked[0], 1)
        try:
            fcntl.flock(_open_file(path), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os._exit(0)
        os._exit(1)
    os.read(has_written[0], 1)
    fcntl.flock(_open_file(path), fcntl.LOCK_EX)
    os.write(is_locked[1], b"1")
    assert os.waitpid(child, 0)[1] == 0
    for end in (*has_written, *is_locked):
        os.close(end)
    log.append({"writer": "parent"})
    log.close()
    assert [row["writer"] for row in _rows(tmp_path)] == ["parent", "child", "parent"]


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_process_forked_while_another_thread_writes_can_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = _log(tmp_path)
    log.check()
    is_waiting = threading.Event()

    def lock(file: int, operation: int) -> None:
        is_waiting.set()
        flock(file, operation)

    with (tmp_path / "candidates.jsonl").open("rb") as somebody:
        fcntl.flock(somebody, fcntl.LOCK_EX)
        flock = fcntl.flock
        monkeypatch.setattr(fcntl, "flock", lock)
        # It waits for the lock, and keeps all other threads waiting meanwhile.
        writer = threading.Thread(target=log.append, args=({"writer": "parent"},))
        writer.start()
        is_waiting.wait()
        child = os.fork()
        if child == 0:
            log.close()
            os._exit(0)
        writer.join()
    assert os.waitpid(child, 0)[1] == 0
    log.close()


def test_whoever_keeps_the_lock_is_waited_for_once_and_no_row_is_lost(tmp_path: Path) -> None:
    log = _log(tmp_path, max_bytes=50)
    log.append({"number": 0})
    with (tmp_path / "candidates.jsonl").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for number in range(1, 200):
            log.append({"number": number})
        assert len(_files(tmp_path)) == 1  # as that needs the lock
    log.append({"number": 200})
    log.close()
    assert [row["number"] for row in _rows(tmp_path)] == list(range(201))
    assert len(_files(tmp_path)) == 2


_ENDLESS = """
import sys
from pathlib import Path
from nat_dpo_pipeline.dataset.candidate_log import CandidateLog
log = CandidateLog(Path(sys.argv[1]), 20_000)
number = 0
while True:
    log.append({"number": number, "text": "x" * 300})
    number += 1
    print(number, flush=True)
"""


def test_a_killed_process_has_written_every_row_that_it_was_done_with(tmp_path: Path) -> None:
    for rows in (1, 50, 300):
        folder = tmp_path / str(rows)
        folder.mkdir()
        arguments = [sys.executable, "-c", _ENDLESS, str(folder / "candidates.jsonl")]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                told = [process.stdout.readline() for _ in range(rows)]
            finally:
                process.kill()
            done = int((told + process.stdout.readlines())[-1])
        log = _log(folder)
        log.append({"number": "the next"})
        log.close()
        lines = [line for path in _files(folder) for line in path.read_bytes().splitlines()]
        numbers = [json.loads(line)["number"] for line in lines if line.endswith(b"}")]
        assert numbers[:done] == list(range(done))
        assert numbers[-1] == "the next"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    log = CandidateLog(Path("/dev/full"), _LARGE)
    for number in range(5):
        log.append({"number": number})
    assert log.lost == 5
    (told,) = caplog.messages
    assert told.startswith("candidates cannot be recorded in /dev/full: No space left on device; the workflow goes on")
    log.close()
    assert caplog.messages[-1] == "5 candidates were not recorded in /dev/full"


def test_recording_goes_on_when_it_can(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = _log(tmp_path)
    path = tmp_path / "candidates.jsonl"
    path.mkdir()
    for number in range(3):
        log.append({"number": number})
    path.rmdir()
    log.append({"number": 3})
    log.close()
    assert _rows(tmp_path) == [{"number": 3}]
    assert log.lost == 3
    assert caplog.messages == [
        f"candidates cannot be recorded in {path}: Is a directory; the workflow goes on, and what is lost is counted",
        f"candidates are recorded again in {path}; 3 were lost",
    ]


def test_a_place_that_cannot_be_written_to_is_told_at_once_and_costs_no_row(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    log = CandidateLog(tmp_path / "file" / "candidates.jsonl", _LARGE)
    log.check()
    assert len(caplog.messages) == 1
    assert log.lost == 0
    log.close()


def test_a_row_that_only_half_fitted_is_taken_back(tmp_path: Path) -> None:
    log = _log(tmp_path)
    log.append({"number": 0})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, before[1]))
    try:
        log.append({"number": 1, "text": "x" * 100})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    log.append({"number": 2})
    log.close()
    assert log.lost == 1
    assert (tmp_path / "candidates.jsonl").read_text() == '{"number":0}\n{"number":2}\n'


def test_a_file_that_cannot_be_renamed_grows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / f"{'c' * 249}.jsonl"  # as long as a name can be
    log = CandidateLog(path, max_bytes=20)
    for number in range(5):
        log.append({"number": number})
    log.close()
    assert path.read_bytes().count(b"\n") == 5
    assert log.lost == 0
    assert 1 <= len(caplog.messages) < 4
    assert all("cannot be rotated: File name too long; it grows instead" in told for told in caplog.messages)
