"""The MLflow UI as a person uses it: a real browser, on the links that `make ui` prints."""

import subprocess
import sys
import time
import urllib.request

import pytest
from PIL import Image

pytestmark = pytest.mark.slow

WAIT_S = 120  # for a server or a page, on a machine that has other work


@pytest.fixture(scope="module")
def links(with_champion, copy_store, tmp_path_factory, checkout, cli_environ, free_port):
    """`nutclf ui` over a promoted study: its links, to the trials and to the charts."""
    store = copy_store(with_champion.folder, tmp_path_factory.mktemp("ui") / "store")
    port = free_port()
    run = store.client().search_runs([store.experiment_id("nutclf")], "tags.kind = 'study'")[0]
    params = {"objective.metric": "best_valid_loss", "objective.direction": "minimize"}
    params |= {"space.n_unfrozen": "(0, 4)", "space.batch_size": "(64,)"}
    for key, value in params.items():
        store.client().log_param(run.info.run_id, key, value)
    with subprocess.Popen(
        [sys.executable, "-m", "nutclf", "ui", "--port", str(port)],
        cwd=checkout,
        env=cli_environ(NUTCLF_STORE=store.folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            lines = [next(process.stdout) for _ in range(3)][1:]
            assert lines[0].startswith("promoted, the best trial first: ")
            assert lines[1].startswith("promoted, charts: ")
            until_it_answers(f"http://127.0.0.1:{port}/health")
            yield [line.split(": ", 1)[1].strip() for line in lines]
        finally:
            process.terminate()


def until_it_answers(address):
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


@pytest.fixture
def size(with_champion):
    """Width and height of the trial's confusion matrix, as it was recorded."""
    version = with_champion.client().get_model_version_by_alias("nutclf", "champion")
    path = "evaluation/confusion_matrix_valid.png"
    with Image.open(with_champion.client().download_artifacts(version.run_id, path)) as picture:
        return picture.size


def test_from_the_experiment_to_a_trial_and_its_confusion_matrix(browser, links, size):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support import expected_conditions as become
    from selenium.webdriver.support.ui import WebDriverWait

    wait = WebDriverWait(browser, WAIT_S)

    def click(xpath):
        wait.until(become.element_to_be_clickable((By.XPATH, xpath))).click()

    browser.set_window_size(2400, 1000)  # columns beyond the edge are not in the page
    browser.get(links[0])
    columns = ("best_valid_loss", "best_valid_accuracy", "valid_macro_f1", "n_unfrozen", "Duration")
    header = "//*[@role='columnheader']"
    wait.until(become.visibility_of_element_located((By.XPATH, f"{header}[contains(., 'n_unf')]")))
    heads = browser.find_elements(By.XPATH, header)
    shown = [head.text for head in sorted(heads, key=lambda head: head.location["x"])]
    assert tuple(dict.fromkeys(text for text in shown if text in columns)) == columns
    assert "batch_size" not in shown, "a single choice was not searched"
    click("//a[starts-with(normalize-space(), 't000')]")
    click("//*[@role='tab' or self::a][normalize-space()='Artifacts']")
    click("//*[normalize-space(text())='evaluation']")
    click("//*[normalize-space(text())='confusion_matrix_valid.png']")
    # The picture itself, not a mark that one is missing: as wide and high as the file.
    shown = (
        "return [...document.images].some(image => image.getBoundingClientRect().width > 100"
        " && image.naturalWidth === arguments[0] && image.naturalHeight === arguments[1])"
    )
    wait.until(lambda driver: driver.execute_script(shown, *size))


def test_the_charts_compare_values_curves_and_pictures(browser, links):
    from selenium.webdriver.support.ui import WebDriverWait

    browser.set_window_size(1600, 3000)
    browser.get(links[1])
    shown = """
        const text = document.body.innerText, pictures = [...document.images];
        return arguments[0].every(words => text.includes(words))
          && pictures.filter(image => image.src.includes('webp') || image.src.startsWith('blob:'))
                     .filter(image => image.naturalWidth > 100).length >= 3"""
    words = ("best_valid_loss and the recipe", "Curves of the best ten", "train_accuracy",
             "Pictures of the best ten", "confusion_matrix_valid")  # fmt: skip
    WebDriverWait(browser, WAIT_S).until(lambda driver: driver.execute_script(shown, words))
