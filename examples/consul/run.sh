#!/usr/bin/env bash
. "$(dirname "$0")/../lib.sh"
backends one=127.0.0.1:10011 two=127.0.0.1:10012
CONSUL_HTTP_ADDR=$(swap 127.0.0.1:10013)
export CONSUL_HTTP_ADDR
background consul consul agent -dev -bind 127.0.0.1 -http-port "${CONSUL_HTTP_ADDR#*:}" -dns-port -1 -grpc-port -1 -grpc-tls-port -1 \
  -server-port "$(swap :10014 | tr -d :)" -serf-lan-port "$(swap :10015 | tr -d :)" -serf-wan-port -1
until_ok consul members
control_plane --consul "$CONSUL_HTTP_ADDR"
run wellspring apply -f web.yaml
proxy
want "no healthy upstream" curl -s http://127.0.0.1:10010/
want "knows no service" wellspring health
run consul services register -name web -id web-1 -tag v1 -address 127.0.0.1 -port "$(swap :10011 | tr -d :)"
want "none is selected by tags" wellspring health -o wide
run consul services register -name web -id web-2 -tag v2 -address 127.0.0.1 -port "$(swap :10012 | tr -d :)"
want "two" curl -s http://127.0.0.1:10010/
run consul maint -enable -service web-2 -reason upgrade
want "maintenance: upgrade" wellspring health web
want "fresh" wellspring sources
