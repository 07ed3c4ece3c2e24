"""The driver: what it counts, when it ends, what it leaves behind. Fits are scripted here."""

import time
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from nutclf.config import OBJECTIVES, Recipe, SearchSpace
from nutclf.errors import SweepFailed, UserError
from nutclf.search.driver import Driver, settle
from nutclf.search.engines import Stopped
from nutclf.search.study import KILLS, MAX_KILLS, STARTUP_TRIALS, n_done
from nutclf.search.trial import RUN_ID, LiveTrial
from nutclf.track.runs import STATUS, trial_run
from nutclf.train.jobs import ALL, Assembled, FitJob
from nutclf.train.learner import History, NonFiniteLoss
from nutclf.train.workbench import FitResult


class Scripted:
    """An engine whose fits end as they are told to, by the number of the fit; trains nothing."""

    def __init__(self, keras_file, *, n=1, ends=None, seconds=0.0, last_first=False):
        self.n, self._file, self._ends, self._seconds = n, keras_file, ends or {}, seconds
        self._which = -1 if last_first else 0
        self.jobs, self.cancelled, self._out, self._given = [], [], [], []

    def submit(self, job, on_epoch):
        future = Future()
        self.jobs.append(job)
        self._given.append((job, future))
        self._out.append((future, job, on_epoch))
        assert sum(isinstance(one, FitJob) for _, one, _ in self._out) <= self.n
        return future

    def wait(self):
        future, job, on_epoch = self._out.pop(self._which)
        if not isinstance(job, FitJob):
            n_valid = len(job.setting.data.split("valid"))
            future.set_result(Assembled(self._file, _likely(n_valid), 1 / 3, 100.0))
            return
        time.sleep(self._seconds)
        end = self._ends.get(self.fits.index(job), None)
        if isinstance(end, BaseException):
            if not isinstance(end, Exception):
                raise end
            future.set_exception(end)
            return
        loss = 1.0 if end is None else end
        figures = {
            "train_loss": loss,
            "train_accuracy": 1 / 3,
            "valid_loss": loss,
            "valid_accuracy": 1 / 3,
            "learning_rate": 1e-3,
        }
        if on_epoch(1, figures):
            future.set_result(self._result(job, [figures]))
        else:
            future.set_exception(Stopped())

    def cancel(self, future):
        self.cancelled.append(next(job for job, given in self._given if given is future))
        self._out = [one for one in self._out if one[0] is not future]
        if not future.done():
            future.set_exception(Stopped())

    @property
    def fits(self):
        return [job for job in self.jobs if isinstance(job, FitJob)]

    def _result(self, job, epochs):
        data, held_out, n_views = job.setting.data, None, len(job.setting.config.test_views)
        if job.fold != ALL:
            n_held_out = int((data.split("train")["fold"] == job.fold).sum())
            held_out = np.stack([_likely(n_held_out)] * n_views)
        valid = np.stack([_likely(len(data.split("valid")))] * n_views)
        return FitResult(
            job.recipe, job.seed, History(epochs, 1), {}, valid, held_out, {"threads": 1}, 0.1, 0.1
        )


def _likely(n):
    """The first class, always."""
    return np.tile(np.float32([0.5, 0.25, 0.25]), (n, 1))


@pytest.fixture(scope="session")
def keras_file(bench, tmp_path_factory):
    file = tmp_path_factory.mktemp("assembled") / "model.keras"
    bench.assemble(bench.fit(Recipe(epochs=1, lr_schedule="constant")))[0].save(file)
    return file.read_bytes()


@pytest.fixture
def drive(store, begin, tiny_config, keras_file):
    """Tops a study up with scripted fits: `drive(n_trials, ends=...)`, the study, engine, lines."""

    def drive(n_trials, config=tiny_config, deadline=None, **script):
        study, engine, lines = begin(store, config), Scripted(keras_file, **script), []
        drive.study, drive.engine, drive.lines = study, engine, lines
        Driver(study, engine, lines.append, deadline).run_trials(n_trials)
        return study, engine, lines

    return drive


