import subprocess
import sys

import pytest

from dtcflow.logs import THREAD_VARIABLES


def run(body, *, cwd, log="logs/step.log", threads=1):
    """A script as the workflow starts it."""
    head = f"from dtcflow.logs import setup\nsetup({log!r}, threads={threads})\n"
    done = subprocess.run([sys.executable, "-c", head + body], cwd=cwd, capture_output=True, text=True, check=False)
    text = (cwd / log).read_text() if log and (cwd / log).exists() else ""
    return done, text


def test_an_error_of_the_user_is_its_message_only(tmp_path):
    body = """
from dtcflow.contracts import InputError, Problem
raise InputError("a.h5ad: no raw counts", [Problem("a.h5ad", "X: scaled", "whole numbers", "give raw counts", row=3)])
"""
    done, log = run(body, cwd=tmp_path)
    assert done.returncode == 1
    problem = "  - a.h5ad, row 3: found X: scaled; allowed: whole numbers; fix: give raw counts"
    said = f"dtcflow: a.h5ad: no raw counts\n{problem}\n"
    assert done.stderr == said
    assert log == said


def test_an_unexpected_error_is_one_line_and_a_traceback_in_the_log(tmp_path):
    done, log = run("\ndef deep():\n    return 1 / 0\ndeep()\n", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "dtcflow: unexpected ZeroDivisionError: division by zero (traceback in logs/step.log)\n"
    assert "Traceback (most recent call last)" in log
    assert "in deep" in log


def test_without_a_log_the_traceback_is_shown(tmp_path):
    done, _ = run("\n1 / 0\n", cwd=tmp_path, log=None)
    assert "Traceback (most recent call last)" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_log_gets_everything_the_screen_warnings_only(tmp_path):
    body = """
import logging, warnings
logging.getLogger("dtcflow.x").info("reading a.h5ad")
logging.getLogger("dtcflow.x").warning("2 cells lost")
logging.getLogger("numba.core").info("compiling")
logging.getLogger("anndata").info("... storing 'batch' as categorical")
warnings.warn("old option", FutureWarning)
"""
    done, log = run(body, cwd=tmp_path)
    assert done.returncode == 0
    assert "INFO dtcflow.x: reading a.h5ad" in log
    assert "WARNING dtcflow.x: 2 cells lost" in log
    assert "old option" in log
    assert "2 cells lost" in done.stderr
    assert "reading" not in done.stderr
    assert "compiling" not in log
    assert "storing" not in done.stderr + log


def test_a_second_attempt_starts_a_new_log(tmp_path):
    run("import logging; logging.info('first')", cwd=tmp_path)
    _, log = run("import logging; logging.info('second')", cwd=tmp_path)
    assert "second" in log
    assert "first" not in log


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_reach_the_numerical_libraries(tmp_path, threads):
    body = f"""
import os
assert {{os.environ[name] for name in {THREAD_VARIABLES!r}}} == {{"{threads}"}}
from threadpoolctl import threadpool_info
import numpy
pools = [pool["num_threads"] for pool in threadpool_info()]
assert pools and max(pools) <= {threads}, pools
"""
    done, _ = run(body, cwd=tmp_path, threads=threads)
    assert done.returncode == 0, done.stderr


def test_heavy_libraries_are_not_imported_before_the_threads_are_set(tmp_path):
    body = "import sys; print([m for m in ('numpy', 'scipy', 'numba', 'pandas') if m in sys.modules])"
    done, _ = run(body, cwd=tmp_path)
    assert done.stdout.strip() == "[]"


def test_threads_are_limited_also_when_numpy_came_first(tmp_path):
    program = """
import numpy
from dtcflow.logs import setup
setup(None, threads=1)
from threadpoolctl import threadpool_info
assert {pool["num_threads"] for pool in threadpool_info()} == {1}, threadpool_info()
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
