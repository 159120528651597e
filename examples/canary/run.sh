#!/usr/bin/env bash
. "$(dirname "$0")/../lib.sh"
backends stable=127.0.0.1:10021 next=127.0.0.1:10022
control_plane
run wellspring apply -f stable.yaml -m "all to stable"
proxy
want "stable" curl -s http://127.0.0.1:10020/
run wellspring diff -f canary.yaml
run wellspring apply -f canary.yaml -m "a fifth to next"
want "next" curl -s -H "x-canary: always" http://127.0.0.1:10020/
want "next" curl -s http://127.0.0.1:10020/
run wellspring history
run wellspring history 2
run wellspring restore 1 -m "next misbehaves"
want "stable" curl -s -H "x-canary: always" http://127.0.0.1:10020/
