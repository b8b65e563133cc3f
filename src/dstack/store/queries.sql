-- name: insert_run
INSERT INTO runs (id, name, active, version, submitted_at, finished_at, doc)
VALUES (:id, :name, :active, :version, :submitted_at, :finished_at, :doc);

-- name: update_run
UPDATE runs
SET active = :active, version = :version, finished_at = :finished_at, doc = :doc
WHERE id = :id AND version = :version - 1;

-- name: insert_history
INSERT INTO history (run_id, version, at, event) VALUES (:run_id, :version, :at, :event);

-- name: delete_run
DELETE FROM runs WHERE id = :id AND active = 0;

-- name: delete_history
DELETE FROM history WHERE run_id = :id;

-- name: run_by_id
SELECT seq, doc FROM runs WHERE id = :id;

-- name: run_by_name
SELECT seq, doc FROM runs WHERE name = :name ORDER BY active DESC, seq DESC LIMIT 1;

-- name: runs_active
SELECT seq, doc FROM runs WHERE active = 1 ORDER BY seq;

-- name: runs_all
SELECT seq, doc FROM runs ORDER BY seq;

-- name: run_latest_finished
SELECT seq, doc FROM runs WHERE active = 0 ORDER BY finished_at DESC LIMIT 1;

-- name: count_active
SELECT count(*) FROM runs WHERE active = 1;

-- name: names
SELECT DISTINCT name FROM runs WHERE name >= :prefix AND name < :end ORDER BY name LIMIT 500;

-- name: history
SELECT version, at, event FROM history WHERE run_id = :id ORDER BY version;
