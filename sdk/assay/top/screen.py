"""`assay top` on a full screen. It draws pictures of core/board and decides nothing.

Every state is a word; colour only repeats it, and NO_COLOR takes it away (textual heeds that).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

import anyio
import httpx
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.coordinate import Coordinate
from textual.events import Key, Resize
from textual.screen import ModalScreen
from textual.widgets import DataTable, Static

from assay.top import lines
from assay.top.core.board import SORTS, Picture, sorted_nodes
from assay.top.core.node_view import COORDINATOR, GONE, NodeView
from assay.top.reading import new_web

DETAIL_ROWS_MIN: Final = 14  # a lower screen shows the list alone
HEAD_WIDTH_MIN: Final = 60  # a narrower one leaves out how to get help
HELP: Final = """\
q, Ctrl-C   end
s           sort by: state, tokens, jobs, earned, node
p           pause: ask nobody, keep the picture
up, down    choose the node below the list
?, h        this page; any key closes it

TTFT is the time from a job's stream to its first token, TPOT that for
each later one; 50 and 95 in 100 are at most so long, of the last minute.
A node that does not answer is gone, with the reason in brackets."""
_GREEN, _AMBER, _RED = "#8fd05a", "#ffaf5f", "#ff6b7a"  # 6:1 and more on textual's dark ground
_CALM: Final = frozenset({"serving", "ready", "active", ""})
_GRAVE: Final = frozenset({GONE, "convicted", "suspended", "faulty"})


class Watching(Protocol):
    """Where pictures come from."""

    async def look(self, web: httpx.AsyncClient) -> Picture: ...


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the list. On a narrow screen those of the highest `rank` go first."""

    title: str
    width: int
    rank: int
    of: Callable[[NodeView], str]
    right: bool = False


COLUMNS: Final = (
    Column("NODE", 8, 0, lines.label),
    Column("STATE", 20, 0, lines.state),
    Column("MODEL", 16, 3, lambda row: row.model),
    Column("SLOTS", 5, 1, lambda row: lines.ratio(row.running, row.slots), right=True),
    Column("Q", 3, 2, lambda row: lines.number(row.queued), right=True),
    Column("OUT/S", 7, 0, lambda row: lines.rate(row.tokens_out_per_second), right=True),
    Column("IN/S", 7, 4, lambda row: lines.rate(row.tokens_in_per_second), right=True),
    Column("TTFT95", 6, 2, lambda row: lines.seconds(row.ttft_p95), right=True),
    Column("TPOT95", 6, 5, lambda row: lines.seconds(row.tpot_p95), right=True),
    Column("JOBS", 7, 6, lambda row: lines.number(row.jobs_done), right=True),
    Column("AUDITS", 9, 7, lambda row: _audits(row), right=True),
    Column("EARNED", 10, 6, lambda row: lines.credit(row.earned), right=True),
)


class Help(ModalScreen[None]):
    """What the keys do."""

    def compose(self) -> ComposeResult:
        yield Static(Text(HELP), id="help")

    def on_key(self, event: Key) -> None:
        """Any key closes it."""
        event.stop()
        self.dismiss()