def states(study):
    return [trial.state.name for trial in study.optuna.get_trials()]


def runs_of(study):
    client = study.run.client
    found = client.search_runs([study.run.study[0]], "tags.kind = 'trial'")
    return sorted(found, key=lambda run: int(run.data.tags["trial_number"]))


def test_a_sweep_tops_up_and_a_full_study_is_left_alone(drive):
    assert states(drive(3)[0]) == ["COMPLETE"] * 3
    _, engine, lines = drive(3)
    assert (engine.jobs, lines) == ([], [])
    assert len(drive(5)[1].fits) == 2


def test_a_trial_begins_while_one_is_recorded_only_if_it_is_drawn_at_random(drive, monkeypatch):
    done_at_begin, submit = [], Scripted.submit

    def watched(self, job, on_epoch):
        if isinstance(job, FitJob):
            done_at_begin.append(n_done(drive.study.optuna))
        return submit(self, job, on_epoch)

    monkeypatch.setattr(Scripted, "submit", watched)
    drive(STARTUP_TRIALS + 2)
    assert done_at_begin == [0, *range(STARTUP_TRIALS - 1), STARTUP_TRIALS, STARTUP_TRIALS + 1]


def test_complete_and_pruned_trials_count_and_failed_ones_are_replaced(drive, monkeypatch):
    prune_third = lambda trial: trial.number == 2  # noqa: E731
    monkeypatch.setattr(optuna.Trial, "should_prune", prune_third)
    study, _, _ = drive(3, ends={1: NonFiniteLoss("in epoch 1")})
    assert states(study) == ["COMPLETE", "FAIL", "PRUNED", "COMPLETE"]
    assert n_done(study.optuna) == 3


def test_three_failures_in_a_row_end_a_sweep(drive):
    with pytest.raises(SweepFailed, match=r"the last 3 trials failed.*in epoch 1"):
        drive(20, ends={fit: NonFiniteLoss("in epoch 1") for fit in range(20)})
    assert states(drive.study) == ["FAIL"] * 3


def test_failures_with_a_result_between_them_do_not(drive):
    bad = {fit: NonFiniteLoss("") for fit in (0, 1, 3, 4)}
    assert len(states(drive(2, ends=bad)[0])) == 6


def test_a_sweep_without_any_result_says_so(drive, monkeypatch):
    monkeypatch.setattr(optuna.Trial, "should_prune", lambda trial: True)
    with pytest.raises(SweepFailed, match="2 trials brought no result"):
        drive(2)


def test_what_a_person_must_mend_ends_the_sweep_and_is_not_counted(drive):
    with pytest.raises(UserError, match="no such folder"):
        drive(3, ends={1: UserError("no such folder.")})
    assert states(drive.study) == ["COMPLETE", "FAIL", "WAITING"]


def test_as_many_trials_run_at_once_as_there_are_workers(drive):
    study, engine, _ = drive(6, n=3)
    assert states(study) == ["COMPLETE"] * 6
    begun_before_the_first_ended = engine.jobs[:3]
    assert [type(job) for job in begun_before_the_first_ended] == [FitJob] * 3
    assert len({job.recipe for job in engine.fits}) == 6


def test_cross_validation_fits_each_fold_and_then_everything(drive, tiny_config):
    config = replace(tiny_config, objective=OBJECTIVES["cv"], n_folds=4)
    study, engine, lines = drive(1, config)
    assert [job.fold for job in engine.fits] == [0, 1, 2, 3, ALL]
    assert "0.333 (8/24" in lines[0]
    (run,) = runs_of(study)
    assert run.data.metrics["cv_accuracy"] == pytest.approx(1 / 3)
    assert run.data.metrics["fold_3/valid_loss"] == 1.0


