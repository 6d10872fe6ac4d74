#!/usr/bin/env bash
# pg_dump of schema and data, pg_restore of the schema through the same front door, psql of a dump.
set -u
export PGTZ=UTC
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# Names of the server and of its files are not a matter of the dump.
tidy() { sed -E '/^-- (Dumped|Started|Completed)/d; /^\\(un)?restrict /d; s#^pg_(dump|restore): .*(on socket|at "[^"]*", port).*#&#'; }
section() { echo "== $1"; }

psql -XAtq "$DSN" -c "INSERT INTO items (id, t, m) VALUES (1, 'one', 'ok'), (2, 'two', NULL)"
section "schema"
pg_dump -n public --schema-only "$DSN" 2>&1 | tidy
section "data of a home table"
pg_dump -t notes --data-only "$DSN" 2>&1 | tidy
section "data of a reference table"
pg_dump -t kinds --data-only --inserts "$DSN" 2>&1 | tidy
section "data of a distributed table"
pg_dump -t items --data-only "$DSN" 2>&1 | tidy | sort
section "drop and restore"
pg_dump -n public --schema-only -Fc -f "$folder/schema" "$DSN" 2>&1
pg_restore -l "$folder/schema" | grep -E 'TABLE|TYPE|CONSTRAINT' | sed -E 's/^[0-9]+; [0-9]+ [0-9]+ //' | sort
pg_restore -l "$folder/schema" | grep -v SCHEMA > "$folder/list"
psql -XAtq "$DSN" -c "DROP TABLE items; DROP TABLE kinds; DROP TABLE notes; DROP TYPE mood" 2>&1
pg_restore -L "$folder/list" -d "$DSN" "$folder/schema" 2>&1
psql -XAtq "$DSN" -c '\d items' -c '\d kinds' -c '\d notes' -c '\dT public.*' 2>&1
section "clean restore"
pg_restore --clean --if-exists -L "$folder/list" -d "$DSN" "$folder/schema" 2>&1
psql -XAtq "$DSN" -c "SELECT create_reference_table('kinds')" -c "SELECT create_distributed_table('items', 'id')" 2>&1
psql -XAtq "$DSN" -c "INSERT INTO items (id) SELECT g FROM generate_series(1, 9) g" -c "SELECT count(*) FROM items" 2>&1
section "single transaction"
pg_restore --clean --if-exists --single-transaction -L "$folder/list" -d "$DSN" "$folder/schema" 2>&1
psql -XAtq "$DSN" -c '\dt public.*' 2>&1
section "dump of everything"
pg_dump -n public "$DSN" > "$folder/all.sql" 2> "$folder/errors" || tidy < "$folder/errors"
psql -XAtq "$DSN" -c 'DROP TABLE items, kinds, notes; DROP TYPE mood' 2>&1
grep -v -E '(CREATE|ALTER|COMMENT ON) SCHEMA|FUNCTION public|^    (LANGUAGE|AS) |SELECT pg_catalog.set_config' "$folder/all.sql" | psql -XAtq "$DSN" 2>&1
psql -XAtq "$DSN" -c 'SELECT count(*) FROM items' -c 'SELECT count(*) FROM kinds' 2>&1
# What fails has been printed.
exit 0