class TopScreen(App[None]):
    """Asks every `interval` seconds and shows what came."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #head { height: 1; text-style: bold; }
    #network { height: auto; }
    #nodes { height: auto; background: $background; }
    #detail { height: 1fr; border-top: solid $foreground 40%; }
    Help { align: center middle; }
    #help { width: auto; max-width: 100%; height: auto; max-height: 100%; padding: 0 1;
            border: solid $foreground 60%; background: $background; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,ctrl+c", "quit", "end", priority=True),
        Binding("s", "sort", "sort"),
        Binding("p", "pause", "pause"),
        Binding("question_mark,h", "help", "help"),
    ]

    def __init__(self, watched: Watching, interval: float) -> None:
        super().__init__()
        self._watched, self._interval = watched, interval
        self._picture: Picture | None = None
        self._rows: list[NodeView] = []
        self._columns: tuple[Column, ...] = ()
        self._sort, self._paused = SORTS[0], False
        self._chosen, self._place = "", 0  # a node by its name, "" before one is; and its row
        self._head, self._network = Static(id="head"), Static(id="network")
        self._table: DataTable[Text] = DataTable(id="nodes", cursor_type="row", cell_padding=0)
        self._detail = VerticalScroll(id="detail", can_focus=False)
        self._told = Static()

    def compose(self) -> ComposeResult:
        yield self._head
        yield self._network
        yield self._table
        with self._detail:
            yield self._told

    def on_mount(self) -> None:
        """Begin to look."""
        self._table.focus()
        self._draw()
        self.run_worker(self._watch(), exclusive=True)

    def on_resize(self, event: Resize) -> None:
        """Fit columns and parts into what there is now."""
        if self._table.is_attached:  # the first comes before anything is there
            self._draw()

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        """Tell of the chosen node below the list."""
        self._heed_choice()
        self._draw_detail()

    def action_sort(self) -> None:
        """By the next of SORTS."""
        self._sort = SORTS[(SORTS.index(self._sort) + 1) % len(SORTS)]
        self._draw()

    def action_pause(self) -> None:
        """Ask nobody, or go on."""
        self._paused = not self._paused
        self._draw()

    def action_help(self) -> None:
        """What the keys do."""
        self.push_screen(Help())

    async def _watch(self) -> None:
        async with new_web() as web:
            while True:
                began = anyio.current_time()
                if not self._paused:
                    picture = await self._watched.look(web)
                    if not self._paused:  # one that was under way when `p` was pressed
                        self._picture = picture
                        self._draw()
                await anyio.sleep(max(0.05, began + self._interval - anyio.current_time()))

    def _draw(self) -> None:
        """All of it."""
        roomy = self.size.height >= DETAIL_ROWS_MIN
        self._detail.display = roomy
        self._network.styles.max_height = 3 if roomy else 1
        self._table.styles.max_height = "60%" if roomy else "100%"
        self._draw_head()
        self._draw_list()
        self._draw_detail()

    def _draw_head(self) -> None:
        picture = self._picture
        at = time.strftime("%H:%M:%S", time.localtime(picture.at / 1e6)) if picture else "asking"
        parts = ["assay top", at, f"by {self._sort}", *(["PAUSED"] if self._paused else [])]
        if self.size.width >= HEAD_WIDTH_MIN:
            parts.append("q end  s sort  p pause  ? help")
        self._head.update(Text("  ".join(parts), no_wrap=True))
        self._network.display = picture is not None and picture.network is not None
        if picture is not None and picture.network is not None:
            style = _style(picture.network.state)
            self._network.update(Text(lines.network_line(picture.network), style=style))

    def _heed_choice(self) -> None:
        """Where the cursor is not where it was put, somebody moved it. Who has not chosen is told
        of the first node, which may be another after every look. The table's events come later
        than what caused them, so the cursor is asked, also before the list changes."""
        row = self._table.cursor_row
        if row != self._place and row < len(self._rows):
            self._chosen, self._place = _identity(self._rows[row]), row

    def _draw_list(self) -> None:
        self._heed_choice()
        picture = self._picture
        self._rows = sorted_nodes(picture.nodes if picture else (), self._sort)
        columns = fitting(COLUMNS, self.size.width)
        cells = [[_cell(one, row) for one in columns] for row in self._rows]
        if columns != self._columns or len(cells) != self._table.row_count:
            self._build(columns, cells)
        else:
            for row, some in enumerate(cells):
                for column, cell in enumerate(some):
                    self._table.update_cell_at(Coordinate(row, column), cell)
        places = [_identity(row) for row in self._rows]
        self._place = places.index(self._chosen) if self._chosen in places else 0
        if self._table.cursor_row != self._place:
            self._table.move_cursor(row=self._place)

    def _build(self, columns: tuple[Column, ...], cells: list[list[Text]]) -> None:
        """The list anew: it has other columns, or more or fewer rows."""
        self._columns = columns
        self._table.clear(columns=True)
        for one in columns:
            title = one.title.rjust(one.width) if one.right else one.title
            self._table.add_column(Text(title), width=one.width + 1)
        for some in cells:
            self._table.add_row(*some)

    def _draw_detail(self) -> None:
        rows = [row for row in self._rows if _identity(row) == self._chosen] or self._rows[:1]
        told = Text()
        for row in rows:
            told.append("\n".join(detail(row, max(10, self.size.width - 26))))
        if self._picture is not None and self._picture.network is not None:
            audits = self._picture.network.latest_audits
            told.append("\n\nnewest audits of the network\n" if audits else "")
            told.append("\n".join(map(lines.audit_line, audits)))
        self._told.update(told)


def detail(row: NodeView, width: int) -> list[str]:
    """All that is known of one node, a line for each matter; `width`: of the sparkline."""
    if row.state == GONE:
        return [f"{lines.label(row)}  gone: {row.fault}"]
    rates = f"{lines.rate(row.tokens_out_per_second):>7} out {lines.rate(row.tokens_in_per_second)}"
    evidence = ""
    if row.evidence_nats is not None:
        evidence = f", evidence {row.evidence_nats:.1f} of {row.alarm_nats or 0:.1f} nats"
    own = row.source != COORDINATOR  # what only a node tells is not shown as unknown
    told = [
        ("node", row.node or row.source),
        ("state", lines.state(row)),
        ("model", "  ".join(filter(None, (row.model, row.class_id, row.device)))),
        (
            "tokens/s",
            own and f"{rates} in  {lines.spark(row.history, width - 12).lstrip()}",
        ),
        (
            f"last {row.over_seconds:.0f} s",
            own
            and f"TTFT {lines.seconds(row.ttft_p50)} p50 {lines.seconds(row.ttft_p95)} p95, "
            f"TPOT {lines.seconds(row.tpot_p50)} p50 {lines.seconds(row.tpot_p95)} p95, "
            f"{lines.rate(row.jobs_per_minute)} jobs/min",
        ),
        (
            "jobs",
            f"{lines.number(row.jobs_done)} done, {lines.number(row.jobs_failed)} failed, "
            f"{lines.number(row.jobs_refused)} refused; "
            f"{lines.ratio(row.running, row.slots)} slots, {lines.number(row.queued)} queued",
        ),
        (
            "credit",
            f"{lines.credit(row.earned)} earned, {lines.credit(row.escrow)} held, "
            f"{lines.number(row.receipts_owed)} receipts to deliver",
        ),
        ("audits", f"{_audits(row)} passed/failed{evidence}"),
        ("machine", lines.machine(row)),
        ("limits", own and lines.limits(row)),
        ("error", lines.error(row).removeprefix("last error ") + _clock(row.last_error_at)),
    ]
    return [f"{name:<10}{text}" for name, text in told if text]


def fitting(columns: tuple[Column, ...], width: int) -> tuple[Column, ...]:
    """The columns that fit into `width` cells, with one between them; the first two always."""
    kept = columns
    while sum(one.width + 1 for one in kept) > width and any(one.rank for one in kept):
        worst = max(range(len(kept)), key=lambda place: (kept[place].rank, place))
        kept = kept[:worst] + kept[worst + 1 :]
    return kept


def _cell(column: Column, row: NodeView) -> Text:
    said = column.of(row)
    shown = said if len(said) <= column.width else f"{said[: column.width - 1]}…"
    style = _style(row.state, row.standing) if column.title == "STATE" else ""
    return Text(shown.rjust(column.width) if column.right else shown, style=style, no_wrap=True)


def _style(*states: str) -> str:
    """For what is well, what is not, and what passes."""
    if any(state in _GRAVE for state in states):
        return _RED
    return _GREEN if all(state in _CALM for state in states) else _AMBER


def _identity(row: NodeView) -> str:
    return f"{row.source} {row.node if row.source == COORDINATOR else ''}"


def _audits(row: NodeView) -> str:
    return lines.ratio(row.audits_passed, row.audits_failed)


def _clock(at: int | None) -> str:
    return "" if at is None else time.strftime(" at %H:%M:%S", time.localtime(at / 1e6))
