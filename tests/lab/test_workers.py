import os
import subprocess
import sys
from pathlib import Path

import maxsup

PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from maxsup.lab import workers

def look(connection):
    import maxsup, timm
    connection.send([maxsup.__file__, timm.__file__])

if __name__ == "__main__":
    import maxsup
    context = workers.worker_context(sys.argv[2:] or workers.PRELOADED)
    mine, theirs = context.Pipe()
    context.Process(target=look, args=(theirs,)).start()
    print(*mine.recv(), maxsup.__file__)
"""


def run(tmp_path, first, *preloaded, **environment):
    (tmp_path / "program").mkdir()
    program = tmp_path / "program" / "program.py"
    program.write_text(PROGRAM)
    here = tmp_path / "here"
    here.mkdir()
    (here / "timm.py").write_text("raise RuntimeError('the current folder is no place for modules')")
    return subprocess.run(
        [sys.executable, str(program), str(first), *preloaded],
        cwd=here,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_workers_have_the_modules_of_their_parent_and_not_those_of_the_current_folder(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "maxsup").symlink_to(Path(maxsup.__file__).parent)
    found = run(tmp_path, other)
    assert found.returncode == 0, found.stderr
    theirs, timm, ours = found.stdout.split()
    assert theirs == ours == str(other / "maxsup" / "__init__.py")
    assert not timm.startswith(str(tmp_path))


def test_a_folder_that_is_no_place_for_a_socket_is_named(tmp_path):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    found = run(tmp_path, tmp_path, "json", TMPDIR=str(long))
    assert f"OSError: TMPDIR must be a folder for sockets, of at most 75 characters, got '{long}'" in found.stderr


def test_a_server_that_dies_while_it_imports_is_an_error(tmp_path):
    (tmp_path / "broken.py").write_text("raise RuntimeError('broken')")
    found = run(tmp_path, tmp_path, "broken")
    assert "RuntimeError: broken" in found.stderr
    assert "OSError: the server of worker processes died while it imported maxsup" in found.stderr
