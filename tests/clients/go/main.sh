#!/usr/bin/env bash
# Debian's packages of the libraries are used without modules.
set -eu
export GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE="$CLIENTS/go-cache"
go build -o "$CLIENTS/go-client" main.go
exec "$CLIENTS/go-client"
