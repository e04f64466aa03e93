"""Pictures of what the chain sees and does, as PNG bytes: arrays in, bytes out.

One look for all of them: plain fonts, few lines, the colours of Okabe and Ito, which the colour-blind
tell apart. Figures are made without pyplot and its global state, and the same input gives the same
bytes. Nothing here computes a metric, reads a file or decodes a video.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from tevad_model import timeline
from tevad_model.encoders.base import Frame
from tevad_model.timeline import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#2b2b2b"
MUTED = "#767676"
FAINT = "#e4e4e4"
NORMAL = "#0072B2"
ABNORMAL = "#D55E00"
SERIES = (NORMAL, "#E69F00", "#009E73", "#CC79A7", "#56B4E9", ABNORMAL, "#999999")

_DPI = 120
_SMALL, _TEXT, _TITLE = 8.0, 9.0, 10.5
_MINUTES_FROM = 120.0  # seconds; longer time axes read better in minutes
_COMPRESSION = 3  # of zlib's 0 to 9
_PCA_POINTS = 4000  # more only paint over each other


@dataclass(frozen=True)
class Thumbnail:
    """One snippet in a contact sheet or above a score curve.

    Attributes:
        picture: one of its frames.
        title: such as ``"Test004, 3.2 s"``.
        caption: what the captioner said of it.
        score: its snippet score; None where there is none.
        highlighted: whether to frame it as abnormal.
    """

    picture: Frame
    title: str = ""
    caption: str = ""
    score: float | None = None
    highlighted: bool = False


@dataclass(frozen=True)
class ScoredVideo:
    """A video with its scores.

    Attributes:
        video: its name.
        frames: how many it has.
        fps: frames a second.
        scores: (snippets,) in [0, 1].
        captions: one a snippet, or none at all.
        events: abnormal frames as half-open ranges, where they are known.
    """

    video: str
    frames: int
    fps: float
    scores: FloatArray
    captions: Sequence[str] = ()
    events: Sequence[tuple[int, int]] = ()

    def begins(self, snippet: int) -> float:
        """Seconds at which a snippet begins."""
        return timeline.seconds(timeline.snippet_range(snippet, self.frames)[0], self.fps)

    @property
    def edges(self) -> FloatArray:
        """Seconds at which snippets begin, then the end of the video: (snippets + 1,)."""
        starts = [self.begins(snippet) for snippet in range(len(self.scores))]
        return np.array([*starts, timeline.seconds(self.frames, self.fps)])


@dataclass(frozen=True)
class Curve:
    """A curve with the area under it, such as one seed's ROC.

    Attributes:
        name: for the legend.
        x: (points,) in [0, 1].
        y: (points,) in [0, 1].
        area: AUC of a ROC curve, average precision of a precision-recall curve.
    """

    name: str
    x: FloatArray
    y: FloatArray
    area: float


def peaks(scores: npt.ArrayLike, count: int, apart: int = timeline.WINDOW_SNIPPETS) -> list[int]:
    """The snippets to show of a video: at most ``count`` of highest score, in order of time.

    Args:
        scores: (snippets,).
        count: how many at most.
        apart: least distance of two in snippets; closer ones share a caption window.
    """
    values = np.asarray(scores, dtype=np.float64)
    chosen: list[int] = []
    for snippet in np.argsort(-values, kind="stable").tolist():
        if len(chosen) == count:
            break
        if all(abs(snippet - other) >= apart for other in chosen):
            chosen.append(snippet)
    return sorted(chosen)


def contact_sheet(thumbnails: Sequence[Thumbnail], *, title: str = "", columns: int = 4) -> bytes:
    """Snippets side by side, one picture each, with title, score and caption.

    Raises:
        ValueError: if there is no thumbnail.
    """
    _require(thumbnails, "thumbnail")
    columns = min(columns, len(thumbnails))
    rows = -(-len(thumbnails) // columns)
    tallest = max(t.picture.shape[0] / t.picture.shape[1] for t in thumbnails)
    figure = _figure(
        width=max(2.5 * columns, 4.0),
        height=rows * (2.4 * min(tallest, 1.4) + 0.75) + 0.4,
        title=title,
    )
    grid = np.atleast_1d(figure.subplots(rows, columns, squeeze=False).ravel())
    for axes, thumbnail in zip(grid, thumbnails, strict=False):
        _draw_thumbnail(axes, thumbnail, wrap=40)
    for axes in grid[len(thumbnails) :]:
        axes.set_axis_off()
    return _png(figure)


def feature_pca(features: npt.ArrayLike, groups: Sequence[str], *, title: str = "") -> bytes:
    """Features on their first two principal components, coloured by group.

    Args:
        features: (points, dim), at least two of each; at most 4,000 evenly chosen points are shown.
        groups: (points,) what each belongs to, such as the label of its video. ``normal`` and
            ``abnormal`` keep their colours in all pictures.

    Raises:
        ValueError: if there are fewer than two points or features.
    """
    from sklearn.decomposition import PCA

    points = np.asarray(features, dtype=np.float32)
    if points.ndim != 2 or min(points.shape) < 2:
        raise ValueError(f"a PCA needs (points, dim) of at least (2, 2), got {points.shape}")
    shown = np.unique(np.linspace(0, len(points) - 1, _PCA_POINTS, dtype=np.int64))
    pca = PCA(n_components=2, random_state=0)
    with np.errstate(invalid="ignore"):  # the shares of equal points are 0 / 0
        placed = pca.fit_transform(points[shown])
    names = np.asarray(groups, dtype=object)[shown]
    shares = np.nan_to_num(pca.explained_variance_ratio_)
    figure = _figure(width=5.6, height=4.6, title=title)
    axes = _axes(figure.subplots(), x=f"PC 1 ({shares[0]:.0%})", y=f"PC 2 ({shares[1]:.0%})")
    for name, colour in _group_colours(names).items():
        mine = placed[names == name]
        axes.scatter(mine[:, 0], mine[:, 1], s=9, c=colour, alpha=0.5, linewidths=0, label=name)
    _legend(axes)
    return _png(figure)


def training_curves(
    histories: Mapping[int, Sequence[Mapping[str, Any]]],
    *,
    picked: Mapping[int, int] | None = None,
    title: str = "",
) -> bytes:
    """Losses and validation figures by step, a panel each, a line a seed.

    Args:
        histories: by seed, rows ``{"step": int, "losses": {name: value}, "validation": {…}}``.
        picked: by seed, the step whose weights are kept; marked on the validation figures.

    Raises:
        ValueError: if there is no row at all.
    """
    rows = [row for history in histories.values() for row in history]
    _require(rows, "history row")
    panels = [
        (part, name)
        for part in ("losses", "validation")
        for name in dict.fromkeys(name for row in rows for name in row[part])
    ]
    _require(panels, "loss or validation figure")
    columns = min(4, len(panels))
    lines = -(-len(panels) // columns)
    figure = _figure(width=2.9 * columns + 0.6, height=2.2 * lines + 0.6, title=title)
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, (part, name) in zip(grid, panels, strict=False):
        _axes(axes, x="step", title=_spoken(name))
        for (seed, history), colour in zip(histories.items(), _cycle(len(histories)), strict=True):
            values = {row["step"]: row[part][name] for row in history if name in row[part]}
            axes.plot(
                [*values], [*values.values()], color=colour, linewidth=1.3, label=f"seed {seed}"
            )
            step = (picked or {}).get(seed)
            if part == "validation" and step in values:
                axes.plot([step], [values[step]], "o", color=colour, markersize=6)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    _legend(grid[0])
    return _png(figure)


def roc(curves: Sequence[Curve], *, title: str = "") -> bytes:
    """ROC curves: x is the false positive rate, y the true positive rate.

    Raises:
        ValueError: if there is no curve.
    """
    figure, axes = _unit_square(curves, "false positive rate", "true positive rate", title)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="chance")
    _draw_curves(axes, curves, "AUC")
    _legend(axes, loc="lower right")
    return _png(figure)


def precision_recall(curves: Sequence[Curve], *, prevalence: float, title: str = "") -> bytes:
    """Precision-recall curves: x is recall, y precision.

    Args:
        curves: one each.
        prevalence: share of positives, which is the precision of chance.

    Raises:
        ValueError: if there is no curve.
    """
    figure, axes = _unit_square(curves, "recall", "precision", title)
    axes.axhline(prevalence, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="chance")
    _draw_curves(axes, curves, "AP")
    _legend(axes)
    return _png(figure)


def reliability(
    predicted: npt.ArrayLike, observed: npt.ArrayLike, counts: npt.ArrayLike, *, title: str = ""
) -> bytes:
    """How often what is scored p is abnormal, above how often p is given.

    Args:
        predicted: (bins,) mean score of each bin.
        observed: (bins,) share of positives in it.
        counts: (bins,) how many fell into it; empty bins are left out.

    Raises:
        ValueError: if no bin holds anything.
    """
    from matplotlib.ticker import NullFormatter

    x, y, n = (np.asarray(values, dtype=np.float64) for values in (predicted, observed, counts))
    filled = n > 0
    _require(x[filled], "filled bin")
    figure = _figure(width=4.8, height=5.4, title=title)
    top, bottom = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
    _axes(top, y="share abnormal").set(ylim=(-0.02, 1.02))
    _axes(bottom, x="score", y="count").set(xlim=(-0.02, 1.02), yscale="log")
    top.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="calibrated")
    top.plot(x[filled], y[filled], "o-", color=NORMAL, linewidth=1.3, markersize=4, label="model")
    bottom.yaxis.set_minor_formatter(NullFormatter())
    bottom.bar(x[filled], n[filled], width=0.5 / len(x), color=NORMAL, alpha=0.6)
    _legend(top, loc="upper left")
    return _png(figure)


def interval(
    value: float, ends: tuple[float, float], *, limit: float, label: str, title: str = ""
) -> bytes:
    """A figure with its interval, beside the limit that its lower end has to be above.

    Args:
        value: the figure.
        ends: of its interval.
        limit: to be above.
        label: what the figure is.
        title: of the picture.
    """
    low, high = ends
    figure = _figure(width=7.2, height=1.7, title=title)
    axes = _axes(figure.subplots(), x=label)
    axes.axvline(limit, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    colour = NORMAL if low > limit else ABNORMAL
    axes.plot([low, high], [0, 0], color=colour, linewidth=2.5, solid_capstyle="butt")
    axes.plot([low, high], [0, 0], "|", color=colour, markersize=12, markeredgewidth=1.5)
    axes.plot([value], [0], "o", color=colour, markersize=7)
    axes.annotate(
        f"{value:+.4f}  [{low:+.4f}, {high:+.4f}]",
        (value, 0),
        xytext=(0, 10),
        textcoords="offset points",
        ha="center",
        fontsize=_SMALL,
        color=INK,
    )
    margin = 0.15 * max(high, limit) - 0.15 * min(low, limit) or 0.01
    axes.set(ylim=(-1, 1.4), yticks=[], xlim=(min(low, limit) - margin, max(high, limit) + margin))
    axes.spines["left"].set_visible(False)
    return _png(figure)


def score_timelines(
    videos: Sequence[ScoredVideo], *, threshold: float | None = None, title: str = ""
) -> bytes:
    """Score curves of several videos, one below the other, each with the caption at its peak.

    Raises:
        ValueError: if there is no video.
    """
    _require(videos, "video")
    figure = _figure(width=9.0, height=1.35 * len(videos) + 0.7, title=title)
    grid = figure.subplots(len(videos), 1, squeeze=False).ravel()
    for axes, video in zip(grid, videos, strict=True):
        _draw_scores(axes, video, threshold)
        axes.set_title(video.video, loc="left", fontsize=_TEXT, color=INK, parse_math=False)
        for snippet in peaks(video.scores, 1):
            _mark(axes, video, snippet, "")
            axes.set_title(
                _peak_text(video, snippet),
                loc="right",
                fontsize=_SMALL,
                color=MUTED,
                parse_math=False,
            )
    grid[-1].set_xlabel(_time_label(videos[-1]), fontsize=_TEXT, color=INK)
    _score_legend(figure, has_events=any(v.events for v in videos), threshold=threshold)
    return _png(figure)


def score_timeline(
    video: ScoredVideo,
    pictures: Mapping[int, Frame] | None = None,
    *,
    threshold: float | None = None,
) -> bytes:
    """One video's score curve below the pictures and captions of its key snippets.

    Args:
        video: the video with its scores.
        pictures: by snippet, a frame of each to show, such as those of :func:`peaks`; up to five
            fit well.
        threshold: the score from which an alarm is given.
    """
    key = sorted((pictures or {}).items())
    figure = _figure(width=10.0, height=5.4 if key else 3.2, title=video.video)
    grid = figure.add_gridspec(2 if key else 1, 1, height_ratios=(1, 1) if key else (1,))
    if key:
        strip = grid[0].subgridspec(1, len(key)).subplots(squeeze=False)[0]
        for number, (axes, (snippet, picture)) in enumerate(zip(strip, key, strict=True), start=1):
            thumbnail = Thumbnail(
                picture=picture,
                title=f"{number}   {_clock(video.begins(snippet), video)}",
                caption=_caption(video, snippet),
                score=float(video.scores[snippet]),
                highlighted=threshold is not None and bool(video.scores[snippet] >= threshold),
            )
            _draw_thumbnail(axes, thumbnail, wrap=130 // len(key))
    axes = figure.add_subplot(grid[-1])
    _draw_scores(axes, video, threshold)
    axes.set_xlabel(_time_label(video), fontsize=_TEXT, color=INK)
    axes.set_ylabel("anomaly score", fontsize=_TEXT, color=INK)
    for number, (snippet, _) in enumerate(key, start=1):
        _mark(axes, video, snippet, str(number))
    _score_legend(figure, has_events=bool(video.events), threshold=threshold)
    return _png(figure)


def _require(things: Sequence[Any] | FloatArray, kind: str) -> None:
    if len(things) == 0:
        raise ValueError(f"nothing to draw: no {kind} was given")


def _figure(*, width: float, height: float, title: str) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained", facecolor="white")
    if title:
        figure.suptitle(
            title,
            x=0.01,
            ha="left",
            fontsize=_TITLE,
            fontweight="bold",
            color=INK,
            parse_math=False,
        )
    return figure


def _png(figure: Figure) -> bytes:
    """The figure as a PNG.

    Figure.savefig would draw twice, once to no effect but the layout's, which drawing sees to. It
    would keep an alpha channel that is nowhere used, and press harder than frames of videos yield:
    three times as long for as many bytes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    buffer = io.BytesIO()
    opaque = np.asarray(canvas.buffer_rgba())[..., :3]
    Image.fromarray(opaque).save(buffer, "png", compress_level=_COMPRESSION)
    return buffer.getvalue()


