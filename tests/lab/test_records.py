import errno
import json
import os

import pytest

from maxsup.lab import records
from maxsup.lab.records import RecordError, read_comparison, read_run, replacing, run_directory, write_json


def test_replacing_leaves_the_old_file_and_no_other_when_the_writer_fails(tmp_path):
    target = tmp_path / "result.json"
    target.write_text("old")
    with pytest.raises(OSError, match="No space"), replacing(target) as path:  # noqa: PT012
        path.write_text("half of the n")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["result.json"]


def test_a_failed_write_names_its_file(tmp_path):
    full = OSError(errno.ENOSPC, "No space left on device")
    with (
        pytest.raises(OSError, match=rf"No space left on device: '{tmp_path}/a\.json'"),
        replacing(tmp_path / "a.json"),
    ):
        raise full


def test_written_files_follow_the_umask(tmp_path):
    before = os.umask(0o022)
    try:
        records.write_text(tmp_path / "a.txt", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o644


def test_remove_temporary_takes_what_a_killed_writer_left_and_nothing_else(tmp_path):
    write_json(tmp_path / "result.json", {})
    (tmp_path / ".tmp-result.json-abc").write_text("half")
    records.remove_temporary(tmp_path)
    assert os.listdir(tmp_path) == ["result.json"]


def test_read_json_names_the_file_and_the_version(tmp_path):
    file = tmp_path / "result.json"
    file.write_text('{"schema_version": 99}')
    with pytest.raises(RecordError, match=r"result\.json: schema version 99; this maxsup reads version 1"):
        records.read_json(file)
    file.write_text('{"schema_ver')
    with pytest.raises(RecordError, match=r"result\.json: not a readable JSON record"):
        records.read_json(file)


def test_read_json_lines_names_the_line(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"epoch": 0}\n{"epo')
    with pytest.raises(RecordError, match=r"metrics\.jsonl: line 2 is not JSON"):
        records.read_json_lines(file)
    file.write_bytes(b'{"epoch": 0}\n\xa4\xff')
    with pytest.raises(RecordError, match=r"metrics\.jsonl: line 2 is not JSON"):
        records.read_json_lines(file)
    file.write_text("[]\n")
    with pytest.raises(RecordError, match=r"metrics\.jsonl: line 1 is no JSON object"):
        records.read_json_lines(file)


def test_differences_lists_changed_added_and_removed_fields():
    old = {"epochs": 5, "model": {"name": "a", "width": 8}, "gone": 1}
    new = {"epochs": 5, "model": {"name": "b", "width": 8}, "added": [1]}
    assert records.differences(old, new) == ["added: null -> [1]", "gone: 1 -> null", 'model.name: "a" -> "b"']


def _run(path, **result):
    write_json(path / "run.json", {"method": "max-sup", "seed": 3})
    if result:
        write_json(path / "result.json", result)


def test_read_run_tells_every_status(tmp_path):
    assert read_run(tmp_path / "none", "max-sup", 3).status == "missing"
    _run(tmp_path / "running")
    assert read_run(tmp_path / "running").status == "unfinished"
    _run(tmp_path / "failed")
    (tmp_path / "failed" / "error.txt").write_text("Traceback\nValueError: no")
    failed = read_run(tmp_path / "failed")
    assert (failed.status, failed.problem) == ("failed", "Traceback\nValueError: no")
    for status in ("finished", "diverged"):
        _run(tmp_path / status, status=status)
        assert read_run(tmp_path / status).status == status
    assert (failed.method, failed.seed) == ("max-sup", 3)


def test_read_run_turns_damage_into_a_problem(tmp_path):
    _run(tmp_path, status="finished")
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 0}\n{"ep')
    run = read_run(tmp_path)
    assert run.status == "failed"
    assert "metrics.jsonl: line 2" in run.problem


def test_read_comparison_lists_missing_runs_in_order(tmp_path):
    write_json(tmp_path / "comparison.json", {"recipe": {"name": "r"}, "methods": ["a", "b"], "seeds": [1, 0]})
    _run(run_directory(tmp_path, "b", 1), status="finished")
    comparison = read_comparison(tmp_path)
    assert [(run.method, run.seed, run.status) for run in comparison.runs] == [
        ("a", 1, "missing"),
        ("a", 0, "missing"),
        ("max-sup", 3, "finished"),
        ("b", 0, "missing"),
    ]
    assert len(comparison.of_method("a")) == 2


def test_read_comparison_says_where_none_is(tmp_path):
    with pytest.raises(RecordError, match=r"comparison\.json is missing"):
        read_comparison(tmp_path)


def test_records_are_strict_json(tmp_path):
    write_json(tmp_path / "a.json", {"x": None})
    assert json.loads((tmp_path / "a.json").read_text()) == {"schema_version": 1, "x": None}
    with pytest.raises(ValueError, match=r"NaN|Out of range float"):
        write_json(tmp_path / "b.json", {"x": float("nan")})
    assert not (tmp_path / "b.json").exists()
