// What happens when: choosing, playing, seeking, filtering, the threshold, the keyboard.

const $ = (id) => document.getElementById(id);
const player = $("player");
const timeline = new Timeline($("timeline"), $("tip"));
const list = new VideoList($("list"), openVideo);
const state = { video: null, threshold: page.threshold, now: 0 };
const STEP = TOP / 100;

// ---- the video that is looked at

/** Show a video, at a time in seconds; by default where it is most surprising. */
function openVideo(video, seconds = peakTime(video)) {
  state.video = timeline.video = video;
  list.pick(video);
  $("video-name").textContent = video.name;
  $("video-facts").textContent = [
    clock(video.duration),
    video.split || "no split",
    [video.label || "unlabelled", video.class].filter(Boolean).join(", "),
    video.truth ? "" : "true events unknown",
  ].filter(Boolean).join(" · ");
  $("legend-truth").hidden = !video.truth;
  load(video);
  fillTable();
  fillEvents();
  seek(seconds);
}

function load(video) {
  $("no-video").hidden = true;
  player.hidden = !video.file;
  if (video.file) {
    player.src = addressOf(video);
    player.setAttribute("aria-label", `Video ${video.name}`);
  } else {
    player.removeAttribute("src");
    player.load();
    cannotPlay(video.why);
  }
}

/** Where the file is: beside the page on disk, or behind the server of `tevad up`. */
function addressOf(video) {
  if (location.protocol === "file:") return video.file;
  const server = location.pathname.startsWith("/review/") ? location.origin : page.server;
  return `${server}/videos/${encodeURIComponent(page.dataset)}/${encodeURIComponent(video.name)}`;
}

function cannotPlay(why) {
  player.hidden = true;
  $("no-video").textContent = why;
  $("no-video").hidden = false;
}

function peakTime(video) {
  return frameRange(video, video.scores.indexOf(video.peak))[0] / video.fps;
}

function seek(seconds) {
  const end = state.video.duration;
  moved(Math.min(Math.max(seconds, 0), end));
  if (player.readyState >= HTMLMediaElement.HAVE_METADATA) {
    // Half a frame on: rounding must not show the frame before.
    player.currentTime = Math.min(state.now + 0.5 / state.video.fps, player.duration);
  }
  remember();
}

function seekSnippet(step) {
  const snippet = snippetAt(state.video, state.now) + step;
  const last = state.video.scores.length - 1;
  seek(frameRange(state.video, Math.min(Math.max(snippet, 0), last))[0] / state.video.fps);
}

function seekEvent(step) {
  const starts = eventsOver(state.video, state.threshold).map(([start]) => start / state.video.fps);
  const near = 0.05;
  const next = step > 0
    ? starts.find((start) => start > state.now + near)
    : starts.findLast((start) => start < state.now - near);
  if (next !== undefined) seek(next);
}

/** Show that this time is looked at. */
function moved(seconds) {
  state.now = timeline.now = seconds;
  const snippet = snippetAt(state.video, seconds);
  const caption = captionOf(state.video, snippet);
  $("said").textContent = caption ? `“${caption}”` : "";
  const slider = $("timeline");
  slider.setAttribute("aria-valuemax", state.video.duration.toFixed(1));
  slider.setAttribute("aria-valuenow", seconds.toFixed(1));
  slider.setAttribute(
    "aria-valuetext",
    `${clock(seconds)}, score ${shown(state.video.scores[snippet])}${caption ? `, ${caption}` : ""}`,
  );
  timeline.draw();
}

function togglePlay() {
  if (player.hidden) return;
  if (player.paused) player.play();
  else player.pause();
}

function follow() {
  if (player.paused || player.seeking) return;
  moved(Math.min(player.currentTime, state.video.duration));
  requestAnimationFrame(follow);
}

player.addEventListener("loadedmetadata", () => seek(state.now));
player.addEventListener("play", follow);
player.addEventListener("seeked", () => {
  // By the player's own controls; our own seeks are where they should be already.
  if (Math.abs(player.currentTime - state.now) > 1 / state.video.fps) {
    moved(Math.min(player.currentTime, state.video.duration));
  }
  follow();
});
player.addEventListener("error", () => {
  if (!player.getAttribute("src")) return;
  cannotPlay(
    location.protocol === "file:"
      ? "The video cannot be loaded. Is its file still where it was?"
      : "The video cannot be loaded. `tevad up` serves the videos while it runs.",
  );
});

