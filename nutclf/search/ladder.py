"""The published ladder, rung by rung: one walk is one run of MLflow, each rung a child of it."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras

from nutclf.data.source import DataSource
from nutclf.evaluate.baselines import BASELINES
from nutclf.model.backbones import Backbone
from nutclf.model.imagenet import NoClassifier, load_classifier
from nutclf.search import rung_as_is, rung_puzzle
from nutclf.search.claims import WORKER
from nutclf.search.places import Places
from nutclf.search.rows import Row, as_markdown, notes_on
from nutclf.search.rung_baselines import FIRST_NUMBER, NO_FOLDS, pooled_vectors, run_baseline
from nutclf.search.rung_fit import fit_rung
from nutclf.search.rungs import RUNGS, ladder_config
from nutclf.search.session import DRAWN_BACKBONES, Say, data_record, labelled, make_folds
from nutclf.track.ladder import ladder_run
from nutclf.track.liveness import hold
from nutclf.track.runs import Run, trial_run, write_json
from nutclf.train.learner import Learner
from nutclf.train.store import FeatureStore
from nutclf.train.workbench import Workbench

EXPERIMENTS = {"photographs": "nutclf-ladder", "drawn": "nutclf-ladder-drawn"}
"""By kind of data: drawn results never mix with real ones, nor rungs with trials."""


def backbone_for_data(name: str, kind: str) -> str:
    """The network that walks the ladder on a kind of data: a small one on drawings."""
    return DRAWN_BACKBONES.get(name, name) if kind == "drawn" else name


class Ladder:
    """One walk; all input is checked before anything is recorded.

    Args:
      backbone: with weights.
      source: of the images.
      places: where to read and write.
      say: takes lines for a person.
    """

    def __init__(self, backbone: Backbone, source: DataSource, places: Places, say: Say):
        self._backbone, self._source, self._places, self._say = backbone, source, places, say
        size = backbone.spec.image_size
        self._splits = {
            split: labelled(source.folder, split, size, say) for split in ("train", "valid")
        }
        config = ladder_config(backbone.spec.name, augmented=True)
        self._folds = make_folds(config, self._splits["train"], NO_FOLDS)
        self._classifier = self._find_classifier()
        self._data = data_record(source)
        self._store = places.store.prepare()

    def climb(self) -> str:
        """Walks all rungs and records the table in a run of its own.

        Returns:
          The table as Markdown.

        Raises:
          Exception: whatever ended a rung, after its run and the ladder's were closed as FAILED.
        """
        experiment = self._store.experiment_id(EXPERIMENTS[self._source.kind])
        name = f"ladder-{self._backbone.spec.name}"
        with hold(self._store.folder) as worker:
            self._tags = self._data.tags | {WORKER: worker}
            parent = ladder_run(self._store, experiment, name, self._tags)
            with _closed(parent):
                return self._walk(parent)

    def _walk(self, parent: Run) -> str:
        parent.params({"backbone": self._backbone.spec.name, "weights": self._backbone.origin})
        parent.data(self._data)
        rows, names = self._as_is(parent)
        plain, augmented = self._bench(augmented=False), self._bench(augmented=True)
        for rung in RUNGS:
            with self._rung(parent, rung.number, rung.title) as run:
                bench = augmented if rung.augmented else plain
                learner, found = fit_rung(run, rung, bench, self._data)
                rows += found
            if rung.recipe.n_unfrozen == 0:
                pool = learner.cut
        with self._rung(parent, rung_puzzle.NUMBER, rung_puzzle.TITLE) as run:
            rows += self._puzzle(run, augmented, learner)
        vectors = pooled_vectors(augmented, pool)
        for number, baseline in enumerate(BASELINES, start=FIRST_NUMBER):
            with self._rung(parent, number, baseline) as run:
                run.data(self._data)
                rows += run_baseline(run, number, baseline, augmented, vectors, self._folds)
        return self._record(parent, rows, names)

    def _as_is(self, parent: Run) -> tuple[list[Row], str]:
        """Rung 1's rows and its table of names; both empty where that network is not to be had."""
        if self._classifier is None:
            return [], ""
        classes, train = self._source.folder.classes, self._splits["train"]
        with self._rung(parent, rung_as_is.NUMBER, rung_as_is.TITLE) as run:
            run.data(self._data)
            spec = self._backbone.spec
            names = rung_as_is.name_images(run, spec, self._classifier, train, classes)
        return rung_as_is.rows_of_names(names), rung_as_is.names_table(names)

    def _find_classifier(self) -> keras.Model | None:
        try:
            return load_classifier(self._backbone.spec)
        except NoClassifier as missing:
            self._say(f"rung {rung_as_is.NUMBER} left out: {missing}")
            return None

    def _bench(self, augmented: bool) -> Workbench:
        features = FeatureStore(self._places.features, self._places.feature_budget_bytes, self._say)
        config = ladder_config(self._backbone.spec.name, augmented)
        classes = self._source.folder.classes
        return Workbench(config, self._backbone, classes, self._splits, features, self._say)

    def _puzzle(self, run: Run, bench: Workbench, learner: Learner) -> list[Row]:
        folder, size = self._source.folder, self._backbone.spec.image_size
        run.data(self._data)
        return rung_puzzle.solve_puzzle(
            run, bench, learner, lambda: labelled(folder, "test", size, self._say)
        )

    @contextmanager
    def _rung(self, parent: Run, number: int, title: str) -> Iterator[Run]:
        self._say(f"rung {number}: {title}")
        run = trial_run(parent, f"{number} · {title}", number, self._tags, kind="rung")
        with _closed(run):
            yield run

    def _record(self, parent: Run, rows: list[Row], names: str) -> str:
        notes = notes_on(self._backbone.spec.name, self._data.kind)
        table = "\n\n".join(part for part in (as_markdown(rows), notes, names) if part)
        with parent.artifacts() as folder:
            (folder / "ladder.md").write_text(table + "\n", encoding="utf-8")
            write_json(folder / "ladder.json", [row.record() for row in rows])
        return table


@contextmanager
def _closed(run: Run) -> Iterator[None]:
    """Ends a run as COMPLETE, or as FAIL whatever ended the work, an interrupt too."""
    try:
        yield
    except BaseException as error:
        known = isinstance(error, Exception)
        run.end("FAIL", f"{type(error).__name__}: {error}" if known else "interrupted")
        raise
    run.end("COMPLETE")
