-- TPC-B within one branch: every row that a transaction touches has the same bid, so with tables
-- distributed by bid all of it happens on one shard. Needs -D scale=N.
\set bid random(1, :scale)
\set aid random((:bid - 1) * 100000 + 1, :bid * 100000)
\set tid random((:bid - 1) * 10 + 1, :bid * 10)
\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE bid = :bid AND aid = :aid;
SELECT abalance FROM pgbench_accounts WHERE bid = :bid AND aid = :aid;
UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE bid = :bid AND tid = :tid;
UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = :bid;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (:tid, :bid, :aid, :delta, CURRENT_TIMESTAMP);
END;