function fillTable() {
  if (!$("as-table").open) {
    $("rows").replaceChildren();
    return;
  }
  const { video } = state;
  $("rows").replaceChildren(...Array.from(video.scores, (_, snippet) => {
    const [start, end] = frameRange(video, snippet);
    const row = element("tr");
    const time = row.appendChild(element("td"));
    const button = time.appendChild(element("button", clock(start / video.fps)));
    button.type = "button";
    button.addEventListener("click", () => seek(start / video.fps));
    row.append(element("td", shown(video.scores[snippet])), element("td", captionOf(video, snippet)));
    const isTrue = (video.truth || []).some((event) => overlap(event, [start, end]));
    const isOver = video.scores[snippet] >= state.threshold;
    row.append(element("td", [isTrue && "true", isOver && "over the threshold"].filter(Boolean).join(", ")));
    return row;
  }));
}

$("as-table").addEventListener("toggle", fillTable);

function fillEvents() {
  const { video } = state;
  const events = eventsOver(video, state.threshold);
  const items = events.map(([start, end]) => {
    let top = snippetOfFrame(start);
    for (let snippet = top; snippet * page.snippetFrames < end; snippet++) {
      if (video.scores[snippet] > video.scores[top]) top = snippet;
    }
    const item = element("li");
    const button = item.appendChild(element("button"));
    button.type = "button";
    button.append(
      element("span", `${clock(start / video.fps)} – ${clock(end / video.fps)}`, "when"),
      element("span", shown(video.scores[top]), "peak"),
      element("span", captionOf(video, top), "said"),
      element("span", withoutText(video, top), "why"),
    );
    button.addEventListener("click", () => seek(start / video.fps));
    return item;
  });
  $("events").replaceChildren(...(items.length ? items : [element("li", "None in this video.", "none")]));
}

// ---- the threshold and what it is worth

function setThreshold(value) {
  showThreshold(Math.min(Math.max(value, 0), TOP));
  if ($("over").value) filter();
  else {
    list.refresh();
    fillFigures();
  }
  fillEvents();
  fillTable();
  timeline.draw();
}

function showThreshold(value) {
  state.threshold = list.threshold = timeline.threshold = value;
  $("threshold").max = TOP;
  $("threshold").value = state.threshold;
  $("threshold-value").textContent = shown(state.threshold);
  $("threshold-reset").hidden = state.threshold === page.threshold;
}

function fillFigures() {
  const videos = page.videos.filter(passes);
  const found = measure(videos, state.threshold);
  const percent = (value) => (value === null ? "–" : `${(100 * value).toFixed(value === 1 ? 0 : 1)} %`);
  $("figures").replaceChildren(...["videos", "frames", "events"].map((kind) => {
    const row = element("tr");
    row.id = `figures-${kind}`;
    const name = row.appendChild(element("th", kind));
    name.scope = "row";
    row.append(
      element("td", percent(found[kind].precision), "value precision"),
      element("td", percent(found[kind].recall), "value recall"),
      element("td", found[kind].true.toLocaleString("en"), "true"),
    );
    return row;
  }));
  const alarms = found.falseAlarmsAnHour;
  $("alarms").textContent = alarms === null ? "–" : alarms.toFixed(alarms < 10 ? 2 : 1);
  const unit = videos.length === 1 ? "video" : "videos";
  $("figures-of").textContent = `Over ${videos.length.toLocaleString("en")} ${unit}`;
  const trained = videos.filter((video) => video.split === "train" && video.label).length;
  const unmarked = videos.filter((video) => video.label && !video.truth).length;
  $("note").textContent = [
    trained && `${trained} of them trained the model: choose the split “test” for honest figures.`,
    unmarked && `${unmarked} abnormal ones have no marked events and count by their label only.`,
    "Events count from a temporal overlap (IoU) of 0.5 on.",
  ].filter(Boolean).join(" ");
}

$("threshold").addEventListener("input", () => setThreshold(Number($("threshold").value)));
$("threshold-reset").addEventListener("click", () => setThreshold(page.threshold));

// ---- the filters

let searched = "";
let captionHits = null;

/** Whether a video passes all filters but that of the score, which figures must not depend on. */
function passes(video) {
  return (
    (!$("split").value || video.split === $("split").value.slice(1)) &&
    (!$("label").value || video.label === $("label").value.slice(1)) &&
    (!$("class").value || video.class === $("class").value.slice(1)) &&
    (!searched || video.name.toLowerCase().includes(searched) || video.said.some((caption) => captionHits[caption]))
  );
}

