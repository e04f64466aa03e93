// The list of videos. Only the rows in view are in the document, so that thousands are no burden.

const ROW = 68;
const OVERSCAN = 4;

class VideoList {
  constructor(box, choose) {
    this.box = box;
    this.choose = choose;
    this.videos = [];
    this.chosen = null;
    this.threshold = 1;
    this.rows = new Map(); // by index
    this.spacer = box.appendChild(element("div", "", "spacer"));
    box.addEventListener("scroll", () => this.render());
    new ResizeObserver(() => this.render()).observe(box);
  }

  show(videos) {
    this.videos = videos;
    this.box.scrollTop = 0;
    this.refresh();
  }

  /** Make the rows anew: what they show has changed. */
  refresh() {
    this.rows.clear();
    this.spacer.replaceChildren();
    this.spacer.style.height = `${this.videos.length * ROW}px`;
    if (!this.videos.length) {
      this.spacer.append(element("p", "No video passes the filters.", "empty"));
    }
    this.render();
  }

  render() {
    const first = Math.max(0, Math.floor(this.box.scrollTop / ROW) - OVERSCAN);
    const last = Math.min(
      this.videos.length,
      Math.ceil((this.box.scrollTop + this.box.clientHeight) / ROW) + OVERSCAN,
    );
    for (const [index, row] of this.rows) {
      if (index < first || index >= last) {
        row.remove();
        this.rows.delete(index);
      }
    }
    for (let index = first; index < last; index++) {
      if (!this.rows.has(index)) this.rows.set(index, this.spacer.appendChild(this.row(index)));
    }
    this.mark();
  }

  row(index) {
    const video = this.videos[index];
    const row = element("div", "", "item");
    row.id = `item-${index}`;
    row.setAttribute("role", "option");
    row.setAttribute("aria-setsize", this.videos.length);
    row.setAttribute("aria-posinset", index + 1);
    row.setAttribute(
      "aria-label",
      `${video.name}, largest score ${shown(video.peak)}, ${video.label || "unlabelled"}`,
    );
    row.style.top = `${index * ROW}px`;
    const thumb = row.appendChild(element("div", "", "thumb"));
    if (video.thumb) thumb.style.backgroundImage = `url(data:image/jpeg;base64,${video.thumb})`;
    row.append(element("div", video.name, "name"));
    const isOver = video.peak >= this.threshold;
    row.append(element("div", shown(video.peak), isOver ? "peak over" : "peak"));
    const spark = row.appendChild(element("canvas"));
    row.append(element("div", video.label || "–", `kind ${video.label}`));
    row.addEventListener("click", () => this.choose(video));
    requestAnimationFrame(() => drawSpark(spark, video, this.threshold));
    return row;
  }

  /** Show which video is chosen. */
  mark() {
    const at = this.videos.indexOf(this.chosen);
    for (const [index, row] of this.rows) row.setAttribute("aria-selected", index === at);
    if (this.rows.has(at)) this.box.setAttribute("aria-activedescendant", `item-${at}`);
    else this.box.removeAttribute("aria-activedescendant");
  }

  /** Choose a video and bring it into view. */
  pick(video) {
    this.chosen = video;
    const top = this.videos.indexOf(video) * ROW;
    if (top >= 0 && top < this.box.scrollTop) this.box.scrollTop = top;
    if (top + ROW > this.box.scrollTop + this.box.clientHeight) {
      this.box.scrollTop = top + ROW - this.box.clientHeight;
    }
    this.render();
  }

  /** The video so many places after the chosen one, or the first. */
  neighbour(step) {
    const at = this.videos.indexOf(this.chosen);
    const next = at < 0 ? 0 : Math.min(Math.max(at + step, 0), this.videos.length - 1);
    return this.videos[next];
  }
}

/** The largest score of each column of pixels. */
function drawSpark(canvas, video, threshold) {
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  const scale = window.devicePixelRatio || 1;
  canvas.width = width * scale;
  canvas.height = height * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const style = getComputedStyle(document.documentElement);
  const [calm, alarm] = [style.getPropertyValue("--line"), style.getPropertyValue("--alarm")];
  const bars = Math.max(1, Math.min(Math.floor(width / 2), video.scores.length));
  for (let bar = 0; bar < bars; bar++) {
    const from = Math.floor((bar * video.scores.length) / bars);
    const to = Math.max(from + 1, Math.floor(((bar + 1) * video.scores.length) / bars));
    const score = largest(video.scores.subarray(from, to));
    const tall = Math.max(1, (score / TOP) * height);
    pen.fillStyle = score >= threshold ? alarm : calm;
    pen.fillRect((bar * width) / bars, height - tall, Math.max(1, width / bars - 0.5), tall);
  }
}
