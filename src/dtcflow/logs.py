"""Logging of one workflow step: everything to the rule's log, one clear line to the user when it fails."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import TextIO

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


def setup(path: str | Path | None, *, threads: int = 1) -> None:
    """Send logging to ``path`` and failures to ``path`` and stderr; pin the numerical libraries to ``threads``.

    A :class:`~dtcflow.contracts.DtcflowError` is shown as its message only. Any other exception leaves its traceback in
    the log and one line on stderr that names the log. Call this before anything heavy is imported: most numerical
    libraries read their number of threads once, when they are loaded. This module therefore imports none itself, and
    those that are loaded nevertheless are limited afterwards.
    """
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(threads)
    if "numpy" in sys.modules:
        threadpool_limits(limits=threads)
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    handlers[0].setLevel(logging.WARNING)
    stream: TextIO | None = None
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        file_handler = logging.FileHandler(path, mode="w", encoding="utf-8")
        stream = file_handler.stream
        handlers.append(file_handler)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", handlers=handlers, force=True
    )
    for noisy in ("numba", "matplotlib", "fontTools", "h5py"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    logging.getLogger("anndata").setLevel(logging.WARNING)  # it has a handler of its own
    logging.getLogger("py.warnings").addFilter(lambda _: bool(handlers[1:]))

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        from dtcflow.contracts import DtcflowError

        if issubclass(kind, DtcflowError):
            text = f"dtcflow: {error}"
            print(text, file=sys.stderr)
            if stream is not None:
                print(text, file=stream, flush=True)
            return
        logger = logging.getLogger("dtcflow")
        for handler in list(logging.getLogger().handlers):
            if not isinstance(handler, logging.FileHandler):
                logging.getLogger().removeHandler(handler)
        if stream is not None:
            logger.critical("unexpected failure", exc_info=(kind, error, trace))
            print(f"dtcflow: unexpected {kind.__name__}: {error} (traceback in {path})", file=sys.stderr)
        else:
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = report