function filter() {
  searched = $("search").value.trim().toLowerCase();
  captionHits = searched ? page.captions.map((caption) => caption.toLowerCase().includes(searched)) : null;
  timeline.hits = captionHits;
  const shown = page.videos.filter((video) => passes(video) && (
    !$("over").value || (video.peak >= state.threshold) === ($("over").value === "over")
  ));
  list.show(shown);
  $("count").textContent = `${shown.length.toLocaleString("en")} of ${page.videos.length.toLocaleString("en")} videos`;
  fillFigures();
  timeline.draw();
  if (shown.length && !shown.includes(state.video)) openVideo(shown[0]);
  else if (state.video) list.pick(state.video);
}

function offer(select, values, unnamed) {
  select.append(new Option("any", ""));
  // A value may be empty itself; the mark before it tells it from "any".
  for (const value of [...new Set(values)].sort()) select.append(new Option(value || unnamed, `=${value}`));
  select.disabled = select.options.length < 3;
}

for (const id of ["split", "label", "class", "over"]) $(id).addEventListener("change", filter);
$("search").addEventListener("input", filter);
$("filters").addEventListener("submit", (event) => event.preventDefault());

// ---- pointer and keyboard

$("timeline").addEventListener("pointerdown", (event) => {
  $("timeline").setPointerCapture(event.pointerId);
  seek(timeline.secondsAt(event.clientX));
});
$("timeline").addEventListener("pointermove", (event) => {
  if (event.buttons) seek(timeline.secondsAt(event.clientX));
  timeline.hover(event.clientX);
});
$("timeline").addEventListener("pointerleave", () => timeline.leave());

const KEYS = {
  j: () => openVideo(list.neighbour(1)),
  k: () => openVideo(list.neighbour(-1)),
  ArrowDown: () => openVideo(list.neighbour(1)),
  ArrowUp: () => openVideo(list.neighbour(-1)),
  ArrowLeft: () => seekSnippet(-1),
  ArrowRight: () => seekSnippet(1),
  " ": togglePlay,
  Home: () => openVideo(list.videos[0]),
  End: () => openVideo(list.videos.at(-1)),
  n: () => seekEvent(1),
  p: () => seekEvent(-1),
  "[": () => setThreshold(state.threshold - STEP),
  "]": () => setThreshold(state.threshold + STEP),
  "/": () => $("search").select(),
  "?": () => $("help").showModal(),
};

document.addEventListener("keydown", (event) => {
  const at = event.target;
  if (event.key === "Escape" && at === $("search")) at.blur();
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  // Where a key has a meaning already it keeps it.
  if (at.matches("input, select, textarea")) return;
  if (event.key === " " && at.matches("button, summary, a")) return;
  if (!Object.hasOwn(KEYS, event.key) || !list.videos.length) return;
  event.preventDefault();
  KEYS[event.key]();
});

$("help-open").addEventListener("click", KEYS["?"]);

// ---- the address, and light and dark

/** Keep in the address what is looked at, so that it can be sent to somebody. */
function remember() {
  const found = new URLSearchParams({ video: state.video.name, t: state.now.toFixed(1) });
  attempt(() => history.replaceState(null, "", `#${found}`));
}

function asked() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const video = page.videos.find((one) => one.name === wanted.get("video"));
  return [video, Number.parseFloat(wanted.get("t"))];
}

/** MLflow shows pages in a frame without an address or a store of its own. */
function attempt(action) {
  try {
    return action();
  } catch (error) {
    if (error instanceof DOMException) return null;
    throw error;
  }
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").textContent = theme === "dark" ? "Light" : "Dark";
  list.refresh();
  timeline.draw();
}

$("theme").addEventListener("click", () => {
  const other = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  attempt(() => localStorage.setItem("theme", other));
  setTheme(other);
});

// ---- begin

function begin() {
  page.videos.sort((a, b) => b.peak - a.peak || (a.name < b.name ? -1 : 1));
  $("dataset").textContent = page.dataset;
  $("made").append(`scored by ${page.model}, version ${page.version}`);
  if (page.run) {
    const link = element("a", "its run");
    link.href = page.run;
    $("made").append(" · ", link);
  }
  offer($("split"), page.videos.map((video) => video.split), "none");
  offer($("label"), page.videos.map((video) => video.label), "unlabelled");
  offer($("class"), page.videos.map((video) => video.class), "none");
  const prefersDark = matchMedia("(prefers-color-scheme: dark)").matches;
  setTheme(attempt(() => localStorage.getItem("theme")) || (prefersDark ? "dark" : "light"));
  showThreshold(page.threshold);
  const [video, seconds] = asked();
  if (video) openVideo(video, Number.isFinite(seconds) ? seconds : undefined);
  filter();
}

begin();
