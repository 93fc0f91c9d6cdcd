"""CocoIndex keeping a folder in a SQLite table: ``python -m benchmarks.peers.cocoindex_folder FOLDER DATABASE STATE``.

Live until it is told to end. It prints one line, the monotonic nanoseconds just before it was told to begin, so that
its imports do not count. One row per file: its path and its text, decoded by CocoIndex itself. The database is set to
the journal that ours uses (WAL, synchronous=NORMAL): CocoIndex's default would fsync every commit, and a reader would
hold up its writer.
"""

# CocoIndex is only there in the environment of the benchmarks:
# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false, reportUntypedFunctionDecorator=false
# and declares its type variables with a default that no row class fits:
# pyright: reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import cocoindex as coco
from cocoindex.connectors import localfs, sqlite

_DB = coco.ContextKey[sqlite.ManagedConnection]("benchmark_db")


@dataclass
class Row:
    path: str
    text: str


@coco.fn(memo=True)
async def index_file(file: localfs.File, root: Path, table: sqlite.TableTarget[Row]) -> None:
    path = file.file_path.resolve().relative_to(root).as_posix()
    table.declare_row(row=Row(path=path, text=await file.read_text()))


@coco.fn
async def main(root: Path) -> None:
    schema = await sqlite.TableSchema.from_class(Row, primary_key=["path"])
    table = await sqlite.mount_table_target(_DB, table_name="files", table_schema=schema)
    await coco.mount_each(index_file, localfs.walk_dir(root, live=True, recursive=True).items(), root, table)


def run(folder: Path, database: Path, state: Path) -> None:
    @coco.lifespan
    async def lifespan(builder: coco.EnvironmentBuilder) -> AsyncIterator[None]:
        builder.settings.db_path = state
        with sqlite.managed_connection(database, load_vec=False) as connection:
            with connection.readonly() as raw:
                raw.execute("PRAGMA journal_mode=WAL")
                raw.execute("PRAGMA synchronous=NORMAL")
            builder.provide(_DB, connection)
            yield

    app = coco.App(coco.AppConfig(name="benchmark"), main, root=folder)
    print(time.monotonic_ns(), flush=True)
    app.update_blocking(live=True)


if __name__ == "__main__":
    run(*(Path(argument).resolve() for argument in sys.argv[1:4]))
