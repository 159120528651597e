#!/usr/bin/env bash
. "$(dirname "$0")/../lib.sh"
backends blue=127.0.0.1:10001 green=127.0.0.1:10002
control_plane
run wellspring apply -f shop.yaml
proxy
want "HTTP/1.1 /hello" curl -s http://127.0.0.1:10000/hello
want "blue" curl -s http://127.0.0.1:10000/
want "green" curl -s http://127.0.0.1:10000/
want "2/2" wellspring health
want "current" wellspring proxies
want "1/1" wellspring health catalog
