"""Signals, sent to this very process; and what a machine and a person's settings bring along."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy import orm

from nutclf.process import hear_signals_once, quiet, signals_deferred


@pytest.fixture(autouse=True)
def handlers_put_back():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_what_is_written_is_written_whole():
    hear_signals_once()
    written = []
    with pytest.raises(KeyboardInterrupt), signals_deferred():
        os.kill(os.getpid(), signal.SIGINT)
        written.append("whole")
    assert written == ["whole"]


def test_sigterm_ends_with_143():
    hear_signals_once()
    with pytest.raises(SystemExit) as ended:
        os.kill(os.getpid(), signal.SIGTERM)
    assert ended.value.code == 143


def test_the_end_is_not_ended():
    hear_signals_once()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)


FAULTS = """
import resource, sys
from nutclf.process import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(50):
    b"x" * 40_000_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_freed_memory_is_used_again():
    pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if pages.exists() and "[always]" in pages.read_text():
        pytest.skip("the system takes huge pages for all memory, and has few to clear")

    def faults(how):
        return int(subprocess.check_output([sys.executable, "-c", FAULTS, how], text=True))

    assert faults("keep") < 40_000
    assert faults("plain") > 400_000


def test_a_query_that_a_signal_ends_says_nothing_of_its_own(tmp_path, caplog):
    """Seen in CI: a sweep ended by SIGTERM while MLflow read, and a traceback before its end."""
    quiet()
    hear_signals_once()

    def ended(cursor, row):
        os.kill(os.getpid(), signal.SIGTERM)
        return row

    class Row(orm.declarative_base()):
        __tablename__ = "row"
        id = sqlalchemy.Column(sqlalchemy.Integer, primary_key=True)

    database = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'records.db'}")
    Row.metadata.create_all(database)
    with pytest.raises(SystemExit), orm.Session(database) as session:
        session.add(Row(id=1))
        session.flush()
        session.connection().connection.driver_connection.row_factory = ended
        session.query(Row).all()
    assert not caplog.records


def python(code, *arguments, **environment):
    """Runs code as `python -m nutclf` begins."""
    begin = "from nutclf.process import accept_surroundings, quiet\naccept_surroundings()\n"
    return subprocess.run(
        [*arguments, sys.executable, "-c", begin + code],
        env={k: v for k, v in os.environ.items() if k not in environment}
        | {k: v for k, v in environment.items() if v is not None},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"PYTHONOPTIMIZE": "2"}, "unset PYTHONOPTIMIZE, or set it to 1."),
        ({"TF_NUM_INTRAOP_THREADS": "-1"}, "TF_NUM_INTRAOP_THREADS is '-1'; allowed: a whole"),
        ({"TF_NUM_INTEROP_THREADS": "two"}, "TF_NUM_INTEROP_THREADS is 'two'; allowed: a whole"),
    ],
)
def test_surroundings_that_stop_tensorflow_are_named(environment, sentence):
    assert sentence in python("", **environment).stderr


@pytest.mark.parametrize(
    "settings",
    [
        {"backend": "theano", "floatx": "float16", "image_data_format": "channels_first"},
        {"backend": "jax", "floatx": "float64", "epsilon": 1e-3},
    ],
)
def test_keras_is_set_by_us(tmp_path, settings):
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    code = (
        "quiet()\nimport keras\nfrom keras import config as c\nlayer = keras.layers.Dense(1)\n"
        "print(c.backend(), c.floatx(), c.image_data_format(), c.epsilon(), layer.dtype)"
    )
    done = python(code, KERAS_HOME=str(tmp_path), KERAS_BACKEND="torch", KERAS_MAX_EPOCHS="1")
    assert done.stdout.split() == ["tensorflow", "float32", "channels_last", "1e-07", "float32"]


@pytest.mark.parametrize("text", ['{"floatx": "bfloat16"}', "[]"])
def test_settings_that_keras_cannot_read_are_named(tmp_path, text):
    (tmp_path / "keras.json").write_text(text)
    done = python("quiet()", KERAS_HOME=str(tmp_path))
    assert f"Keras cannot read its settings, {tmp_path}/keras.json; correct" in done.stderr


def test_a_terminal_that_cannot_show_a_name_shows_its_code():
    done = python("print('ナッツ')", PYTHONIOENCODING="cp1252")
    assert done.stdout == "\\u30ca\\u30c3\\u30c4\n"


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become a user without a name")
def test_a_user_without_name_and_home():
    become = ("setpriv", "--reuid=54321", "--regid=54321", "--clear-groups")
    done = python(
        "quiet()\nimport mlflow, nutclf.track.store as s\nprint(s.user_name())", *become, HOME=None
    )
    assert done.stdout == "54321\n", done.stderr
