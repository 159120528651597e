#!/usr/bin/env bash
# drain.sh ADMIN LISTENER SERVICE-ID [SECONDS]
#
# Takes an application behind a sidecar out of traffic, and loses no request: what
# an application's unit runs before it is stopped (ExecStop=). ADMIN is the
# sidecar's, IP:PORT or the path of its socket; LISTENER is the inbound one;
# SERVICE-ID is what Consul's agent knows the instance by. After SECONDS (30) it
# goes on with requests under way, and says so.
set -euo pipefail
admin=$1 listener=$2 service=$3 seconds=${4:-30}
ask() {
  case $admin in
  /*) curl -fsS --unix-socket "$admin" -X "$1" "http://envoy$2" ;;
  *) curl -fsS -X "$1" "http://$admin$2" ;;
  esac
}

# 1. The registry says so: every caller's proxy is sent the endpoint as draining
# and picks another one. Requests that are on their way still arrive.
"${CONSUL:-consul}" maint -enable -service "$service" -reason "stopping"
sleep 2

# 2. Who keeps a connection is told to leave it (Connection: close, GOAWAY). Only
# the inbound listener: the application calls others until it ends.
ask POST '/drain_listeners?inboundonly&graceful&skip_exit' >/dev/null

# 3. What is under way finishes.
under_way() {
  ask GET "/stats?filter=^(http|tcp)\\.$listener\\.downstream_(rq|cx)_active\$" |
    sed -n "s/^http\.$listener\.downstream_rq_active: //p; s/^tcp\.$listener\.downstream_cx_active: //p"
}
for _ in $(seq $((seconds * 10))); do
  [ "$(under_way)" = 0 ] && exit 0
  sleep 0.1
done
echo "after $seconds s there are still $(under_way) requests under way" >&2
