"""The output folder of a command that ends with an error."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nat_dpo_pipeline.dataset.manifest import MANIFEST_NAME

# `pairing.run.STATE`, whose module would import pyarrow.
_STATE = ".scale"


@contextmanager
def nothing_left_on_error(folder: Path) -> Iterator[None]:
    """Remove what the block left in the folder when it ends with an error, and the folder if it was not there before.

    The folder of a dataset, whose writer replaces it as a whole, and an unfinished run in shards, which the same
    command continues, are left as they are; so is everything after an interruption.
    """
    was_there = folder.is_dir()
    before = set(folder.iterdir()) if was_there else set()
    try:
        yield
    except Exception:
        if folder / MANIFEST_NAME not in before and not (folder / _STATE).exists():
            _remove(set(folder.iterdir()) - before if folder.is_dir() else set())
            if not was_there and folder.is_dir():
                folder.rmdir()
        raise


def _remove(paths: set[Path]) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