def _axes(axes: Axes, *, x: str = "", y: str = "", title: str = "") -> Axes:
    """Give axes the common look."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(labelsize=_SMALL, color=MUTED, labelcolor=INK, length=3)
    axes.grid(color=FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_xlabel(x, fontsize=_TEXT, color=INK)
    axes.set_ylabel(y, fontsize=_TEXT, color=INK)
    axes.set_title(title, loc="left", fontsize=_TEXT, color=INK, parse_math=False)
    return axes


def _legend(axes: Axes, loc: Literal["best", "upper left", "lower right"] = "best") -> None:
    axes.legend(loc=loc, fontsize=_SMALL, frameon=False, labelcolor=INK, markerscale=1.5)


def _cycle(count: int) -> list[str]:
    return [SERIES[index % len(SERIES)] for index in range(count)]


def _spoken(name: str) -> str:
    return name.replace("_", " ").replace(" auc", " AUC")


def _group_colours(names: Iterable[str]) -> dict[str, str]:
    """A colour by group; the two labels keep theirs whatever else there is."""
    present = set(names)
    fixed = {"normal": NORMAL, "abnormal": ABNORMAL}
    free = [colour for colour in reversed(SERIES) if colour not in fixed.values()]
    colours = {name: colour for name, colour in fixed.items() if name in present}
    for index, name in enumerate(sorted(present - fixed.keys())):
        colours[name] = free[index % len(free)]
    return colours


def _unit_square(curves: Sequence[Curve], x: str, y: str, title: str) -> tuple[Figure, Axes]:
    _require(curves, "curve")
    figure = _figure(width=4.8, height=4.8, title=title)
    axes = _axes(figure.subplots(), x=x, y=y)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    return figure, axes


def _draw_curves(axes: Axes, curves: Sequence[Curve], area: str) -> None:
    for curve, colour in zip(curves, _cycle(len(curves)), strict=True):
        label = f"{curve.name}: {area} {curve.area:.3f}"
        axes.plot(curve.x, curve.y, color=colour, linewidth=1.5, label=label)


def _draw_thumbnail(axes: Axes, thumbnail: Thumbnail, *, wrap: int) -> None:
    axes.imshow(thumbnail.picture, interpolation="antialiased", interpolation_stage="rgba")
    axes.set(xticks=[], yticks=[], anchor="N")
    colour = ABNORMAL if thumbnail.highlighted else INK
    for spine in axes.spines.values():
        spine.set(color=colour if thumbnail.highlighted else FAINT, linewidth=2.0)
    axes.set_title(thumbnail.title, loc="left", fontsize=_SMALL, color=INK, parse_math=False)
    if thumbnail.score is not None:
        score = f"{thumbnail.score:.2f}"
        axes.set_title(score, loc="right", fontsize=_SMALL, color=colour, fontweight="bold")
    caption = textwrap.wrap(thumbnail.caption, wrap, max_lines=3, placeholder=" …")
    axes.set_xlabel("\n".join(caption), fontsize=_SMALL, color=INK, parse_math=False)


def _draw_scores(axes: Axes, video: ScoredVideo, threshold: float | None) -> None:
    from matplotlib.ticker import MaxNLocator

    _axes(axes)
    edges = video.edges
    for start, end in video.events:
        begin, stop = timeline.seconds(start, video.fps), timeline.seconds(end, video.fps)
        axes.axvspan(begin, stop, color=ABNORMAL, alpha=0.2, linewidth=0)
    axes.stairs(video.scores, edges, baseline=None, color=NORMAL, linewidth=1.5)
    if threshold is not None:
        axes.axhline(threshold, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.set(xlim=(0, edges[-1]), ylim=(0, 1.03), yticks=(0, 0.5, 1))
    if _in_minutes(video):
        axes.xaxis.set_major_locator(MaxNLocator(steps=[1, 1.5, 3, 6, 10]))
    axes.xaxis.set_major_formatter(lambda second, _: _clock(second, video, unit=False))


def _mark(axes: Axes, video: ScoredVideo, snippet: int, number: str) -> None:
    """Point at a snippet on its score curve: a dot, or its number above the axes."""
    time = float(video.edges[snippet : snippet + 2].mean())
    score = float(video.scores[snippet])
    axes.plot([time], [score], "o", color=INK, markersize=4, clip_on=False, zorder=5)
    if number:
        axes.plot([time, time], [score, 1.03], color=INK, linewidth=0.8)
        axes.annotate(
            number,
            (time, 1.03),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=_SMALL,
            color="white",
            bbox={"boxstyle": "circle,pad=0.25", "facecolor": INK, "linewidth": 0},
        )


def _score_legend(figure: Figure, *, has_events: bool, threshold: float | None) -> None:
    from matplotlib.artist import Artist
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Artist] = [Line2D([], [], color=NORMAL, linewidth=1.4, label="score")]
    if has_events:
        handles.append(Patch(color=ABNORMAL, alpha=0.2, linewidth=0, label="event"))
    if threshold is not None:
        label = f"threshold {threshold:.2f}"
        handles.append(Line2D([], [], color=INK, linewidth=1, linestyle=(0, (4, 3)), label=label))
    figure.legend(
        handles=handles,
        loc="outside upper right",
        ncols=len(handles),
        fontsize=_SMALL,
        frameon=False,
        labelcolor=INK,
    )


def _peak_text(video: ScoredVideo, snippet: int) -> str:
    caption = textwrap.shorten(_caption(video, snippet), 90, placeholder=" …")
    return f"{_clock(video.begins(snippet), video)}: {caption}" if caption else ""


def _caption(video: ScoredVideo, snippet: int) -> str:
    return video.captions[snippet] if video.captions else ""


def _in_minutes(video: ScoredVideo) -> bool:
    return timeline.seconds(video.frames, video.fps) >= _MINUTES_FROM


def _time_label(video: ScoredVideo) -> str:
    return "time (min:s)" if _in_minutes(video) else "time (s)"


def _clock(second: float, video: ScoredVideo, *, unit: bool = True) -> str:
    """A time of a video as people read it: seconds, or minutes in a longer video."""
    if _in_minutes(video):
        return f"{int(second) // 60}:{int(second) % 60:02d}"
    return f"{second:.1f} s" if unit else f"{second:g}"
