"""cloister job, budget: what runs, what was spent."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from appliance.core.errors import ConfigWrong
from tui.cli.face import Face, command
from tui.cli.privacy_lines import COMPOSED, charge_lines
from tui.cli.tables import WIDTH

app = typer.Typer(help="Jobs: what runs, how far it is, stop and resume.", no_args_is_help=True)
budget = typer.Typer(help="Privacy budgets of the datasets.", no_args_is_help=True)

JobId = Annotated[str, typer.Argument(help="A job's number; leading zeros may be left out.")]


@command(app, "list")
def list_(
    face: Face, limit: Annotated[int, typer.Option(help="How many, newest first.", min=1)] = 20
) -> None:
    """List jobs, newest first, and all that run."""
    rows: list[dict[str, Any]] = []
    running, more = face.session.older_jobs(limit)
    for job in [*face.session.jobs(limit), *running]:
        last = job.last
        share = last["done"] / last["total"] if last.get("total") else None
        rows.append(
            {
                "id": job.id,
                "kind": job.kind,
                "title": job.title,
                "state": job.state,
                "stage": last.get("stage"),
                "share": 1.0 if job.state == "done" else share,
                "who": job.who,
                "created": job.created,
            }
        )
    face.table(
        ("id", "job", "state", "stage", "done", "who", "started"),
        [
            (
                row["id"],
                row["title"],
                row["state"],
                row["stage"] or "-",
                "-" if row["share"] is None else f"{row['share']:.0%}",
                row["who"],
                row["created"][:16],
            )
            for row in rows
        ],
        "No jobs yet. See the whole chain: cloister demo",
        spare=("who", "stage", "started"),
    )
    for row in rows:
        if row["state"] == "died":
            face.say(f"{row['id']} died. Go on with: cloister job resume {row['id']}")
    if more:
        face.say(f"{more} more: cloister job list --limit {len(rows) + more}")
    face.result({"jobs": rows, "more": more})


@command(app)
def tail(
    face: Face,
    job_id: JobId,
    log: Annotated[
        bool, typer.Option("--log", help="Print the job's own output instead (for support).")
    ] = False,
) -> None:
    """Follow a job until it ends. Ctrl-C leaves; the job goes on."""
    from tui.cli.results import say_result
    from tui.endings import failure

    job = face.session.job(job_id)
    if log:
        path = job.folder / "log.txt"
        face.say(path.read_text(encoding="utf-8", errors="replace") if path.exists() else "No output.")
        face.result({"id": job.id, "log": str(path)})
        return
    face.say(f"{job.id} {job.title} ({job.state})")
    try:
        job = face.watch(job.id)
    except KeyboardInterrupt:
        face.say("")
        face.say(f"Job {job.id} goes on. Stop it with: cloister job stop {job.id}")
        return
    face.say(f"{job.id} {job.state}")
    if job.state in ("failed", "stopped", "died"):
        problem = failure(job)
        sys.stderr.write(f"error: {problem.message}\ntry: {problem.hint}\n")
    face.result({"id": job.id, "state": job.state, "end": job.end, "next": say_result(face, job)})


@command(app)
def stop(
    face: Face,
    job_ids: Annotated[
        list[str],
        typer.Argument(metavar="JOB_ID...", help="Jobs' numbers; leading zeros may be left out."),
    ],
) -> None:
    """Stop jobs. What they finished is kept; `job resume` goes on from there.

    None is stopped when one of them does not exist. One that does not run is told after the others were
    stopped.
    """
    wanted = list(dict.fromkeys(face.session.job(job_id).id for job_id in job_ids))
    rows, problem = [], None
    for job_id in wanted:
        try:
            job = face.session.stop_job(job_id)
        except ConfigWrong as found:
            problem = problem or found
            continue
        face.say(f"{job.id} {job.state}")
        rows.append({"id": job.id, "state": job.state})
    if problem is not None:
        raise problem
    face.result({**rows[0], "jobs": rows})


@command(app)
def resume(face: Face, job_id: JobId) -> None:
    """Run an ended job again from its last checkpoint, and follow it."""
    from tui.cli.results import say_result

    job = face.session.job(job_id)
    path = job.folder / "events.jsonl"
    old = path.stat().st_size if path.exists() else 0
    face.session.resume_job(job.id)
    job = face.follow(job.id, after=old)
    face.say(f"{job.id} {job.state}")
    told = {"id": job.id, "state": job.state, "result": job.end.get("result")}
    face.result(told | {"next": say_result(face, job)})


@command(budget, "show")
def budget_show(
    face: Face, name: Annotated[str | None, typer.Argument(help="One dataset; all when left out.")] = None
) -> None:
    """Show what was spent of each dataset's privacy budget, and by what."""
    from tui import session_privacy

    wanted = None if name is None else name.partition("@")[0]
    if name is not None and wanted not in face.session.budget_names():
        face.session.dataset(name)
        face.say(f"Nothing was spent: {wanted} was never trained on under differential privacy.")
        face.result({"datasets": []})
        return
    found = [row for row in face.session.budgets() if wanted in (None, row["name"])]
    for row in found:
        face.wrap(
            f"{row['name']}: epsilon {row['epsilon_spent']:.2f} of {row['epsilon_limit']:g} spent,"
            f" delta {row['delta']:.2g}, for each {row['unit']}",
            rest="  ",
        )
        row["events"] = session_privacy.charges(face.session, row["name"])
        for line in charge_lines(row["events"], WIDTH):
            face.say(line)
        if len(row["events"]) > 1:
            face.wrap(COMPOSED, "  ")
        if row["epsilon_spent"] >= row["epsilon_limit"]:
            face.wrap(f"Nothing more can be trained on {row['name']} under differential privacy.", "  ")
    if not found:
        face.say("No budget was used yet. A dataset gets one at its first private training run.")
    face.result({"datasets": found})


@command(budget, "export")
def budget_export(
    face: Face,
    dataset: Annotated[str, typer.Argument(help="Dataset.")],
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="A new text file.")],
) -> None:
    """Write what was spent of a dataset's budget, what it means, and the newest attack tests, to one file.

    Written to the audit log.
    """
    from tui import session_privacy

    path = session_privacy.export_privacy(face.session, dataset, to)
    face.say(f"The report is in {path}.")
    face.result({"path": str(path)})


@command(budget, "set")
def budget_set(
    face: Face,
    dataset: Annotated[str, typer.Argument(help="Dataset.")],
    epsilon: Annotated[float, typer.Option(help="Most epsilon that all runs on it may spend together.")],
) -> None:
    """Change a dataset's privacy budget. Written to the audit log; nothing spent is forgiven."""
    spent = face.session.set_budget(dataset, epsilon)
    face.wrap(f"{dataset}: all runs together may spend epsilon {epsilon:g}; {spent:.2f} is spent.", rest="  ")
    if spent >= epsilon:
        face.wrap(
            f"WARNING: {spent:.2f} is more than that or as much, and nothing spent is forgiven: nothing more"
            f" can be trained on {dataset} under differential privacy."
        )
    face.result({"name": dataset, "epsilon_limit": epsilon, "epsilon_spent": spent})
