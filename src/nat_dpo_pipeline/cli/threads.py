"""Threads that commands over files do not need."""

import os


def without_blas_threads() -> None:
    """Have numpy, imported later here and in worker processes, start no threads for linear algebra, which is not used.

    OpenBLAS starts one a core at import: 60 ms of processor time on two cores. A setting of the user's stays.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
