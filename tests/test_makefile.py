"""Values that a person gives to make arrive at the verb as they were given."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
SPY = f"""#!{sys.executable}
import json, os, sys
assert "OBJECTIVE" not in os.environ  # a default of make's is not for other programs to find
print(json.dumps([os.environ["NUTCLF_STORE"], *sys.argv[3:]]))
"""
ODD = ("mom's nuts", "50%off #1", "a$b $(HOME) `id`", '"so"', "back\\slash; ls", "ナッツ", "a=b")


@pytest.fixture
def verb(tmp_path):
    """What a target calls: the store, the verb and its arguments."""
    (tmp_path / "python").write_text(SPY)
    (tmp_path / "python").chmod(0o755)

    def called(*words: str, **environment: str) -> list[str]:
        # What is installed here may be older than requirements.txt.
        settled = ["--old-file", ".venv/.installed", f"BIN={tmp_path}"]
        command = ["make", "--no-print-directory", *settled, *words]
        environment = {k: v for k, v in os.environ.items() if k != "MAKEFLAGS"} | environment
        done = subprocess.run(
            command, check=True, cwd=REPO, env=environment, capture_output=True, text=True
        )
        return json.loads(done.stdout.splitlines()[-1])

    return called


@pytest.mark.parametrize("value", ODD)
def test_any_value_arrives(verb, value):
    store, name, *arguments = verb("sweep", f"DATA={value}", f"STORE={value}", f"NAME={value}")
    assert (store, name) == (value, "sweep")
    assert arguments[arguments.index("--data") + 1] == value
    assert arguments[arguments.index("--name") + 1] == value


def test_it_may_come_from_the_environment(verb):
    assert verb("doctor", STORE="50%off $1", FIX="1") == ["50%off $1", "doctor", "--fix"]


@pytest.mark.parametrize(("setting", "given"), [("FIX=1", ["--fix"]), ("FIX=", [])])
def test_doctor_repairs_when_asked(verb, setting, given):
    assert verb("doctor", setting, "STORE=here") == ["here", "doctor", *given]


def test_images_are_words_or_one_name(verb, tmp_path):
    (tmp_path / "it's one.jpg").touch()
    one = str(tmp_path / "it's one.jpg")
    assert verb("predict", f"IMAGE={one}")[-2:] == ["--", one]
    assert verb("predict", "IMAGE=a.jpg 'b c.jpg'")[-3:] == ["--", "a.jpg", "b c.jpg"]


def test_packages_come_from_the_mirror_that_pip_was_told():
    asked = []

    class Mirror(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Mirror) as mirror:
        threading.Thread(target=mirror.serve_forever, daemon=True).start()
        recipe = "--eval=absent: ; $(UV) a-package-that-is-not-there"
        command = ["make", "--old-file", ".venv/.installed", f"BIN={Path(sys.executable).parent}"]
        own = ("MAKEFLAGS", "UV_DEFAULT_INDEX")  # uv's own setting wins over pip's
        environment = {k: v for k, v in os.environ.items() if k not in own}
        environment["PIP_INDEX_URL"] = f"http://127.0.0.1:{mirror.server_port}/simple"
        done = subprocess.run([*command, recipe, "absent"], check=False, cwd=REPO, env=environment)
        mirror.shutdown()
    assert done.returncode
    assert asked == ["/simple/a-package-that-is-not-there/"]
