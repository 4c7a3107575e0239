import subprocess
import sys
from pathlib import Path

import pytest

from mergesearch.errors import InputError
from mergesearch.runs import hold, identity_of, is_run

IDENTITY = {"space": {"search": {"seed": 0}, "groups": ("a", "b")}, "tasks": {"first": "1f"}}


def listing(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_folder_is_made_and_re_opened_by_the_same_space(tmp_path: Path) -> None:
    run = tmp_path / "results" / "run"
    assert not is_run(run)
    for _ in range(2):
        with hold(run, IDENTITY) as held:
            assert held == run
    assert is_run(run)
    assert identity_of(run)["tasks"] == {"first": "1f"}


def test_a_held_folder_is_refused_to_others_until_it_is_let_go(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with hold(run, IDENTITY):
        with (
            pytest.raises(InputError, match="in use by another process") as caught,
            hold(run, IDENTITY),
        ):
            pass
        assert "\n" not in str(caught.value)
    with hold(run, IDENTITY):
        pass


def test_a_killed_process_lets_its_folder_go(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with hold(run, IDENTITY):
        pass
    holder = (
        "import fcntl, sys, time\n"
        "lock = open(sys.argv[1], 'a')\n"
        "fcntl.flock(lock, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", holder, str(run / "lock")], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        process.stdout.readline()
        with pytest.raises(InputError, match="in use by another process"), hold(run, IDENTITY):
            pass
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    with hold(run, IDENTITY):
        pass


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (
            {**IDENTITY, "space": {"search": {"seed": 1}, "groups": ("a", "b")}},
            "space.search.seed was 0 and is 1",
        ),
        (
            {**IDENTITY, "space": {"search": {"seed": 0}, "groups": ("a", "c")}},
            'space.groups was ["a", "b"] and is ["a", "c"]',
        ),
        ({**IDENTITY, "tasks": {"first": "2f"}}, 'tasks.first was "1f" and is "2f"'),
        ({**IDENTITY, "tasks": {"other": "1f"}}, 'tasks.first was "1f" and is null'),
    ],
)
def test_another_space_is_refused_with_the_difference(
    tmp_path: Path, other: dict[str, object], difference: str
) -> None:
    run = tmp_path / "run"
    with hold(run, IDENTITY):
        (run / "record.jsonl").write_text("kept\n")
    before = listing(run)
    with pytest.raises(InputError) as caught, hold(run, other):
        pass
    assert f"was made by another space ({difference}); give --out" in str(caught.value)
    assert listing(run) == before


def test_a_folder_of_other_things_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "cat.jpg").write_bytes(b"cat")
    with (
        pytest.raises(InputError, match="not empty and is no run folder; give --out"),
        hold(folder, IDENTITY),
    ):
        pass
    assert listing(folder) == {"cat.jpg": b"cat"}


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    for path in (tmp_path / "run", tmp_path / "run" / "below"):
        with pytest.raises(InputError), hold(path, IDENTITY):
            pass
    assert (tmp_path / "run").read_text() == "a file"


@pytest.mark.parametrize("left", [["lock"], ["lock", ".run.json.partial"]])
def test_a_kill_while_the_folder_was_made_leaves_one_that_can_be_used(
    tmp_path: Path, left: list[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in left:
        (run / name).write_text('{"sp' if name != "lock" else "")
    with hold(run, IDENTITY):
        pass
    assert identity_of(run)["tasks"] == {"first": "1f"}


def test_what_made_a_run_is_asked_of_runs_only(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is no run folder: it has no run\.json"):
        identity_of(tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"space": 1}', "another version of mergesearch: its format is None"),
        ('{"format": 99}', "its format is 99, and this one reads 3"),
        ("{", "damaged"),
        ("[]", "damaged"),
    ],
)
def test_a_run_of_another_version_is_refused_and_left_alone(
    tmp_path: Path, text: str, says: str
) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError, match=says), hold(tmp_path, {"space": 1}):
        pass
    assert (tmp_path / "run.json").read_text() == text


def test_a_folder_that_is_for_reading_only_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hold(tmp_path / "run", {}):
        pass

    def denied(path: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", denied)
    with (
        pytest.raises(InputError, match=r"cannot write in the run folder .*run: Permission denied"),
        hold(tmp_path / "run", {}),
    ):
        pass
