"""The live screen of `edgelut-agent monitor`, with rich."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agent.cli.monitor import WINDOW_S, Show, Watch
from agent.cli.terminal import bounds, framed, plot

REFRESH_HZ = 5
LEAST_SPAN_W = 0.05  # of the plot's scale
SCALE_COLUMNS = 12  # beside the plot
OTHER_ROWS = 9  # above and below it
PLOT_ROWS = (4, 20)
LEAST_S = 10.0  # of the plot's width, at the beginning
SILENT_S = 3.0  # or three periods of the meter, before it is said
MOST_LOSSES = 3


@contextlib.contextmanager
def live() -> Iterator[Show]:
    """A screen that each call brings up to date; what it showed last stays."""
    with Live(refresh_per_second=REFRESH_HZ, transient=False) as display:

        class Screen(Show):
            def __call__(self, watch: Watch) -> None:
                display.update(picture(watch))

        yield Screen()


def picture(watch: Watch) -> RenderableType:
    parts: list[RenderableType] = [_title(watch), Text(), _numbers(watch), Text()]
    if watch.recent:
        parts.append(_Plot(watch))
    return Group(*parts, *_footer(watch))


def _title(watch: Watch) -> Text:
    info = watch.info
    text = Text.assemble((info.model or info.kind, "bold"), f"  {info.port}")
    for word in (info.serial and f"no. {info.serial}", info.firmware and f"firmware {info.firmware}"):
        if word:
            text.append(f"  {word}", "dim")
    if info.emulated:
        text.append("  emulated", "yellow")
    return text


def _numbers(watch: Watch) -> Table:
    """The last value, and mean ± deviation of all new ones."""
    table = Table.grid(padding=(0, 3))
    for _ in range(3):
        table.add_column(justify="right")
    if watch.last is None:
        table.add_row(Text("waiting for the first value", "dim"))
        return table
    units = ("V", "A", "W")
    table.add_row(*(Text(f"{value:.4f} {unit}", "bold cyan") for value, unit in zip(watch.last, units, strict=True)))
    spreads = (watch.voltage_v, watch.current_a, watch.power_w)
    table.add_row(*(Text(f"{s.mean:.4f} ± {s.sd or 0.0:.4f}", "dim") for s in spreads))
    return table


class _Plot:
    """As large as the terminal lets it be."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        watch = self._watch
        columns = max(20, options.max_width - SCALE_COLUMNS)
        rows = min(max(console.size.height - OTHER_ROWS - MOST_LOSSES, PLOT_ROWS[0]), PLOT_ROWS[1])
        times_s, power_w = zip(*watch.recent, strict=True)
        span = (max(0.0, watch.now_s - WINDOW_S), max(watch.now_s, LEAST_S))
        limits = bounds(power_w, LEAST_SPAN_W)
        lines = plot(times_s, power_w, span, limits, (columns, rows))
        left, right = f"{span[0]:.0f} s", f"{span[1]:.0f} s"
        for line in framed(lines, limits, "W", left, right):
            yield Text(line, "green", no_wrap=True, overflow="crop")


def _footer(watch: Watch) -> list[RenderableType]:
    rate = "–" if watch.fresh_rate_hz is None else f"{watch.fresh_rate_hz:.3g}"
    words = f"{watch.now_s:.0f} s   {rate} new values/s   {watch.power_w.count} of {watch.samples} samples new   "
    parts: list[RenderableType] = [Text(words + f"{watch.energy_j:.1f} J   Ctrl-C ends", "dim")]
    if watch.silent_s > max(SILENT_S, 3 / max(watch.info.rate_hz, 1e-3)):
        parts.append(Text(f"no new value for {watch.silent_s:.0f} s", "bold red"))
    for loss, times in watch.losses.most_common(MOST_LOSSES):
        parts.append(Text(f"{times} × {loss}", "red"))
    return parts
