"""The process that trains: `python -m nat_dpo_pipeline.trainers.trl.worker JOB_FOLDER`.

Exit codes: 0 trained, 1 failed, 3 stopped by a signal. Started again on the same folder, it goes on from the newest
checkpoint that is whole.
"""

import argparse
import os
import sys
import traceback
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from filelock import FileLock, Timeout

from nat_dpo_pipeline.errors import DPOPipelineError, TrainingError
from nat_dpo_pipeline.report.training import write_training_report
from nat_dpo_pipeline.trainers.backend import JobState
from nat_dpo_pipeline.trainers.trl.control import Parent, Reporter, Stopped, StopSignal
from nat_dpo_pipeline.trainers.trl.job import STOPPED, JobFolder, read_job
from nat_dpo_pipeline.trainers.trl.settings import Device, TrlSettings

#: Long enough for somebody who only looks whether the lock is held.
_SECONDS_FOR_THE_LOCK = 5.0


def main(arguments: list[str] | None = None) -> int:
    """Train in the folder named; the exit code."""
    parser = argparse.ArgumentParser(description="Train a model in the folder of a job.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parent", type=int, help="Process id of the process whose end ends this one.")
    given = parser.parse_args(arguments)
    folder = JobFolder(given.folder)
    try:
        with FileLock(folder.lock, timeout=_SECONDS_FOR_THE_LOCK):
            return _report_on(folder, Parent(given.parent))
    except Timeout:
        sys.stderr.write(f"another worker is training in {folder.path}\n")
        return 1


def environment_of(settings: TrlSettings, given: Mapping[str, str]) -> dict[str, str]:
    """What must be set before torch is imported.

    More threads than cores that are free make torch several times slower, and TRL refuses several GPUs in one process.
    """
    gpus = given.get("CUDA_VISIBLE_DEVICES", "0").split(",")
    return {
        "OMP_NUM_THREADS": str(settings.num_threads),
        "MKL_NUM_THREADS": str(settings.num_threads),
        "CUDA_VISIBLE_DEVICES": "" if settings.device is Device.CPU else gpus[0],
        # One source less of numbers that differ from run to run; the attention's backward pass is left.
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    }


def _report_on(folder: JobFolder, parent: Parent) -> int:
    stop, reporter = StopSignal(), Reporter(folder)
    try:
        stop.listen()
        parent.bind()
        sentence, metrics = _train(folder, reporter, stop, parent, os.environ)
    except Stopped:
        reporter.end(JobState.CANCELED, "stopped; started again, the worker goes on from its last checkpoint")
        return STOPPED
    except DPOPipelineError as error:
        sys.stderr.write(f"{error}\n")
        reporter.end(JobState.FAILED, str(error))
        return 1
    except Exception as error:  # noqa: BLE001 - whatever a library raises is the reason why the job failed
        traceback.print_exc()
        reporter.end(JobState.FAILED, f"{type(error).__name__}: {error}")
        return 1
    reporter.end(JobState.SUCCEEDED, sentence, metrics)
    try:
        write_training_report(folder.path)
    except DPOPipelineError as error:  # the model is worth more than its page
        sys.stderr.write(f"{error}\n")
    return 0


def _train(
    folder: JobFolder, reporter: Reporter, stop: StopSignal, parent: Parent, environment: MutableMapping[str, str]
) -> tuple[str, Mapping[str, float]]:
    reporter.phase("loading the libraries")
    job = read_job(folder)
    environment.update(environment_of(job.settings, environment))
    try:
        from nat_dpo_pipeline.trainers.trl.training import Surroundings, train
    except ImportError as error:
        raise TrainingError(f"{error}: install the extra with pip install 'nat-dpo-pipeline[train]'") from error
    return train(job, Surroundings(folder, reporter, stop, parent))


if __name__ == "__main__":
    sys.exit(main())
