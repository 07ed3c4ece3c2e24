"""The page in a real browser, on a desktop and at a phone's width."""

import copy
from dataclasses import replace

import pytest

from nutclf.serve import server
from nutclf.serve.answers import open_champion

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def app(with_champion, nuts):
    return server.application(open_champion(with_champion, "nutclf"), pictures=nuts)


@pytest.fixture(scope="module")
def address(app, running):
    with running(app) as port:
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture(params=[1200, 390], ids=["desktop", "phone"])
def browser(request, browser):
    size = {"width": request.param, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    return browser


@pytest.mark.parametrize("kind", ["class", "unsure", "unfamiliar"])
def test_each_kind_of_answer_is_said_and_fits_the_page(browser, address, app, nuts, kind):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    desk, champion = app.state.desk, app.state.desk.champion
    recogniser = copy.copy(champion.recogniser)
    never = {"unsure": "_confidence", "unfamiliar": "_known"}.get(kind)
    if never:
        setattr(recogniser, never, replace(getattr(recogniser, never), threshold=2.0))
    desk.champion = replace(champion, recogniser=recogniser)
    wait = WebDriverWait(browser, 60)
    try:
        browser.get(address)
        browser.find_element(By.ID, "file").send_keys(str(nuts / "valid" / "pecans" / "0.png"))
        article = wait.until(lambda driver: driver.find_element(By.TAG_NAME, "article"))
        said = browser.find_element(By.ID, "status").text
        heading, text = article.find_element(By.TAG_NAME, "h2").text, article.text
        if kind == "class":
            assert (heading, said.split(",")[0]) == ("pecans", "pecans")
            button = article.find_element(By.TAG_NAME, "button")
            button.click()
            wait.until(lambda driver: button.get_attribute("aria-pressed") == "true")
        elif kind == "unsure":
            assert said.startswith("Unsure. Most likely pecans")
            assert "Perhaps pecans" in heading
        else:
            assert said.startswith("Unfamiliar")
            shown = "return [...document.querySelectorAll('.near img')].every(i => i.naturalWidth)"
            wait.until(lambda driver: driver.execute_script(shown))
            assert text.count("train/") == 5
        assert "version 1 of study promoted" in browser.find_element(By.ID, "champion").text
        width = "return document.documentElement.scrollWidth <= window.innerWidth"
        assert browser.execute_script(width), "nothing leads out of the page"
        logs = [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
        assert not logs
    finally:
        desk.champion = champion