def test_free_workers_take_the_next_folds_of_the_earliest_trial(drive, tiny_config):
    """Whatever order the fits end in, the trial judges them in that of one worker."""
    config = replace(tiny_config, objective=OBJECTIVES["cv"], n_folds=3)
    study, engine, _ = drive(3, config, n=3, ends={2: NonFiniteLoss("in epoch 1")}, last_first=True)
    assert [job.fold for job in engine.fits[:4]] == [0, 1, 2, ALL]
    recipes = list(dict.fromkeys(job.recipe for job in engine.fits))
    begun = [recipes.index(job.recipe) for job in engine.fits]
    assert begun[:5] == [0, 0, 0, 0, 1], "a trial begins once no fit of the earlier ones is left"
    assert states(study) == ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert runs_of(study)[0].data.tags["reason"] == "NonFiniteLoss: in epoch 1"
    assert [job.fold for job in engine.cancelled if job.recipe == recipes[0]] == [ALL]


def test_fits_of_a_stopped_trial_are_cancelled(drive, tiny_config, monkeypatch):
    monkeypatch.setattr("nutclf.search.trial.behind", lambda right, leader: True)
    config = replace(tiny_config, objective=OBJECTIVES["cv"], n_folds=3)
    study, engine, _ = drive(4, config, n=2)
    assert states(study)[-1] == "PRUNED", "those before began without a leader"
    last = list(dict.fromkeys(job.recipe for job in engine.fits))[-1]
    assert [job.fold for job in engine.fits if job.recipe == last] == [0, 1]
    assert [job.fold for job in engine.cancelled if job.recipe == last] == [1]


def test_after_the_timeout_no_new_fit_begins_and_the_recipe_is_queued(
    drive, tiny_config, monkeypatch
):
    monkeypatch.setattr(Driver, "_is_late", lambda driver: len(driver._engine.fits) >= 7)
    config = replace(tiny_config, objective=OBJECTIVES["cv"], n_folds=4)
    study, engine, _ = drive(9, config)
    assert states(study) == ["COMPLETE", "FAIL", "WAITING", "WAITING"]
    assert [job.fold for job in engine.fits] == [0, 1, 2, 3, ALL, 0, 1]
    assert runs_of(study)[1].data.tags["reason"].startswith("TIMEOUT was reached")
    _, cut_off, _, queued = study.optuna.get_trials()
    assert queued.system_attrs["fixed_params"] == cut_off.params
    assert n_done(study.optuna) == 1


def test_a_timeout_without_any_result_is_said(drive):
    with pytest.raises(UserError, match=r"No trial was finished within TIMEOUT.*same command"):
        drive(3, deadline=time.monotonic() - 1)


def test_the_progress_line_shows_where_the_sweep_stands(drive):
    _, _, lines = drive(2, ends={0: 0.5, 1: 0.25})
    assert lines[0].startswith("[1/2] trial 0: 0.5000 · 4 unfrozen · cosine · ")
    assert "best 0.5000 (trial 0) · about " in lines[0]
    assert lines[0].endswith(" left")
    assert "best 0.2500 (trial 1)" in lines[1]
    assert lines[1].endswith("done")


def test_the_progress_line_shows_an_end_that_comes_first(drive):
    drive(50, deadline=time.monotonic() + 8, seconds=0.1)
    assert "s until TIMEOUT" in drive.lines[0]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143)])
def test_an_interrupt_closes_what_is_under_way_and_goes_on(drive, error):
    with pytest.raises(type(error)):
        drive(9, n=2, ends={3: error})
    study = drive.study
    assert sorted(states(study)) == ["COMPLETE", "COMPLETE", "FAIL", "FAIL", "WAITING", "WAITING"]
    ended = {run.info.status: run.data.tags for run in runs_of(study)}
    assert set(ended) == {"FINISHED", "FAILED"}
    assert ended["FAILED"]["reason"] == "interrupted"


def test_what_a_dead_driver_left_running_is_failed_and_queued_again(drive):
    study, _, _ = drive(1)
    dead = LiveTrial(study, study.optuna.ask())
    dead.begin()  # and its process ends here
    settle(study.optuna, study.run)
    assert states(study) == ["COMPLETE", "FAIL", "WAITING"]
    run = runs_of(study)[1]
    assert (run.info.status, run.data.tags["trial_state"]) == ("FAILED", "FAIL")
    assert run.data.tags["reason"] == "its driver ended before it did"
    again = study.optuna.ask()
    assert again.user_attrs[KILLS] == 1
    recipe = LiveTrial(study, again).begin().recipe
    assert recipe == dead.fits.recipe


