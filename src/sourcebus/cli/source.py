"""`sourcebus source …`: the places that documents come from."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sourcebus.cli.place import DataOption, JsonOption, opened
from sourcebus.cli.terminal import complain, say, say_json, say_table, visible
from sourcebus.errors import InvalidInput

if TYPE_CHECKING:
    from sourcebus.model import JsonObject, Quota

app = typer.Typer(help="Add, change and remove sources.", no_args_is_help=True)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The source's id.")]
ConfigArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Its configuration; a VALUE that is JSON is taken as such."),
]
RateOption = Annotated[str | None, typer.Option("--rate", help="Units per second, or 'unlimited'.")]
BurstOption = Annotated[float | None, typer.Option("--burst", help="Units that may go at once.")]
ConcurrencyOption = Annotated[int | None, typer.Option("--concurrency", help="Calls at the same time.")]
BucketOption = Annotated[str | None, typer.Option("--bucket", help="A quota shared with other sources.")]
WindowOption = Annotated[int | None, typer.Option("--window-ms", help="Dedup window in milliseconds.")]
PollOption = Annotated[
    float | None, typer.Option("--poll-interval-s", help="Most seconds between listings while nothing pushes.")
]
ReconcileOption = Annotated[
    float | None, typer.Option("--reconcile-interval-s", help="Seconds between complete listings beside webhooks.")
]
WeightOption = Annotated[float | None, typer.Option("--weight", help="Share of worker time (1).")]
SecretEnvOption = Annotated[
    str | None, typer.Option("--secret-env", metavar="VARIABLE", help="Read the secret from this variable.")
]
SecretFileOption = Annotated[Path | None, typer.Option("--secret-file", metavar="FILE", help="Read the secret from this file.")]


@app.command("add")
def add(
    id: IdArgument,
    connector: Annotated[str, typer.Argument(metavar="CONNECTOR", help="Its kind, such as filesystem.")],
    config: ConfigArgument = None,
    workspace: Annotated[str, typer.Option("--workspace", help="Which workspace it belongs to.")] = "default",
    rate: RateOption = None,
    burst: BurstOption = None,
    concurrency: ConcurrencyOption = None,
    bucket: BucketOption = None,
    window_ms: WindowOption = None,
    poll_interval_s: PollOption = None,
    reconcile_interval_s: ReconcileOption = None,
    weight: WeightOption = None,
    secret_env: SecretEnvOption = None,
    secret_file: SecretFileOption = None,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Add a source; its first listing begins at once.

    Example: sourcebus source add notes filesystem root=~/notes include='["*.md"]'
    """
    wanted: JsonObject = {"id": id, "connector": connector, "workspace": workspace, "config": _config(connector, config)}
    quota = _quota(rate, burst, concurrency, bucket)
    optional = {
        "quota": quota or None,
        "window_ms": window_ms,
        "poll_interval_s": poll_interval_s,
        "reconcile_interval_s": reconcile_interval_s,
        "weight": weight,
        "secret": _secret(secret_env, secret_file),
    }
    wanted |= {name: value for name, value in optional.items() if value is not None}
    with opened(data, inviting=True) as runtime:
        added = runtime.sources.add(runtime.sources.parse(wanted))
        shown = runtime.sources.show(added)
    if as_json:
        say_json(shown)
    else:
        say(f"added {visible(added.id)} ({visible(added.connector)}); follow it with: sourcebus status {visible(added.id)}")


