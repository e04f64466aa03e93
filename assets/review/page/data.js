// What the page knows: the embedded data, unpacked. Nothing here touches what is shown.

const page = JSON.parse(document.getElementById("data").textContent);

/** Scores without a modality only explain: they are embedded as 8-bit numbers. This one stands for 1. */
const ONE_ROUGHLY = 255;
const SIXTEEN_BITS = 65535;

function unpacked(text, Kind) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return new Kind(bytes.buffer);
}

/** The largest of any number of scores; `Math.max(...)` takes only so many. */
function largest(scores) {
  let most = 0;
  for (let i = 0; i < scores.length; i++) if (scores[i] > most) most = scores[i];
  return most;
}

function abnormalFrames(video) {
  const found = new Uint8Array(video.scores.length);
  for (const [start, end] of video.truth) {
    for (let snippet = snippetOfFrame(start); snippet * page.snippetFrames < end; snippet++) {
      const [first, last] = frameRange(video, snippet);
      found[snippet] += Math.min(end, last) - Math.max(start, first);
    }
  }
  return found;
}

const snippetOfFrame = (frame) => Math.floor(frame / page.snippetFrames);

/** First frame of a snippet, and the one after its last. */
function frameRange(video, snippet) {
  const start = snippet * page.snippetFrames;
  return [start, Math.min(start + page.snippetFrames, video.frames)];
}

function snippetAt(video, seconds) {
  const frame = Math.floor(seconds * video.fps + 1e-6);
  return Math.min(Math.max(snippetOfFrame(frame), 0), video.scores.length - 1);
}

const captionOf = (video, snippet) => page.captions[video.said[snippet]];

/** 83.4 becomes "1:23.4". */
function clock(seconds) {
  const tenths = Math.round(seconds * 10);
  const minutes = Math.floor(tenths / 600);
  const rest = ((tenths % 600) / 10).toFixed(1);
  return `${minutes}:${rest.padStart(4, "0")}`;
}

for (const video of page.videos) {
  video.scores = unpacked(video.scores, Float32Array);
  video.said = unpacked(video.said, page.captions.length > SIXTEEN_BITS ? Uint32Array : Uint16Array);
  video.without = Object.fromEntries(
    Object.entries(video.without).map(([modality, text]) => [modality, unpacked(text, Uint8Array)]),
  );
  video.peak = largest(video.scores);
  video.duration = video.frames / video.fps;
  // Frames of each snippet that are abnormal, where anybody knows.
  video.abnormal = video.truth && abnormalFrames(video);
  video.abnormalFrames = (video.truth || []).reduce((sum, [start, end]) => sum + end - start, 0);
}

/** The top of every scale of scores: models differ in how high they score. */
const TOP = topOf(page.videos.reduce((most, video) => Math.max(most, video.peak), page.threshold));

function topOf(most) {
  return [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5].find((top) => most <= top) || 1;
}

/** A score in as many digits as tell scores apart on that scale. */
const shown = (score) => score.toFixed(Math.max(3, 2 + Math.ceil(-Math.log10(TOP))));
