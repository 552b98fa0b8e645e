"""`npga capture check`: prints what is wrong with a capture and writes the overlay picture."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from npga.capture.check import CheckReport, check_capture
from npga.capture.config import CaptureCheckConfig
from npga.capture.findings import Finding, Severity
from npga.core.config import as_plain
from npga.core.errors import CaptureError
from npga.core.images import write_image
from npga.core.output import output_dir
from npga.core.progress import say

ORDER = [Severity.error, Severity.warning, Severity.note]


def run_check(config: CaptureCheckConfig) -> None:
    """Examine a capture; raises CaptureError at the end if anything makes it unusable."""
    out = Path(config.out).resolve()
    root = Path(config.capture).expanduser().resolve()
    if out == root or root in out.parents:
        raise CaptureError(
            f"out={config.out} lies inside the capture {root}, which must stay as it is.",
            "Give an out=... elsewhere.",
        )
    with output_dir(out, overwrite=config.overwrite, fingerprint=as_plain(config)) as folder:
        report = check_capture(
            root,
            config.participant or None,
            config.sequences,
            decode=config.decode,
            workers=max(1, config.workers),
        )
        ranked = sorted(report.findings, key=lambda finding: ORDER.index(finding.severity))
        entries = [asdict(finding) for finding in ranked]
        (folder / "findings.json").write_text(json.dumps(entries, indent=1))
        if report.overlay is not None:
            write_image(folder / "overlay.png", report.overlay)
    _print_findings(report, ranked)
    if report.overlay is not None:
        say(f"Overlay: {out / 'overlay.png'} (does the head stand where the cameras look?)")
    if report.errors:
        raise CaptureError(
            f"{root}, participant {report.capture.participant}, has {len(report.errors)} errors; "
            f"the first is {report.errors[0].where}: {report.errors[0].what}",
            f"Mend them one by one; {out / 'findings.json'} lists them all.",
        )


def _print_findings(report: CheckReport, ranked: list[Finding]) -> None:
    capture = report.capture
    say(
        f"{capture.layout.value} capture of {capture.participant}: {len(capture.rig)} cameras, "
        f"{len(capture.files)} sequences."
    )
    for finding in ranked:
        say(f"{finding.severity.value:8} {finding.where}: {finding.what}")
        say(f"{'':8}   -> {finding.todo}")
    counts = Counter(finding.severity for finding in ranked)
    total = ", ".join(f"{counts[severity]} {severity.value}s" for severity in ORDER)
    say(f"{total}." if ranked else "Nothing wrong was found.")
