"""The same tables, byte for byte: on one core or two, without the truth or with a wrong one, after several kills."""

from __future__ import annotations

import random
import shutil

import pytest

from dtcflow.runs import lock_files


def differing(one: dict[str, str], other: dict[str, str]) -> list[str]:
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


@pytest.fixture(scope="session")
def undisturbed(finished, fingerprints):
    found = fingerprints(finished.results)
    assert len(found) > 25
    return found


def test_one_core_and_a_scrambled_truth(copy_of, snakemake, house, undisturbed, fingerprints):
    folder = copy_of("one_core")
    for file in (folder / "truth").iterdir():
        content = bytearray(file.read_bytes())
        random.Random(0).shuffle(content)
        file.write_bytes(content)
    done = snakemake(folder, cores=1, house=house)
    assert done.code == 0, done.text
    assert differing(undisturbed, fingerprints(folder / "results")) == []


def test_three_kills_and_no_truth(copy_of, snakemake, dtcflow, killed, house, undisturbed, fingerprints):
    """Killed three times at random points (the seed fixes them), each time before the run is much further."""
    folder = copy_of("killed")
    shutil.rmtree(folder / "truth")
    chance = random.Random(20)

    def refused():
        done = dtcflow("unlock", "--directory", folder, cwd=folder, house=house)
        assert done.code == 2, done.text
        assert "a run is going on" in done.err
        assert "process" in done.err
        assert lock_files(folder)

    for number in range(3):
        killed(
            folder,
            steps=chance.randint(1, 6),
            seconds=chance.uniform(0, 3),
            house=house,
            while_alive=refused if number == 0 else lambda: None,
        )
        assert lock_files(folder), "the killed run left no lock: it was not killed while it worked"
        done = dtcflow("unlock", "--directory", folder, cwd=folder, house=house)
        assert done.code == 0, done.err
        assert "removed the lock" in done.out
        assert len(done.out.splitlines()) == 1
    assert dtcflow("unlock", "--directory", folder, cwd=folder, house=house).out == ""
    done = snakemake(folder, house=house)
    assert done.code == 0, done.text
    assert differing(undisturbed, fingerprints(folder / "results")) == []
    assert not list(folder.glob("results/**/.*.tmp")), "a half-written file was left behind"


@pytest.mark.slow
@pytest.mark.parametrize("point", range(3))
def test_a_kill_at_any_point(point, copy_of, snakemake, dtcflow, killed, house, undisturbed, fingerprints):
    folder = copy_of(f"killed{point}")
    chance = random.Random(100 + point)
    killed(folder, steps=chance.randint(1, 18), seconds=chance.uniform(0, 4), house=house)
    assert dtcflow("unlock", "--directory", folder, cwd=folder, house=house).code == 0
    done = snakemake(folder, house=house)
    assert done.code == 0, done.text
    assert differing(undisturbed, fingerprints(folder / "results")) == []