@app.command("list")
def list_(
    workspace: Annotated[str | None, typer.Option("--workspace", help="Only of this workspace.")] = None,
    after: Annotated[str | None, typer.Option("--after", help="Ids after this one.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many.")] = 1000,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """List the sources, by id."""
    with opened(data) as runtime:
        found = runtime.catalog.sources(workspace=workspace, after=after, limit=limit)
        shown = [runtime.sources.show(source) for source in found]
    if as_json:
        say_json({"items": shown, "next": found[-1].id if len(found) == limit else None})
        return
    say_table(
        ["id", "connector", "workspace", "paused", "config"],
        [(s["id"], s["connector"], s["workspace"], "yes" if s.get("paused") else "", json.dumps(s["config"])) for s in shown],
    )
    if len(found) == limit:
        complain(f"there may be more: --after {visible(found[-1].id)}")


@app.command("show")
def show(
    id: IdArgument,
    hook: Annotated[bool, typer.Option("--hook", help="Also the address that its provider has to send webhooks to.")] = False,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Show how a source is set. Its secret is never shown; the address of its hook, which may be one too, only if asked for."""
    with opened(data) as runtime:
        source = runtime.catalog.source(id)
        shown = runtime.sources.show(source) | runtime.desk.staleness(id)
        if hook:
            shown["hook_url"] = runtime.sources.hook_url(source)
    if as_json:
        say_json(shown)
        return
    rows = [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in shown.items()]
    say_table(["field", "value"], rows)


@app.command("set")
def set_(
    id: IdArgument,
    config: ConfigArgument = None,
    rate: RateOption = None,
    burst: BurstOption = None,
    concurrency: ConcurrencyOption = None,
    bucket: BucketOption = None,
    window_ms: WindowOption = None,
    poll_interval_s: PollOption = None,
    reconcile_interval_s: ReconcileOption = None,
    weight: WeightOption = None,
    secret_env: SecretEnvOption = None,
    secret_file: SecretFileOption = None,
    new_hook: Annotated[
        bool, typer.Option("--new-hook", help="Give its unsigned hook a new address; the old one ends.")
    ] = False,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Change what is named and keep the rest; KEY=null takes a configuration key away."""
    quota = _quota(rate, burst, concurrency, bucket)
    fields: dict[str, Any] = {"window_ms": window_ms, "poll_interval_s": poll_interval_s, "weight": weight}
    fields["reconcile_interval_s"] = reconcile_interval_s
    fields["secret"] = _secret(secret_env, secret_file)
    fields = {name: value for name, value in fields.items() if value is not None}
    if not (fields or quota or config or new_hook):
        raise InvalidInput("source set", "nothing to change was named", "see sourcebus source set --help")
    with opened(data, inviting=True) as runtime:
        known = runtime.catalog.source(id)
        if quota:
            fields["quota"] = _merged(known.quota, quota)
        if config:
            merged = {**known.config, **_config(known.connector, config)}
            fields["config"] = {name: value for name, value in merged.items() if value is not None}
        if new_hook:
            runtime.sources.new_hook(id)
        shown = runtime.sources.show(runtime.sources.change(id, **fields))
    if as_json:
        say_json(shown)
    else:
        say(f"changed {visible(id)}")


@app.command("pause")
def pause(id: IdArgument, data: DataOption = None) -> None:
    """Stop working on a source; its changes are still collected."""
    with opened(data) as runtime:
        runtime.sources.pause(id)
    say(f"paused {visible(id)}")


@app.command("resume")
def resume(id: IdArgument, data: DataOption = None) -> None:
    """Go on with a paused source."""
    with opened(data, inviting=True) as runtime:
        runtime.sources.resume(id)
    say(f"resumed {visible(id)}")


@app.command("release")
def release(id: IdArgument, data: DataOption = None) -> None:
    """Let deletes that are held be applied: the source really did lose that much."""
    with opened(data, inviting=True) as runtime:
        count = runtime.sources.release(id)
    say(f"released {count} deletes of {visible(id)}")


@app.command("drop")
def drop(id: IdArgument, data: DataOption = None) -> None:
    """Drop deletes that are held: what the source does not list any more stays indexed."""
    with opened(data) as runtime:
        count = runtime.sources.drop(id)
    say(f"kept {count} objects of {visible(id)}")


@app.command("remove")
def remove(
    id: IdArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    data: DataOption = None,
) -> None:
    """Remove a source and everything indexed from it. The source itself is not touched."""
    with opened(data) as runtime:
        runtime.catalog.source(id)
        if not yes:
            if not sys.stdin.isatty():
                raise InvalidInput("--yes", "removing a source needs a yes, and nobody is there to ask", "add --yes")
            typer.confirm(f"Remove {visible(id)} and what is indexed from it?", abort=True)
        count = runtime.sources.remove(id)
    say(f"removed {visible(id)} and {count} objects")


def _config(connector: str, pairs: list[str] | None) -> JsonObject:
    config: JsonObject = {}
    for pair in pairs or []:
        key, equals, text = pair.partition("=")
        if not (key and equals):
            raise InvalidInput("KEY=VALUE", f"{pair!r} is not of this form", "for example root=/srv/notes")
        try:
            config[key] = json.loads(text)
        except ValueError:
            config[key] = text
    root = config.get("root")
    if connector == "filesystem" and isinstance(root, str):
        # The person means a path from here; workers run elsewhere.
        config["root"] = str(Path(root).expanduser().absolute())
    return config


def _quota(rate: str | None, burst: float | None, concurrency: int | None, bucket: str | None) -> JsonObject:
    quota: JsonObject = {"burst": burst, "concurrency": concurrency, "bucket": bucket}
    quota = {name: value for name, value in quota.items() if value is not None}
    if rate is not None:
        try:
            quota["rate"] = None if rate == "unlimited" else float(rate)
        except ValueError:
            raise InvalidInput("--rate", f"{rate!r} is not a number", "units per second, such as 2.5, or 'unlimited'") from None
    return quota


def _merged(known: Quota | None, change: JsonObject) -> JsonObject:
    return {**(asdict(known) if known else {}), **change}


def _secret(variable: str | None, file: Path | None) -> str | None:
    """The secret; never taken from the command line itself, where every user of the machine could read it."""
    if variable is not None:
        value = os.environ.get(variable)
        if not value:
            raise InvalidInput("--secret-env", f"the variable {variable} is not set", "export it first")
        return value
    if file is not None:
        try:
            return file.expanduser().read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput("--secret-file", f"cannot be read: {error}", "name a readable text file") from None
    return None
