-- Runs, what happened to them, and secrets. `doc` is the whole run as JSON; the other columns are
-- copies of what is searched for.
CREATE TABLE runs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    active INTEGER NOT NULL,
    version INTEGER NOT NULL,
    submitted_at REAL NOT NULL,
    finished_at REAL,
    doc TEXT NOT NULL
);
-- A name that an active run has cannot be taken.
CREATE UNIQUE INDEX runs_active_name ON runs (name) WHERE active = 1;
CREATE INDEX runs_by_name ON runs (name, seq);
CREATE INDEX runs_finished ON runs (finished_at) WHERE active = 0;

CREATE TABLE history (
    run_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    at REAL NOT NULL,
    event TEXT NOT NULL,
    PRIMARY KEY (run_id, version)
) WITHOUT ROWID;

CREATE TABLE secrets (
    name TEXT PRIMARY KEY,
    blob BLOB NOT NULL,
    updated_at REAL NOT NULL
);
