// What a threshold is worth on some videos. The definitions are those of the evaluation
// (tevad_model.metrics); a figure that is not defined is null, never 0.

const EVENT_IOU = 0.5;

/** The runs of snippets whose score reaches a threshold, as [first frame, frame after the last]. */
function eventsOver(video, threshold) {
  const events = [];
  let start = -1;
  for (let snippet = 0; snippet <= video.scores.length; snippet++) {
    const over = snippet < video.scores.length && video.scores[snippet] >= threshold;
    if (over && start < 0) start = snippet;
    if (!over && start >= 0) {
      events.push([frameRange(video, start)[0], frameRange(video, snippet - 1)[1]]);
      start = -1;
    }
  }
  return events;
}

function overlap(a, b) {
  return Math.max(0, Math.min(a[1], b[1]) - Math.max(a[0], b[0]));
}

/** How many predicted events are true ones: each pairs with at most one, best overlap first. */
function matched(predicted, truth) {
  const pairs = [];
  predicted.forEach((p, i) => truth.forEach((t, j) => {
    const both = overlap(p, t);
    const iou = both / (p[1] - p[0] + t[1] - t[0] - both);
    if (iou >= EVENT_IOU) pairs.push([-iou, i, j]);
  }));
  pairs.sort((a, b) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2]);
  const takenPredicted = new Set();
  const takenTrue = new Set();
  for (const [, i, j] of pairs) {
    if (takenPredicted.has(i) || takenTrue.has(j)) continue;
    takenPredicted.add(i);
    takenTrue.add(j);
  }
  return takenPredicted.size;
}

const ratio = (part, whole) => (whole ? part / whole : null);

/**
 * Precision and recall of videos by their label, of frames and of events, and false alarms an hour
 * of normal frames, over the videos of which the truth is known.
 */
function measure(videos, threshold) {
  const video = { hit: 0, predicted: 0, true: 0 };
  const frame = { hit: 0, predicted: 0, true: 0 };
  const event = { hit: 0, predicted: 0, true: 0 };
  let falseAlarms = 0;
  let normalSeconds = 0;
  for (const one of videos) {
    if (one.label) {
      const isOver = one.peak >= threshold;
      video.predicted += isOver;
      video.true += one.label === "abnormal";
      video.hit += isOver && one.label === "abnormal";
    }
    if (!one.truth) continue;
    const alarms = one.peak < threshold ? [] : eventsOver(one, threshold);
    for (const [start, end] of alarms) {
      frame.predicted += end - start;
      for (let snippet = snippetOfFrame(start); snippet * page.snippetFrames < end; snippet++) {
        frame.hit += one.abnormal[snippet];
      }
    }
    frame.true += one.abnormalFrames;
    event.true += one.truth.length;
    event.predicted += alarms.length;
    event.hit += matched(alarms, one.truth);
    falseAlarms += alarms.filter((alarm) => !one.truth.some((t) => overlap(alarm, t))).length;
    normalSeconds += (one.frames - one.abnormalFrames) / one.fps;
  }
  const rates = (counts) => ({
    precision: ratio(counts.hit, counts.predicted),
    recall: ratio(counts.hit, counts.true),
    true: counts.true,
  });
  return {
    videos: rates(video),
    frames: rates(frame),
    events: rates(event),
    falseAlarmsAnHour: ratio(falseAlarms, normalSeconds / 3600),
  };
}
