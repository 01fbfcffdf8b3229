"""One report: quality, gate, groups, precisions, and what to know before believing it. Drawing 4."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll

from tui import session_reports
from tui.cli.report_lines import (
    data_words,
    gate_lines,
    gate_title,
    group_lines,
    limit_lines,
    precision_lines,
    quality_lines,
    rule_lines,
    subject,
)
from tui.screens.deeds import deed_of
from tui.screens.evaluate_form import ask_export
from tui.screens.frame import Framed
from tui.screens.modals import Words
from tui.steps import NextStep
from tui.widgets.chart import draw_chart
from tui.widgets.pane import Pane

_RULES_WIDTH = 66


class ReportScreen(Framed):
    """A report, scrolled with arrows and page keys."""

    HERE = "evaluate"
    AUTO_FOCUS = "#body"
    HELP = (
        "Base: the model before training. This: the model that is looked at. 95% CI: where its true figure"
        " lies, as far as so many records can tell. Accuracy: the share of right answers. F1 macro: the same"
        " kind of share, each label counting alike however rare it is. Perplexity: how surprised the model is"
        " by the right answer, 1 at best. McNemar p: how likely luck alone made such a difference. The gate"
        " needs every line with [x]; g tells its rules. The same in a shell:"
        " cloister report show MODEL, cloister report export MODEL --html FILE."
    )
    RIGHTS: ClassVar[dict[str, str]] = {"export": "report.export", "quantise": "quantize.start"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("x", "export", "Export HTML"),
        Binding("g", "rules", "Gate rules"),
        Binding("z", "quantise", "Quantise"),
    ]

    def __init__(self, job: str, model: str) -> None:
        super().__init__()
        self.job, self.model = job, model
        self.report: dict[str, Any] | None = None

    def crumbs(self) -> list[str]:
        """Evaluate, then the model."""
        return [*super().crumbs(), self.model]

    def body(self) -> ComposeResult:
        """Quality and gate, groups and precisions, the training's curve, the limits."""
        with VerticalScroll(id="body"):
            with Horizontal(id="upper"):
                yield Pane("Quality", id="quality")
                yield Pane("Gate", id="gate")
            with Horizontal(id="lower"):
                yield Pane("By group", id="groups")
                yield Pane("Precision", id="precision")
            yield Pane("Before you believe it", id="limits")
            yield Pane("Loss of the training  - training  o validation", id="curve")

    def begin(self) -> None:
        """Read the report."""
        super().begin()
        self.attempt(lambda: self._read(), self.show_report)

    def _read(self) -> dict[str, Any]:
        return session_reports.report(self.site, self.job) | {"about": self.model}

    def show_report(self, report: dict[str, Any]) -> None:
        """Draw it."""
        self.report = report
        self._fill("#quality", lambda width: quality_lines(report))
        self.query_one("#quality").border_subtitle = data_words(report)
        self._fill("#gate", lambda width: gate_lines(report, width))
        self.query_one("#gate").border_title = gate_title(report)
        self._fill("#groups", lambda width: group_lines(report, width))
        self._fill("#precision", lambda width: precision_lines(report, width))
        self._fill("#limits", lambda width: limit_lines(report, width))
        self.query_one("#limits").display = bool(report.get("limits"))
        curve, points = self.query_one("#curve", Pane), report.get("training") or []
        losses = [(one["step"], one["loss"]) for one in points if one.get("loss") is not None]
        held = [(one["step"], one["validation_loss"]) for one in points if one.get("validation_loss")]
        curve.display = len(losses) > 1
        curve.show(lambda width, height: "\n".join(draw_chart(losses, held, width, 9)))
        self.refresh_bindings()
        self._level()

    def _fill(self, where: str, lines: Callable[[int], list[str]]) -> None:
        self.query_one(where, Pane).show(lambda width, height: "\n".join(lines(width)))

    def on_resize(self) -> None:
        """Another width breaks the lines elsewhere."""
        self.call_after_refresh(self._level)

    def _level(self) -> None:
        """Two boxes side by side are as high as the higher one."""
        report = self.report
        if report is None:
            return
        quality, gate = self.query_one("#quality", Pane), self.query_one("#gate", Pane)
        groups, precision = self.query_one("#groups", Pane), self.query_one("#precision", Pane)
        beside = quality.region.y == gate.region.y
        for pair, count in (
            (
                (quality, gate),
                max(len(quality_lines(report)), len(gate_lines(report, gate.content_size.width))),
            ),
            (
                (groups, precision),
                max(
                    len(group_lines(report, groups.content_size.width)),
                    len(precision_lines(report, precision.content_size.width)),
                ),
            ),
        ):
            for pane in pair:
                pane.styles.height = count + 2 if beside else "auto"

    def reason(self, action: str) -> str | None:
        """Only what was tuned here is quantised from here."""
        if action == "quantise" and self.report is not None and subject(self.report)["kind"] == "gguf":
            return f"{self.model} is a GGUF file already"
        return super().reason(action)

    def action_export(self) -> None:
        """Write the page to a file."""
        ask_export(self, self.job, self.model)

    def action_rules(self) -> None:
        """What the gate asks."""
        if self.report is not None:
            self.app.push_screen(
                Words("Gate rules", "\n".join(rule_lines(self.report["rule"], _RULES_WIDTH)))
            )

    def action_quantise(self) -> None:
        """Make GGUF files of the model, after its plan."""
        self.carry_out(deed_of(NextStep(text="", why="", command=f"cloister quantize {self.model}")))
