"""The review page in a real browser: what a person sees and does, from disk and from the server."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from networking import free_ports
from selenium import webdriver
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from assets.raw_videos import read_raw_videos
from assets.review.content import gather
from assets.review.html import page
from assets.review_page import page_path
from assets.scored_videos import read_scores, read_snippet_scores
from assets.workspace.project import Dataset
from orchestration.profiles import Places, review
from orchestration.serving import start, stop
from tevad_model import timeline
from tevad_model.metrics import GroundTruth, evaluate

SECONDS = 60
"""A browser on a busy machine may take that long; nothing is measured by it."""

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1440,900",
)


class Page:
    """A review page in the browser."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, address: str) -> Page:
        """Load the page anew; what an earlier one logged is forgotten."""
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        self.driver.get(address)
        return self

    def __getitem__(self, css: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def texts(self, css: str) -> list[str]:
        return [found.text for found in self.driver.find_elements(By.CSS_SELECTOR, css)]

    def script(self, code: str) -> Any:
        return self.driver.execute_script(code)

    def until(self, condition: Callable[[], object]) -> None:
        WebDriverWait(self.driver, SECONDS).until(lambda _: condition())

    def press(self, *keys: str) -> None:
        ActionChains(self.driver).send_keys(*keys).perform()

    def leave_field(self) -> None:
        self.script("document.activeElement.blur()")

    @property
    def name(self) -> str:
        return str(self["#video-name"].text)

    @property
    def now(self) -> float:
        """Where the timeline is, in seconds."""
        return float(self["#timeline"].get_attribute("aria-valuenow"))

    @property
    def played(self) -> float:
        """Where the player is, in seconds."""
        return float(self.script("return document.getElementById('player').currentTime"))

    def wait_for_video(self) -> None:
        self.until(lambda: self.script("return document.getElementById('player').readyState >= 2"))

    def set_threshold(self, value: float) -> None:
        self.script(
            "const slider = document.getElementById('threshold');"
            f"slider.value = {value}; slider.dispatchEvent(new Event('input'));"
        )

    def errors(self) -> list[str]:
        """What the console says."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("needs Debian's packages chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def on_disk(reviewed_project: Dataset) -> str:
    return page_path(reviewed_project, "tevad-rendered", "1").as_uri()


@pytest.fixture
def shown(driver: webdriver.Chrome, on_disk: str) -> Page:
    return Page(driver).open(on_disk)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots are kept, for people to look at."""
    named = os.environ.get("TEVAD_TEST_ARTIFACTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_the_most_surprising_video_comes_first_where_it_is_most_surprising(
    shown: Page, reviewed_project: Dataset
) -> None:
    scores = read_scores(reviewed_project).sort_values("max_score", ascending=False)
    first = scores.iloc[0]
    assert shown.name == first["video"]
    assert shown.texts(".item .name") == list(scores["video"])
    snippets = read_snippet_scores(reviewed_project, first["video"])
    peak = snippets.loc[snippets["score"].idxmax()]
    assert shown.now == pytest.approx(peak["start_frame"] / first["fps"], abs=0.05)
    assert peak["caption"] in shown["#said"].text
    shown.wait_for_video()
    assert shown.played == pytest.approx(shown.now, abs=2 / first["fps"])
    assert shown.errors() == []


def test_it_plays_and_the_timeline_follows(shown: Page) -> None:
    shown.wait_for_video()
    shown.press(Keys.HOME, " ")
    shown.until(lambda: shown.now > 0 and shown.now == pytest.approx(shown.played, abs=0.5))
    before = shown.now
    shown.until(lambda: shown.now != before)
    shown.press(" ")
    assert shown.script("return document.getElementById('player').paused")
    assert shown.errors() == []


def test_a_click_on_the_timeline_seeks_and_hovering_tells(
    shown: Page, reviewed_project: Dataset
) -> None:
    shown.wait_for_video()
    canvas = shown["#timeline"]
    ActionChains(shown.driver).move_to_element_with_offset(canvas, 0, 0).click().perform()
    row = read_raw_videos(reviewed_project).by_video()[shown.name]
    middle = float(shown.script("return timeline.secondsAt(innerWidth / 2)"))
    assert 0.2 * row.frames / row.fps < middle < 0.8 * row.frames / row.fps
    shown.until(lambda: shown.played == pytest.approx(shown.now, abs=2 / row.fps))
    assert 0.3 * row.frames / row.fps < shown.now < 0.7 * row.frames / row.fps
    snippet = timeline.frame_at(shown.now, row.fps) // timeline.SNIPPET_FRAMES
    caption = read_snippet_scores(reviewed_project, row.video)["caption"][snippet]
    assert caption in shown["#tip"].text
    assert "without text" in shown["#tip"].text
    assert shown.errors() == []


def figures(shown: Page) -> dict[str, float]:
    """Precision and recall by kind as the page says, in percent, and false alarms an hour."""
    found = {}
    for kind in ("videos", "frames", "events"):
        for name in ("precision", "recall"):
            text = shown[f"#figures-{kind} .{name}"].text
            if text != "–":
                found[f"{kind} {name}"] = float(text.removesuffix(" %"))
    return found | {"false alarms": float(shown["#alarms"].text)}


@pytest.mark.parametrize("quantile", [0.2, 0.6, 0.9])
def test_figures_are_those_of_the_evaluation(
    shown: Page, reviewed_project: Dataset, quantile: float
) -> None:
    from assets.raw_videos import read_events

    rows = [row for row in read_raw_videos(reviewed_project).usable if row.split == "test"]
    snippets = {row.video: read_snippet_scores(reviewed_project, row.video) for row in rows}
    peaks = sorted(float(found["score"].max()) for found in snippets.values())
    threshold = peaks[int(quantile * len(peaks))]
    events = read_events(reviewed_project) or {}
    scores = {
        row.video: timeline.frame_values(snippets[row.video]["score"], row.frames) for row in rows
    }
    truth = {
        row.video: GroundTruth(row.label == "abnormal", row.fps, events.get(row.video))
        for row in rows
    }
    Select(shown["#split"]).select_by_visible_text("test")
    shown.script(f"setThreshold({threshold!r})")
    expected = evaluate(scores, truth, threshold=threshold, resamples=0).figures
    mask = {
        video: timeline.frame_mask(truth[video].events or (), len(scores[video]))
        for video in scores
    }
    over = {video: scores[video] >= threshold for video in scores}
    hit = sum(int((mask[video] & over[video]).sum()) for video in scores)
    said = figures(shown)
    assert said["events recall"] == pytest.approx(100 * expected["event_recall"], abs=0.06)
    assert said["events precision"] == pytest.approx(100 * expected["event_precision"], abs=0.06)
    assert said["false alarms"] == pytest.approx(expected["false_alarms_per_hour"], abs=0.06)
    assert said["frames precision"] == pytest.approx(
        100 * hit / sum(int(found.sum()) for found in over.values()), abs=0.06
    )
    assert said["frames recall"] == pytest.approx(
        100 * hit / sum(int(found.sum()) for found in mask.values()), abs=0.06
    )


def test_the_threshold_changes_figures_events_and_marks(shown: Page) -> None:
    top = float(shown["#threshold"].get_attribute("max"))
    shown.set_threshold(top)
    assert shown.texts("#events .none") == ["None in this video."]
    assert shown.texts(".peak.over") == []
    assert figures(shown)["videos recall"] == 0
    shown.press("[")
    assert float(shown["#threshold"].get_attribute("value")) == pytest.approx(0.99 * top)
    shown.set_threshold(0)
    assert figures(shown)["videos recall"] == 100
    assert len(shown.texts(".peak.over")) == 10
    assert len(shown.texts("#events li")) == 1
    shown["#threshold-reset"].click()
    assert not shown["#threshold-reset"].is_displayed()
    assert shown.errors() == []


def test_filters_narrow_the_list(shown: Page, reviewed_project: Dataset) -> None:
    rows = read_raw_videos(reviewed_project).usable
    Select(shown["#split"]).select_by_visible_text("test")
    Select(shown["#label"]).select_by_visible_text("abnormal")
    wanted = {row.video for row in rows if row.split == "test" and row.label == "abnormal"}
    assert set(shown.texts(".item .name")) == wanted
    assert shown["#count"].text == f"{len(wanted)} of {len(rows)} videos"
    assert shown.name in wanted
    Select(shown["#label"]).select_by_visible_text("any")
    shown.set_threshold(float(shown["#threshold"].get_attribute("max")))
    Select(shown["#over"]).select_by_visible_text("over the threshold")
    assert shown.texts(".item") == []
    assert shown.texts(".empty") == ["No video passes the filters."]
    assert shown.errors() == []


def test_captions_are_searched(shown: Page, reviewed_project: Dataset) -> None:
    shown.leave_field()
    shown.press("/")
    captions = {
        row.video: list(read_snippet_scores(reviewed_project, row.video)["caption"])
        for row in read_raw_videos(reviewed_project).usable
    }
    word = next(
        word
        for caption in captions[shown.name]
        for word in caption.lower().split()
        if 0 < sum(word in " ".join(said).lower() for said in captions.values()) < len(captions)
    )
    shown.press(word)
    assert set(shown.texts(".item .name")) == {
        video for video, said in captions.items() if any(word in text.lower() for text in said)
    }
    shown.press(Keys.ESCAPE)
    assert shown.script("return document.activeElement === document.body")


def test_the_keyboard_does_it_all(shown: Page, reviewed_project: Dataset) -> None:
    shown.leave_field()
    names = shown.texts(".item .name")
    shown.press("j")
    assert shown.name == names[1]
    shown.press("j", "k", Keys.ARROW_DOWN)
    assert shown.name == names[2]
    shown.press("k", "k", "k", "k")
    assert shown.name == names[0]
    row = read_raw_videos(reviewed_project).by_video()[names[0]]
    shown.script("seek(0)")
    shown.press(Keys.ARROW_RIGHT)
    assert shown.now == pytest.approx(timeline.SNIPPET_FRAMES / row.fps, abs=0.05)
    shown.press(Keys.ARROW_LEFT)
    assert shown.now == 0
    peak = float(shown.script("return peakTime(state.video)"))
    shown.script("setThreshold(state.video.peak)")
    shown.press("n")
    assert shown.now == pytest.approx(peak, abs=0.05)
    shown.press("?")
    assert shown["#help"].is_displayed()
    shown.press(Keys.ESCAPE)
    assert not shown["#help"].is_displayed()


def test_an_address_leads_to_a_moment(driver: webdriver.Chrome, on_disk: str) -> None:
    shown = Page(driver).open(f"{on_disk}#video=test_002&t=2.5")
    assert (shown.name, shown.now) == ("test_002", 2.5)
    shown.wait_for_video()
    assert shown.played == pytest.approx(2.5, abs=0.2)
    shown.press("k")
    assert "video=test_002" not in shown.driver.current_url


def test_light_and_dark(shown: Page, artifacts: Path) -> None:
    grounds = set()
    shown.wait_for_video()
    for theme in ("light", "dark"):
        if shown["html"].get_attribute("data-theme") != theme:
            shown["#theme"].click()
        grounds.add(shown["body"].value_of_css_property("background-color"))
        assert shown.driver.save_screenshot(str(artifacts / f"review-{theme}.png"))
        assert contrast(shown, "#video-facts") >= 4.5
        assert contrast(shown, ".item .kind.abnormal") >= 4.5
        assert contrast(shown, "#threshold-value") >= 4.5
    assert len(grounds) == 2
    theme = shown["html"].get_attribute("data-theme")
    shown.driver.refresh()
    assert shown["html"].get_attribute("data-theme") == theme


def contrast(shown: Page, css: str) -> float:
    """The contrast of a text with the card behind it (WCAG 2, 1.4.3)."""

    def luminance(colour: str) -> float:
        channels = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    ink = luminance(shown[css].value_of_css_property("color"))
    ground = luminance(shown[".panel"].value_of_css_property("background-color"))
    return (max(ink, ground) + 0.05) / (min(ink, ground) + 0.05)


def test_a_screen_reader_is_told_what_there_is(shown: Page) -> None:
    shown["#as-table summary"].click()
    tree = shown.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in tree
        if not node["ignored"]
    ]
    controls = {"button", "slider", "listbox", "option", "searchbox", "combobox", "table", "Video"}
    assert [role for role, name in named if role in controls and not name] == []
    assert {"button", "slider", "listbox", "option", "searchbox", "combobox"} <= {
        r for r, _ in named
    }
    assert len(shown.texts("#rows tr")) == int(shown.script("return state.video.scores.length"))
    shown.driver.find_elements(By.CSS_SELECTOR, "#rows button")[1].click()
    assert shown.script("return snippetAt(state.video, state.now)") == 1
    assert "score" in shown["#timeline"].get_attribute("aria-valuetext")


