"""Writes docs/benchmarks.md and its plots from the rounds of scripts/bench: report.py ROUNDS OUT KEY=VALUE..."""

import json
import os
import platform
import re
import statistics
import sys
from pathlib import Path

SIDES = ("ottla", "kafka", "floor")
NAMES = {"ottla": "Ottla", "kafka": "Apache Kafka", "floor": "Floor"}
COLOURS = {"ottla": "#d2691e", "kafka": "#4a5a6a", "floor": "#a9b4bd"}
# Load, figure, what it is, unit, digits, whether more is better.
ROWS = (
    ("produce", "mb_per_s", "Produce, 64 kB batches, acks=all", "MB/s", 0, True),
    ("produce", "cpu_s_per_gb", "Produce: broker CPU", "s/GB", 2, False),
    ("fetch", "mb_per_s", "Fetch of the same data", "MB/s", 0, True),
    ("fetch", "cpu_s_per_gb", "Fetch: broker CPU", "s/GB", 2, False),
    ("small", "requests_per_s", "One record of 100 bytes a request", "1/s", 0, True),
    ("small", "cpu_us_per_request", "One record a request: broker CPU", "µs", 1, False),
    ("latency", "p50_ms", "Producer to consumer, 1000/s, median", "ms", 3, False),
    ("latency", "p99_ms", "Producer to consumer, 99 %", "ms", 3, False),
    ("latency", "p999_ms", "Producer to consumer, 99.9 %", "ms", 3, False),
    ("ready", "ready_ms", "Start to first answer", "ms", 0, False),
    ("idle", "resident_mb", "Resident memory, idle", "MB", 1, False),
    ("produce", "resident_mb", "Resident memory after produce", "MB", 1, False),
    ("connections", "connections_per_s", "Connections opened, each with a request", "1/s", 0, True),
    ("connections", "kb_per_connection", "Memory of an idle connection", "KB", 1, False),
)


def rounds(folder):
    """{side: {(load, figure): [a value a round]}}"""
    found = {side: {} for side in SIDES}
    for path in sorted(folder.glob("*.json")):
        side = path.stem.split("-")[1]
        for line in path.read_text().splitlines():
            for load, figures in json.loads(line).items():
                for name, value in figures.items():
                    found[side].setdefault((load, name), []).append(value)
    return found


def number(value, digits):
    return f"{value:,.{digits}f}"


def svg(title, unit, medians, spreads, digits):
    """Horizontal bars, one a side; the thin line is the span of the rounds."""
    sides = [side for side in SIDES if side in medians]
    top = max(max(spreads[side]) for side in sides) or 1
    width, left, bar, step = 640, 120, 22, 34
    height = 40 + step * len(sides)
    scale = (width - left - 110) / top
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="8" y="20" font-weight="bold" fill="#222222">{title} ({unit})</text>',
    ]
    for n, side in enumerate(sides):
        y = 34 + n * step
        length = medians[side] * scale
        low, high = (left + v * scale for v in (min(spreads[side]), max(spreads[side])))
        middle = y + bar / 2
        lines += [
            f'<text x="8" y="{middle + 5}" fill="#222222">{NAMES[side]}</text>',
            f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{bar}" fill="{COLOURS[side]}"/>',
            f'<line x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}" stroke="#222222"/>',
            f'<text x="{max(high, left + length) + 6:.1f}" y="{middle + 5}" fill="#222222">'
            f"{number(medians[side], digits)}</text>",
        ]
    return "\n".join(lines + ["</svg>", ""])


def machine():
    text = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", text)
    kilobytes = int(re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())[1])
    name = model[1] if model else platform.machine()
    cores = len(os.sched_getaffinity(0))
    return f"{name}, {cores} cores, {kilobytes / 2**20:.0f} GB of memory, Linux {platform.release()}"


def main():
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    about = dict(argument.split("=", 1) for argument in sys.argv[3:])
    found = rounds(folder)
    plots = out / "benchmarks"
    plots.mkdir(parents=True, exist_ok=True)
    table, pictures = [], []
    for load, name, title, unit, digits, more in ROWS:
        values = {side: found[side][load, name] for side in SIDES if (load, name) in found[side]}
        if not values:
            continue
        medians = {side: statistics.median(of) for side, of in values.items()}
        shown = [
            f"{number(medians[s], digits)} ({number(min(values[s]), digits)} to "
            f"{number(max(values[s]), digits)})" if s in medians else "" for s in SIDES
        ]
        arrow = "more" if more else "less"
        table.append(f"| {title} | {unit}, {arrow} is better | " + " | ".join(shown) + " |")
        picture = f"{load}-{name.replace('_', '-')}.svg"
        (plots / picture).write_text(svg(title, unit, medians, values, digits))
        pictures.append(f"![{title}](benchmarks/{picture})")
    page = f"""# Benchmarks

Written by `scripts/bench`; do not edit. Ottla, Apache Kafka and the floor ran by turns on one machine,
each round on an empty directory, client and broker sharing the cores. Numbers are medians of
{about["rounds"]} rounds, in brackets the least and the largest; {about["size"]} of the full amount of data.

- Machine: {machine()}
- Ottla {about["ottla"]}, built with Rust {about["rust"]}
- Apache Kafka {about["kafka"]}, with the JVM options of its own start script, default configuration
- The floor is `benches/floor.rs`: what no broker can avoid for these requests, and no broker
- What each load does, and what it does not say: [decision 4](decisions/0004-bench.md)

| What | Unit | {" | ".join(NAMES[side] for side in SIDES)} |
| --- | --- | --- | --- | --- |
""" + "\n".join(table) + "\n\n" + "\n\n".join(pictures) + "\n"
    (out / "benchmarks.md").write_text(page)
    print(f"bench: {out / 'benchmarks.md'}")


main()
