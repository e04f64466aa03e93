// The score of one video over time, drawn on a canvas: events above, time below, what plays now.

const PAD = { left: 44, right: 10, top: 30, bottom: 22 };
const BAND = 7;

class Timeline {
  constructor(canvas, tip) {
    this.canvas = canvas;
    this.tip = tip;
    this.video = null;
    this.threshold = 1;
    this.now = 0;
    this.hits = null; // by caption: whether it is searched for
    this.hovered = null; // seconds
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  get width() { return this.canvas.clientWidth - PAD.left - PAD.right; }
  get height() { return this.canvas.clientHeight - PAD.top - PAD.bottom; }
  x(seconds) { return PAD.left + (seconds / this.video.duration) * this.width; }
  y(score) { return PAD.top + (1 - score / TOP) * this.height; }

  /** The time at a place of the window. */
  secondsAt(clientX) {
    const x = clientX - this.canvas.getBoundingClientRect().left - PAD.left;
    return Math.min(Math.max(x / this.width, 0), 1) * this.video.duration;
  }

  draw() {
    if (!this.video || !this.canvas.clientWidth) return;
    const scale = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(this.canvas.clientWidth * scale);
    this.canvas.height = Math.round(this.canvas.clientHeight * scale);
    const pen = this.canvas.getContext("2d");
    pen.scale(scale, scale);
    pen.font = "11px system-ui, 'DejaVu Sans', sans-serif";
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`);
    this.drawTruth(pen, colour);
    this.drawAxes(pen, colour);
    this.drawScores(pen, colour);
    this.drawThreshold(pen, colour);
    this.drawHits(pen, colour);
    if (this.hovered !== null) this.drawMoment(pen, this.hovered, colour("soft"), 1);
    this.drawMoment(pen, this.now, colour("ink"), 2);
  }

  drawTruth(pen, colour) {
    for (const [start, end] of this.video.truth || []) {
      const [left, right] = [this.x(start / this.video.fps), this.x(end / this.video.fps)];
      pen.fillStyle = colour("truth-fill");
      pen.fillRect(left, PAD.top, right - left, this.height);
      pen.fillStyle = colour("truth");
      pen.fillRect(left, 4, Math.max(right - left, 2), BAND);
    }
    for (const [start, end] of eventsOver(this.video, this.threshold)) {
      const [left, right] = [this.x(start / this.video.fps), this.x(end / this.video.fps)];
      pen.fillStyle = colour("alarm");
      pen.fillRect(left, 4 + BAND + 5, Math.max(right - left, 2), BAND);
    }
  }

  drawAxes(pen, colour) {
    pen.strokeStyle = colour("rule");
    pen.fillStyle = colour("soft");
    pen.lineWidth = 1;
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (const score of [0, TOP / 2, TOP]) {
      const y = Math.round(this.y(score)) + 0.5;
      pen.beginPath();
      pen.moveTo(PAD.left, y);
      pen.lineTo(PAD.left + this.width, y);
      pen.stroke();
      pen.fillText(String(Number(score.toPrecision(2))), PAD.left - 6, y);
    }
    pen.textBaseline = "top";
    const step = tickStep(this.video.duration, this.width / 80);
    for (let at = 0; at <= this.video.duration; at += step) {
      pen.textAlign = at === 0 ? "left" : "center";
      if (this.x(at) > PAD.left + this.width - 16) break;
      pen.fillText(step < 1 ? clock(at) : clock(at).slice(0, -2), this.x(at), PAD.top + this.height + 6);
    }
  }

  drawScores(pen, colour) {
    const { scores, fps } = this.video;
    const path = (from, to) => {
      pen.moveTo(this.x(frameRange(this.video, from)[0] / fps), this.y(scores[from]));
      for (let snippet = from; snippet < to; snippet++) {
        const [start, end] = frameRange(this.video, snippet);
        pen.lineTo(this.x(start / fps), this.y(scores[snippet]));
        pen.lineTo(this.x(end / fps), this.y(scores[snippet]));
      }
    };
    const area = (from, to, fill) => {
      pen.beginPath();
      path(from, to);
      pen.lineTo(this.x(frameRange(this.video, to - 1)[1] / fps), this.y(0));
      pen.lineTo(this.x(frameRange(this.video, from)[0] / fps), this.y(0));
      pen.fillStyle = fill;
      pen.fill();
    };
    area(0, scores.length, colour("fill"));
    for (const [start, end] of eventsOver(this.video, this.threshold)) {
      area(snippetOfFrame(start), snippetOfFrame(end - 1) + 1, colour("alarm-fill"));
    }
    pen.beginPath();
    path(0, scores.length);
    pen.strokeStyle = colour("line");
    pen.lineWidth = 1.75;
    pen.lineJoin = "round";
    pen.stroke();
  }

  drawThreshold(pen, colour) {
    const y = this.y(this.threshold);
    pen.strokeStyle = colour("alarm");
    pen.lineWidth = 1;
    pen.setLineDash([5, 4]);
    pen.beginPath();
    pen.moveTo(PAD.left, y);
    pen.lineTo(PAD.left + this.width, y);
    pen.stroke();
    pen.setLineDash([]);
  }

  drawHits(pen, colour) {
    if (!this.hits) return;
    pen.fillStyle = colour("accent");
    this.video.said.forEach((caption, snippet) => {
      if (!this.hits[caption]) return;
      const x = this.x(frameRange(this.video, snippet)[0] / this.video.fps);
      pen.fillRect(x, PAD.top + this.height - 4, 3, 4);
    });
  }

  drawMoment(pen, seconds, colour, width) {
    pen.strokeStyle = colour;
    pen.lineWidth = width;
    pen.beginPath();
    pen.moveTo(this.x(seconds), 2);
    pen.lineTo(this.x(seconds), PAD.top + this.height);
    pen.stroke();
  }

  /** Say what is under the pointer, beside it. */
  hover(clientX) {
    this.hovered = this.secondsAt(clientX);
    const snippet = snippetAt(this.video, this.hovered);
    const lines = [element("strong", `${clock(this.hovered)}  ${shown(this.video.scores[snippet])}`)];
    if (captionOf(this.video, snippet)) lines.push(element("div", captionOf(this.video, snippet)));
    const why = withoutText(this.video, snippet);
    if (why) lines.push(element("div", why, "soft"));
    const frame = this.hovered * this.video.fps;
    if ((this.video.truth || []).some(([start, end]) => start <= frame && frame < end)) {
      lines.push(element("div", "a true event", "soft"));
    }
    this.tip.replaceChildren(...lines);
    this.tip.hidden = false;
    const x = this.x(this.hovered);
    const room = this.canvas.clientWidth - this.tip.offsetWidth;
    this.tip.style.left = `${x + 14 > room ? Math.max(0, x - 14 - this.tip.offsetWidth) : x + 14}px`;
    this.draw();
  }

  leave() {
    this.hovered = null;
    this.tip.hidden = true;
    this.draw();
  }
}

function tickStep(duration, ticks) {
  const steps = [0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];
  return steps.find((step) => duration / step <= ticks) || 7200;
}

/** What a snippet would score with a modality left out; empty for a model of one. */
function withoutText(video, snippet) {
  return Object.entries(video.without)
    .map(([modality, scores]) => `without ${modality} ${(scores[snippet] / ONE_ROUGHLY).toFixed(2)}`)
    .join(", ");
}

function element(name, text, className) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  if (className) made.className = className;
  return made;
}