def test_the_focus_goes_by_the_order_of_the_page(shown: Page) -> None:
    seen = []
    for _ in range(12):
        shown.press(Keys.TAB)
        seen.append(shown.script("return document.activeElement.id"))
    wanted = ["theme", "help-open", "search", "split", "label", "class", "over", "list", "player"]
    assert [name for name in dict.fromkeys(seen) if name in wanted] == wanted


def test_motion_is_reduced_where_that_is_preferred(shown: Page) -> None:
    def duration() -> str:
        return str(shown["#theme"].value_of_css_property("transition-duration"))

    assert duration() != "0s"
    reduced = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    shown.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": reduced})
    try:
        assert duration() == "0s"
    finally:
        shown.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.fixture(scope="module")
def content(reviewed_project: Dataset) -> dict[str, Any]:
    path = page_path(reviewed_project, "tevad-rendered", "1")
    return gather(reviewed_project, path, run="", server="http://127.0.0.1:9")


def write(folder: Path, content: dict[str, Any], videos: Sequence[dict[str, Any]]) -> str:
    """A page beside the others, so that videos are found, with other videos in it."""
    path = folder / "another.html"
    path.write_text(page("Another", {**content, "videos": videos}), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def pages(reviewed_project: Dataset) -> Iterator[Path]:
    folder = page_path(reviewed_project, "tevad-rendered", "1").parent
    yield folder
    (folder / "another.html").unlink(missing_ok=True)


def test_a_thousand_videos_are_no_burden(
    driver: webdriver.Chrome, content: dict[str, Any], pages: Path, artifacts: Path
) -> None:
    videos = [
        {**video, "name": f"{video['name']}_{copy:03d}"}
        for copy in range(100)
        for video in content["videos"]
    ]
    shown = Page(driver).open(write(pages, content, videos))
    assert shown["#count"].text == "1,000 of 1,000 videos"
    assert 0 < len(shown.texts(".item")) < 40
    shown.leave_field()
    shown.press(Keys.END)
    shown.until(lambda: len(shown.texts(".item[aria-selected=true]")) == 1)
    assert shown[".item[aria-selected=true]"].get_attribute("aria-posinset") == "1000"
    assert 0 < len(shown.texts(".item")) < 40
    shown.wait_for_video()
    shown.script("document.getElementById('search').value = '_042'; filter()")
    assert shown["#count"].text == "10 of 1,000 videos"
    shown.driver.save_screenshot(str(artifacts / "review-1000.png"))
    assert shown.errors() == []


def test_names_and_captions_are_text_whatever_they_say(
    driver: webdriver.Chrome, content: dict[str, Any], pages: Path
) -> None:
    hostile = (
        "</script><img src=x onerror=document.title='taken'><script>document.title='taken'</script>"
    )
    video = {**content["videos"][0], "name": hostile}
    told = {**content, "captions": [hostile] * len(content["captions"])}
    shown = Page(driver).open(write(pages, told, [video]))
    assert shown.name == hostile
    assert hostile in shown["#said"].text
    assert shown.driver.title == "Another"
    assert shown.errors() == []


def test_a_video_that_is_not_there_leaves_its_timeline(
    driver: webdriver.Chrome, content: dict[str, Any], pages: Path
) -> None:
    first, second, *_ = content["videos"]
    videos = [{**first, "file": "gone.mp4"}, {**second, "file": "", "why": "There are no pixels."}]
    shown = Page(driver).open(write(pages, content, videos))
    shown.until(lambda: "cannot be loaded" in shown["#no-video"].text)
    shown.press(Keys.ARROW_LEFT)
    assert shown.now >= 0
    shown.press("j")
    assert shown["#no-video"].text == "There are no pixels."
    assert not shown["#player"].is_displayed()


def test_unlabelled_videos_are_listed_and_count_in_no_figure(
    driver: webdriver.Chrome, content: dict[str, Any], pages: Path
) -> None:
    videos = [{**video, "label": "", "truth": None} for video in content["videos"]]
    shown = Page(driver).open(write(pages, content, videos))
    assert set(shown.texts("#figures .value")) == {"–"}
    assert shown["#alarms"].text == "–"
    assert "true events unknown" in shown["#video-facts"].text
    assert not shown["#legend-truth"].is_displayed()


def test_the_server_of_tevad_up_serves_page_and_videos(
    driver: webdriver.Chrome,
    reviewed_project: Dataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project = reviewed_project.project
    monkeypatch.setenv("TEVAD_PROJECT", str(project.root))
    monkeypatch.setenv("TEVAD_CACHE", str(project.cache))
    [port] = free_ports(1)
    server = review(Places(pages=port))
    running = start(project, [server])
    try:
        shown = Page(driver).open(server.address)
        shown["a"].click()
        assert shown.driver.current_url.startswith(f"{server.address}/review/rendered/1")
        shown.wait_for_video()
        shown.script("seek(state.video.duration * 0.8)")  # by range
        shown.until(lambda: shown.played == pytest.approx(shown.now, abs=0.2))
        assert json.loads(shown["#data"].get_attribute("textContent"))["version"] == "1"
        assert [line for line in shown.errors() if "favicon" not in line] == []
    finally:
        stop(running)
