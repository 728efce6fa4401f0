"""The picture of cost against quality, as an SVG that is the same for the same figures.

``python hack/bench/models_parts/picture.py`` draws it anew into ``docs/images/routing.svg``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PATH = Path(__file__).resolve().parents[3] / "docs" / "images" / "routing.svg"
_WIDTH, _HEIGHT = 760, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 40, 60
_COST = (8_000.0, 66_000.0)
_SHARE = 0.5
_COLORS = ("#5b8def", "#d9572b", "#3b8a54")
_GOAL_COST, _GOAL_SHARE = 16_590.0, 0.01


@dataclass(frozen=True)
class Point:
    """One threshold."""

    cost: float
    """USD a day."""
    share: float
    """0..1 of the requests that need the power tier and are answered by less."""
    threshold: float
    chosen: bool


def svg(curves: Mapping[str, Sequence[Point]]) -> str:
    """The picture's text."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        'font-size="12" fill="#333">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="22" font-size="14">A day of 1.5 million requests: what it costs, and what it misses, '
        "by the router's threshold</text>",
        _goal(),
    ]
    for cost in range(10_000, 70_000, 10_000):
        parts.append(f'<line x1="{_x(cost)}" y1="{_TOP}" x2="{_x(cost)}" y2="{_HEIGHT - _BOTTOM}" stroke="#eee"/>')
        parts.append(f'<text x="{_x(cost)}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">${cost:,}</text>')
    for percent in range(0, 60, 10):
        y = _y(percent / 100)
        parts.append(f'<line x1="{_LEFT}" y1="{y}" x2="{_WIDTH - _RIGHT}" y2="{y}" stroke="#eee"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{percent}%</text>')
    parts.append(f'<text x="{_WIDTH // 2}" y="{_HEIGHT - 16}" text-anchor="middle">cost of a day</text>')
    parts.append(
        f'<text transform="translate(18 {_HEIGHT // 2 - 10}) rotate(-90)" text-anchor="middle">'
        "hard requests answered by less</text>"
    )
    for index, (name, points) in enumerate(curves.items()):
        parts.extend(_curve(name, points, _COLORS[index % len(_COLORS)], index))
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def write(curves: Mapping[str, Sequence[Point]], path: Path = PATH) -> None:
    """Put the picture where docs/models.md shows it."""
    path.write_text(svg(curves))


def _goal() -> str:
    width, top = _x(_GOAL_COST) - _LEFT, _y(_GOAL_SHARE)
    return (
        f'<rect x="{_LEFT}" y="{top}" width="{width:.1f}" height="{_y(0) - top:.1f}" fill="#cfe8cf"/>'
        f'<text x="{_LEFT + 4}" y="{top - 6}" fill="#3b8a54">goal: at most $16,590 and 1%</text>'
    )


def _curve(name: str, points: Sequence[Point], color: str, index: int) -> list[str]:
    path = " ".join(f"{_x(point.cost)},{_y(point.share)}" for point in points)
    parts = [f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.5"/>']
    for point in points:
        radius = 6 if point.chosen else 2.5
        parts.append(
            f'<circle cx="{_x(point.cost)}" cy="{_y(point.share)}" r="{radius}" fill="{color}">'
            f"<title>threshold {point.threshold:g}: ${point.cost:,.0f}, {point.share:.1%}</title></circle>"
        )
    chosen = next(point for point in points if point.chosen)
    y = _TOP + 20 + 20 * index
    parts.append(f'<circle cx="{_WIDTH - 330}" cy="{y - 4}" r="6" fill="{color}"/>')
    parts.append(
        f'<text x="{_WIDTH - 318}" y="{y}">{name}: ${chosen.cost:,.0f} and {chosen.share:.1%} '
        f"at threshold {chosen.threshold:g}</text>"
    )
    return parts


def _x(cost: float) -> float:
    low, high = _COST
    return round(_LEFT + (min(max(cost, low), high) - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT), 1)


def _y(share: float) -> float:
    return round(_HEIGHT - _BOTTOM - min(share, _SHARE) / _SHARE * (_HEIGHT - _TOP - _BOTTOM), 1)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from models_parts import day

    day.draw()