def test_a_driver_that_died_between_trial_and_run_is_settled_too(drive):
    """Optuna is told first: the run follows."""
    study, _, _ = drive(1)
    dead = LiveTrial(study, study.optuna.ask())
    dead.begin()
    study.optuna.tell(dead.trial, 0.5)
    settle(study.optuna, study.run)
    assert {run.info.status for run in runs_of(study)} == {"FINISHED"}
    assert states(study) == ["COMPLETE", "COMPLETE"]


def test_a_recipe_that_kills_its_driver_is_given_up(drive):
    study, _, _ = drive(1)
    for _ in range(MAX_KILLS + 1):
        LiveTrial(study, study.optuna.ask()).begin()
        settle(study.optuna, study.run)
    assert states(study) == ["COMPLETE"] + ["FAIL"] * (MAX_KILLS + 1)


def test_state_and_status_agree_whatever_happened(drive):
    study, _, _ = drive(4, n=2, ends={1: NonFiniteLoss(""), 2: ValueError("x")})
    runs = {run.info.run_id: run for run in runs_of(study)}
    for trial in study.optuna.get_trials(states=[TrialState.COMPLETE, TrialState.FAIL]):
        run = runs[trial.user_attrs[RUN_ID]]
        state = trial.state.name
        assert (run.info.status, run.data.tags["trial_state"]) == (STATUS[state], state)


def test_the_winner_is_scored_from_three_seeds_once(drive):
    study, engine, lines = drive(2, ends={0: 0.5, 1: 0.25})
    engine._ends = {2: 0.3, 3: 0.35}
    driver = Driver(study, engine, lines.append)
    for _ in range(2):
        driver.score_winner_again()
    assert [job.seed for job in engine.fits] == [0, 0, 1, 2]
    said = [line for line in lines if "from 3 seeds" in line]
    assert said == [
        "Trial 1 from 3 seeds: best_valid_loss 0.2500, 0.3000, 0.3500; mean 0.3000, standard "
        "deviation 0.0500."
    ]
    data = study.run.client.get_run(study.run.run_id).data
    assert data.metrics["winner_best_valid_loss_mean"] == pytest.approx(0.3)
    assert data.tags["winner_seeds"] == said[0]


def test_a_seed_is_cross_validated_without_a_model(drive, tiny_config):
    config = replace(tiny_config, objective=OBJECTIVES["cv"], n_folds=4)
    study, engine, lines = drive(1, config)
    Driver(study, engine, lines.append).score_winner_again()
    assert [job.fold for job in engine.fits[5:]] == [0, 1, 2, 3] * 2
    client = study.run.client
    seeds = client.search_runs([study.run.study[0]], "tags.kind = 'seed'")
    assert {run.info.status for run in seeds} == {"FINISHED"}
    assert all(run.data.metrics["valid_loss"] == 1.0 for run in seeds), "the folds' mean"


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_a_trial_that_a_probe_beats_is_not_scored_again(drive, tiny_config, objective):
    study, engine, lines = drive(1, replace(tiny_config, objective=objective))
    better = 1.0 if objective.direction == "maximize" else 0.0
    probe = trial_run(study.run, "probe", None, study.data.tags, "probe")
    probe.metrics({objective.metric: better})
    probe.end("COMPLETE")
    before = len(engine.fits)
    Driver(study, engine, lines.append).score_winner_again()
    assert len(engine.fits) == before


def test_the_space_is_drawn_within_its_bounds(drive, tiny_config):
    space = SearchSpace(n_unfrozen=(0, 4), epochs=(2, 3), lr_schedule=("cosine",))
    baseline = Recipe(epochs=3, lr_schedule="cosine")
    _, engine, _ = drive(6, replace(tiny_config, name="bounds", space=space, baseline=baseline))
    assert engine.fits[0].recipe == baseline
    assert {job.recipe.epochs for job in engine.fits} <= {2, 3}
