#!/usr/bin/env bash
# drain.sh ADMIN LISTENER SERVICE-ID [SECONDS]
#
# Takes an application behind a sidecar out of traffic, and loses no request: what
# an application's unit runs before it is stopped (ExecStop=). ADMIN is the
# sidecar's, IP:PORT or the path of its socket; LISTENER is the inbound one;
# SERVICE-ID is what Consul's agent knows the instance by. It waits SECONDS (30) for
# requests under way. What does not answer is said, and the next step is done.
set -uo pipefail
usage="usage: drain.sh ADMIN LISTENER SERVICE-ID [SECONDS]"
admin=${1:?$usage} listener=${2:?$usage} service=${3:?$usage} seconds=${4:-30}
ask() {
  case $admin in
  /*) curl -fsS --max-time 2 --unix-socket "$admin" -X "$1" "http://envoy$2" ;;
  *) curl -fsS --max-time 2 -X "$1" "http://$admin$2" ;;
  esac
}

# 1. The registry says so: every caller's proxy is sent the endpoint as draining
# and picks another one. Requests that are on their way still arrive.
if timeout 10 "${CONSUL:-consul}" maint -enable -service "$service" -reason "stopping"; then
  sleep 2
else
  echo "drain.sh: Consul was not told; callers learn of it by their connections" >&2
fi

# 2. Who keeps a connection is told to leave it (Connection: close, GOAWAY). Only
# the inbound listener: the application calls others until it ends.
ask POST '/drain_listeners?inboundonly&graceful&skip_exit' >/dev/null

# 3. What is under way finishes: requests, or connections of a listener with tcp.
under_way() {
  ask GET "/stats?filter=^(http|tcp)\\.$listener\\.downstream_(rq|cx)_active\$" |
    awk '/^http.*_rq_active:/ || /^tcp.*_cx_active:/ {n += $2; found = 1} END {if (found) print n}'
}
end=$((SECONDS + seconds))
while :; do
  active=$(under_way)
  case $active in
  0) exit 0 ;;
  "")
    echo "drain.sh: the admin at $admin does not say what is under way on listener $listener" >&2
    exit 1
    ;;
  esac
  [ "$SECONDS" -lt "$end" ] || break
  sleep 0.1
done
echo "drain.sh: after $seconds s there are still $active under way" >&2
exit 1
