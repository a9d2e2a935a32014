import hashlib
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import maxsup
from maxsup.lab import environment


def test_versions_name_what_is_installed():
    versions = environment.versions()
    assert versions["python"] == platform.python_version()
    assert versions["timm"] == metadata.version("timm")
    assert versions["maxsup"] == maxsup.__version__


def test_the_commit_is_the_checkouts_and_none_elsewhere(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert environment._git_state(tmp_path) == {"git_commit": None, "git_dirty": None}
    git("init", "-q")
    assert environment._git_state(tmp_path) == {"git_commit": None, "git_dirty": None}  # no commit yet
    (tmp_path / "a").write_text("a")
    git("add", "a")
    git("commit", "-qm", "a")
    head = git("rev-parse", "HEAD")
    assert environment._git_state(tmp_path) == {"git_commit": head, "git_dirty": False}
    (tmp_path / "a").write_text("b")
    assert environment._git_state(tmp_path) == {"git_commit": head, "git_dirty": True}


def test_the_hash_is_that_of_the_packages_files():
    package = Path(maxsup.__file__).parent
    expected = hashlib.sha256()
    for name in sorted(package.rglob("*.py")):
        content = name.read_bytes()
        expected.update(f"{name.relative_to(package).as_posix()} {len(content)}\n".encode() + content)
    assert environment.source_state()["source_sha256"] == expected.hexdigest()
