"""Costs and latencies as bars.

Path: inspection → **charts** → canvas. Evidence in, PNG bytes out.
"""

from collections.abc import Sequence

from export import evidence
from export.report import canvas

_MARGIN_PX, _HEAD_PX, _ROW_PX, _BAR_PX = canvas.MARGIN_PX, 56, 26, 12
_NAME_PX, _SHAPE_PX = 116, 92
_MACS_PX, _MACS_TEXT_PX, _PARAMETERS_PX, _PARAMETERS_TEXT_PX = 290, 166, 150, 64


def cost_bars(costs: evidence.Costs) -> bytes:
    """Return MACs and parameters of each stage.

    An outline behind the MACs shows what the stage would cost without its 1x1 reductions and expansions.
    """
    parameters_left = _MARGIN_PX + _NAME_PX + _SHAPE_PX + _MACS_PX + _MACS_TEXT_PX
    sheet_w = parameters_left + _PARAMETERS_PX + _PARAMETERS_TEXT_PX + _MARGIN_PX
    has_reductions = any(stage.macs_direct > stage.macs for stage in costs.stages)
    sheet = canvas.Canvas(sheet_w, _HEAD_PX + len(costs.stages) * _ROW_PX + _MARGIN_PX + 24 * has_reductions)
    macs_left = _MARGIN_PX + _NAME_PX + _SHAPE_PX
    _heading(sheet, macs_left, f"{short(costs.macs)} MACs", "for one image")
    _heading(sheet, parameters_left, f"{short(costs.parameters)} parameters", f"{costs.parameters:,}")
    most_macs = max(max(stage.macs, stage.macs_direct) for stage in costs.stages) or 1
    most_parameters = max(stage.parameters for stage in costs.stages) or 1
    for number, stage in enumerate(costs.stages):
        y = _HEAD_PX + number * _ROW_PX
        middle = y + _BAR_PX / 2
        sheet.text((_MARGIN_PX, middle), canvas.shortened(stage.name, 15))
        shape = "x".join(map(str, stage.shape))
        sheet.text((_MARGIN_PX + _NAME_PX, middle), shape, size_px=canvas.SMALL_PX, color=canvas.FAINT)
        _macs(sheet, (macs_left, y), stage, _MACS_PX / most_macs)
        width = _PARAMETERS_PX * stage.parameters / most_parameters
        _bar(sheet, (parameters_left, y, width), _worth_saying(stage.parameters))
    if has_reductions:
        _legend(sheet, macs_left, _HEAD_PX + len(costs.stages) * _ROW_PX + 8)
    return sheet.png()


def _heading(sheet: canvas.Canvas, left: float, words: str, note: str) -> None:
    sheet.text((left, 18), words, size_px=canvas.TITLE_PX, is_bold=True)
    sheet.text((left, 37), note, size_px=canvas.SMALL_PX, color=canvas.FAINT)


def _macs(sheet: canvas.Canvas, place: tuple[float, float], stage: evidence.StageCost, scale: float) -> None:
    left, y = place
    words = _worth_saying(stage.macs)
    if stage.macs_direct > stage.macs:
        words += f" instead of {short(stage.macs_direct)}"
        sheet.bar((left, y, stage.macs_direct * scale, _BAR_PX), canvas.OTHER, is_outline=True)
    sheet.bar((left, y, stage.macs * scale, _BAR_PX), canvas.ACCENT)
    right = left + max(stage.macs, stage.macs_direct) * scale
    sheet.text((right + 6, y + _BAR_PX / 2), words, size_px=canvas.SMALL_PX, color=canvas.FAINT)


def _bar(sheet: canvas.Canvas, box: tuple[float, float, float], words: str, color: str = canvas.ACCENT) -> None:
    left, y, width = box
    sheet.bar((left, y, width, _BAR_PX), color)
    sheet.text((left + width + 6, y + _BAR_PX / 2), words, size_px=canvas.SMALL_PX, color=canvas.FAINT)


def _worth_saying(count: int) -> str:
    return short(count) if count else ""


def _legend(sheet: canvas.Canvas, left: float, y: float) -> None:
    sheet.bar((left, y, 12, 12), canvas.OTHER, is_outline=True)
    words = "without the 1x1 convolutions that reduce and expand the maps"
    sheet.text((left + 18, y + 6), words, size_px=canvas.SMALL_PX, color=canvas.FAINT)


_WHAT_PX, _TIME_PX, _TIME_TEXT_PX = 210, 380, 190


def latency_bars(latency: Sequence[evidence.Latency]) -> bytes:
    """Return the median time of each way to run a batch, with a tick at the fastest; at least one is needed."""
    sheet_w = 2 * _MARGIN_PX + _WHAT_PX + _TIME_PX + _TIME_TEXT_PX
    sheet = canvas.Canvas(sheet_w, _HEAD_PX + len(latency) * _ROW_PX + _MARGIN_PX - 8)
    _heading(sheet, _MARGIN_PX, "Time for a batch", "median; the tick is the fastest")
    scale = _TIME_PX / max(row.median_s for row in latency)
    for number, row in enumerate(latency):
        y, left = _HEAD_PX + number * _ROW_PX, _MARGIN_PX + _WHAT_PX
        sheet.text((_MARGIN_PX, y + _BAR_PX / 2), canvas.shortened(f"{row.what}, batch {row.batch}", 30))
        color = canvas.ACCENT if row.what == latency[0].what else canvas.OTHER
        words = f"{milliseconds(row.median_s)} (fastest {milliseconds(row.fastest_s)})"
        _bar(sheet, (left, y, row.median_s * scale), words, color)
        sheet.bar((left + row.fastest_s * scale, y - 3, 1, _BAR_PX + 6), canvas.INK)
    return sheet.png()


def short(count: float) -> str:
    """Return a count for people, in three digits: 1.50 G, 240 k, 84."""
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= unit:
            share = count / unit
            digits = 2 if share < 10 else 1 if share < 100 else 0
            return f"{share:,.{digits}f}{name}"
    return f"{count:g}"


def milliseconds(seconds: float) -> str:
    """Return a time in milliseconds, in three digits."""
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds * 1e3:,.0f} ms"
