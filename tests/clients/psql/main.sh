#!/usr/bin/env bash
# psql: its \d family, \copy, \gexec, \gset, \crosstabview, errors, and the queries that it sends
# for completion.
set -u
here=$(dirname "$0")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export PGTZ=UTC PSQL_PAGER=cat
psql -X -v ON_ERROR_STOP=0 -v VERBOSITY=default -v folder="$folder" "$DSN" -f "$here/main.sql" 2>&1 |
  sed -E "s#^psql:[^ ]*: ##; s#$folder#FOLDER#g; s#backend with PID [0-9]+#backend#"
# What the Tab key asks, one statement a line (psql's tab-complete.c, recorded).
echo "== completion"
psql -XAt -v ON_ERROR_STOP=0 "$DSN" -f "$here/completion.sql" 2>&1 | sed -E 's#^psql:[^ ]*: ##'
