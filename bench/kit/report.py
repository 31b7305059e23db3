"""Tables out of runs: for the terminal, `results/DATE.md`, `results/DATE.json` and the page README.md.

Main path: `markdown`, `write`.
"""

import json
import os
from statistics import StatisticsError, median

BEGIN, END = "<!-- begin of the latest results -->", "<!-- end of the latest results -->"
HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def number(value, decimals):
    return f"{value:.{decimals}f}"


def cell(runs, key, decimals):
    """The median, and the extremes where they differ."""
    values = [run[key] for run in runs if key in run]
    if not values:
        return ""
    if key in ("failed", "decisions_failed"):
        total = sum(values)
        kinds, of = {}, "decision_kinds" if key == "decisions_failed" else "kinds"
        for run in runs:
            for kind, count in run.get(of, {}).items():
                kinds[kind] = kinds.get(kind, 0) + count
        told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        share = f" of {sum(run['requests'] for run in runs)}" if key == "failed" else ""
        return f"{total}{share}" + (f" ({told})" if told and total else "")
    middle, low, high = (number(f(values), decimals) for f in (median, min, max))
    return middle if low == high else f"{middle} ({low} to {high})"


NAMES = {
    "failed": "failed",
    "gap_ms": "pause",
    "longest_ms": "longest request",
    "failing_ms": "last failure after",
    "decision_ms": "to the next decision",
    "decisions_failed": "decisions failed",
    "us_per_request": "CPU a request",
    "per_second": "rate",
    "core_percent": "of a core",
    "s_per_gib": "CPU a GiB",
    "gib_per_second": "throughput",
    "rss_mib": "resident",
    "guards_core_percent": "its 10 guards, of a core",
    "guards_own_mib": "its 10 guards, private memory",
    "p50_ms": "p50",
    "p99_ms": "p99",
}


def ratio(case, runs, system):
    ours = [run[case.ratio] for run in runs["hotwarm"] if case.ratio in run]
    theirs = [run[case.ratio] for run in runs[system] if case.ratio in run]
    if system == "hotwarm" or not ours or not theirs or not median(theirs):
        return ""
    return f"{median(ours) / median(theirs):.2f}x"


def verdicts(case, runs):
    """(met, text) for each limit."""
    result = []
    for what, measured, limit in case.limits:
        try:
            value = measured(runs)
        except (StatisticsError, KeyError):
            result.append((False, f"{what}: not measured, limit {limit:g}"))
            continue
        result.append((value <= limit, f"{what}: {value:.2f}, limit {limit:g}".replace(".00,", ",")))
    return result


def case_markdown(case, runs):
    problems = runs.get("problems", [])
    runs = {system: runs[system] for system in case.systems if runs.get(system)}
    shown = [figure for figure in case.show if any(figure[0] in run for system in runs.values() for run in system)]
    heads = ["system", "runs", *(NAMES[key] + (f", {unit}" if unit else "") for key, unit, _ in shown), "hotwarm over it"]
    lines = [f"### {case.key}: {case.title}", "", f"To reach: {case.reach}.", ""]
    lines += ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for system in case.systems:
        if system not in runs:
            continue
        cells = [cell(runs[system], key, decimals) for key, _, decimals in shown]
        lines.append("| " + " | ".join([system, str(len(runs[system])), *cells, ratio(case, runs, system)]) + " |")
    lines.append("")
    if case.note:
        lines += [case.note, ""]
    for met, text in verdicts(case, runs):
        lines.append(f"- {'reached' if met else '**NOT reached**'}: {text}")
    lines += [f"- a run without a result, made again: {problem}" for problem in problems]
    late = [run["late_ms"] for system in runs.values() for run in system if "late_ms" in run]
    if late:
        lines.append(f"- the load itself was late by {median(late):.1f} ms at most in the median run, {max(late):.1f} ms in the worst")
    return "\n".join(lines) + "\n"


def markdown(results):
    """`results`: machine, date, runs, and for each case its runs by system, with the `Case`."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        f"Measured {results['date']}: {machine['cores']} cores ({machine['cpu']}), {machine['memory_gib']} GiB, {machine['system']}, "
        f"Linux {machine['kernel']}. {versions}. Load average before the first case {machine['load_before']:.1f}. "
        f"{results['runs']} runs of each where nothing else is said; medians, and the extremes in brackets.",
        "",
    ]
    short = [
        (case.key, text) for case, runs in results["cases"] for met, text in verdicts(case, runs) if not met
    ]
    lines += ["Not reached:" if short else "Everything was reached.", ""]
    lines += [f"- {key}: {text}" for key, text in short] + ([""] if short else [])
    lines += [case_markdown(case, runs) for case, runs in results["cases"]]
    return "\n".join(lines)


def write(results):
    """Writes the results of a whole run; gives the paths."""
    folder = os.path.join(HERE, "results")
    os.makedirs(folder, exist_ok=True)
    text = markdown(results)
    base = os.path.join(folder, results["date"].split()[0])
    with open(f"{base}.md", "w", encoding="utf-8") as file:
        file.write(f"# Results of {results['date']}\n\n{text}")
    raw = {**results, "cases": {case.key: runs for case, runs in results["cases"]}}
    with open(f"{base}.json", "w", encoding="utf-8") as file:
        json.dump(raw, file, indent=1, sort_keys=True)
        file.write("\n")
    page = os.path.join(HERE, "README.md")
    with open(page, encoding="utf-8") as file:
        before, _, rest = file.read().partition(BEGIN)
    with open(page, "w", encoding="utf-8") as file:
        file.write(f"{before}{BEGIN}\n\n{text}\n{END}{rest.partition(END)[2]}")
    return [f"{base}.md", f"{base}.json", page]
