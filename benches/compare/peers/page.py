"""The table and the chart."""

# Title, the figure that is compared, its unit, and whether less is better.
ROWS = [
    ("1 stream, up", "up-1", "cpu_s_per_gb", "CPU s/GB"),
    ("1 stream, down", "down-1", "cpu_s_per_gb", "CPU s/GB"),
    ("8 streams, up", "up-8", "cpu_s_per_gb", "CPU s/GB"),
    ("8 streams, down", "down-8", "cpu_s_per_gb", "CPU s/GB"),
    ("request, 1 connection", "requests-1", "cpu_us", "CPU us"),
    ("request, 64 connections", "requests-64", "cpu_us", "CPU us"),
    ("request, 512 connections", "requests-512", "cpu_us", "CPU us"),
    ("requests/s, 64 connections", "requests-64", "per_s", "1/s"),
    ("requests/s, 512 connections", "requests-512", "per_s", "1/s"),
    ("p50, 1 connection", "requests-1", "p50_ms", "ms"),
    ("p50, 64 connections", "requests-64", "p50_ms", "ms"),
    ("p50, 512 connections", "requests-512", "p50_ms", "ms"),
    ("p99, 1 connection", "requests-1", "p99_ms", "ms"),
    ("p99, 64 connections", "requests-64", "p99_ms", "ms"),
    ("p99, 512 connections", "requests-512", "p99_ms", "ms"),
    ("new connection", "connections", "cpu_ms", "CPU ms"),
    ("idle connection", "idle", "kib_each", "KiB"),
]
# Columns of ratios: title, and which two are compared. Tuples are lists in the JSON.
OF_PEERS = [["ours / Envoy", "portcullis", "envoy"]]
OF_HBONE = [["HBONE / mTLS", "hbone", "portcullis"], ["without log", "hbone-quiet", "portcullis-quiet"],
            ["HBONE / Envoy's mTLS", "hbone", "envoy"], ["mTLS / Envoy's mTLS", "portcullis", "envoy"]]
COLOURS = {"floor": "#999999", "portcullis": "#1f6feb", "envoy": "#ac6199", "haproxy": "#4c9f70", "nginx": "#d4a72c"}


def markdown(report):
    names, ratios = list(report["results"]), report["ratios"]
    lines = [
        f"# Comparison{' of HBONE and mTLS' if ratios == OF_HBONE else ''}", "",
        "Written by `benches/compare/run`. Both proxies of a pair together, one thread each; median of the rounds, least and most",
        "in brackets, and the ratio to the floor (two plaintext relays). [BENCHMARKING.md](../../BENCHMARKING.md) says how to read it.",
        "", f"- {report['facts']}", f"- {report['date']}, {report['rounds']} interleaved rounds", "",
        f"| | {' | '.join([*names, *(title for title, *_ in ratios)])} |",
        "|---" * (len(names) + len(ratios) + 1) + "|",
    ]
    for title, key, what, unit in ROWS:
        cells = [_cell(report, name, key, what) for name in names]
        if not any(cells):
            continue
        for _, one, other in ratios:
            first, second = (_median(report, name, key, what) for name in (one, other))
            cells.append(f"{first / second:.2f}" if first and second else "")
        lines.append(f"| {title}, {unit} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _median(report, name, key, what):
    return report["results"].get(name, {}).get(key, {}).get(what, {}).get("median")


def _cell(report, name, key, what):
    median = _median(report, name, key, what)
    if median is None:
        return ""
    floor = _median(report, "floor", key, what)
    ratio = f", {median / floor:.2f}x" if floor and name != "floor" and key != "idle" else ""
    spread = report["results"][name][key][what]
    return f"{median:.3g} ({spread['least']:.3g}-{spread['most']:.3g}){ratio}"


def chart(report):
    """Processor time as a multiple of the floor's: the shorter the better."""
    rows = [row for row in ROWS if row[2].startswith("cpu")]
    names = [name for name in report["results"] if name != "floor"]
    bar, gap, left, width = 13, 16, 190, 760
    ratios = {(title, name): (_median(report, name, key, what) or 0) / _median(report, "floor", key, what)
              for title, key, what, _ in rows for name in names if _median(report, "floor", key, what)}
    # A new plaintext connection costs so little that its bars would hide all others.
    most = max(value for (title, _), value in ratios.items() if title != "new connection")
    height = len(rows) * (len(names) * bar + gap) + 60
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
           f'<rect width="{width}" height="{height}" fill="white"/>',
           f'<text x="{left}" y="18">CPU of both proxies, as a multiple of two plaintext relays (less is better)</text>']
    y = 34
    for title, *_ in rows:
        out.append(f'<text x="{left - 8}" y="{y + len(names) * bar / 2 + 4}" text-anchor="end">{title}</text>')
        for name in names:
            value = ratios.get((title, name), 0)
            length = min(value / most, 1.15) * (width - left - 150)
            out.append(f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{bar - 2}" fill="{COLOURS[name]}"/>')
            out.append(f'<text x="{left + length + 5:.1f}" y="{y + bar - 3}" font-size="10">{name} {value:.2f}</text>')
            y += bar
        y += gap
    return "\n".join([*out, "</svg>", ""])
