# What the examples share. An example's run.sh sources it, starts what it needs,
# and says what is to be seen; it ends everything on its way out, unless KEEP=1.
#
# Ports are those of the documents, 10000 to 10999. PORTS="10000=23456 …" swaps
# them, in documents and commands alike: the tests run on ports that are free.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
example=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
export PATH="$root/bin:$root/.tools/bin:$PATH"
pids=()
finish() {
  local code=$?
  if [ "${KEEP:-}" = 1 ] && [ $code = 0 ]; then
    echo "KEEP=1: running until Ctrl-C; WELLSPRING_SERVER=$WELLSPRING_SERVER"
    wait
  fi
  [ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null || true
  wait 2>/dev/null || true
  [ $code = 0 ] || tail -n 20 "$work"/*.log >&2 || true
  rm -rf "$work"
  exit $code
}
trap finish EXIT
trap 'exit 130' INT TERM

# swap TEXT replaces the documents' ports.
swap() {
  local text=$1 pair
  for pair in ${PORTS:-}; do text=${text//:${pair%=*}/:${pair#*=}}; done
  printf '%s' "$text"
}

background() { # background NAME COMMAND…
  local name=$1
  shift
  "$@" >"$work/$name.log" 2>&1 &
  pids+=($!)
}

# until_ok COMMAND… waits up to 15 s.
until_ok() {
  local i
  for i in $(seq 150); do
    "$@" >/dev/null 2>&1 && return 0
    sleep 0.1
  done
  echo "never worked: $*" >&2
  "$@" >&2
  return 1
}

# control_plane FLAGS… starts wellspring serve on ports of its own choice.
control_plane() {
  background wellspring wellspring serve --data-dir "$work/data" --telemetry-listen 127.0.0.1:0 --xds-listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 "$@"
  until_ok test -s "$work/data/addresses.json"
  xds=$(sed -n 's/.*"xds": "\(.*\)".*/\1/p' "$work/data/addresses.json")
  telemetry=$(sed -n 's/.*"telemetry": "\(.*\)".*/\1/p' "$work/data/addresses.json")
  WELLSPRING_SERVER=$(sed -n 's/.*"admin": "\(.*\)".*/\1/p' "$work/data/addresses.json")
  export WELLSPRING_SERVER
  until_ok wellspring version
}

# backends NAME=IP:PORT… starts small servers.
backends() {
  [ -x "$root/bin/backend" ] || (cd "$root" && CGO_ENABLED=0 go build -o bin/backend ./examples/backend/run)
  local all
  all=$(swap "$*")
  # shellcheck disable=SC2086
  background backends "$root/bin/backend" $all
}

# proxy [NODE GROUP ADMIN] starts an Envoy, edge-1 of group edge; its admin is a port
# of the documents' range.
proxy() {
  local node=${1:-edge-1} group=${2:-edge} admin
  admin=$(swap "${3:-127.0.0.1:10990}")
  wellspring bootstrap --node-id "$node" --group "$group" --xds "$xds" --telemetry "$telemetry" --admin "$admin" --drain-time 20s >"$work/$node.yaml"
  background "$node" envoy -c "$work/$node.yaml" --concurrency 1 --use-dynamic-base-id --log-level warning --drain-time-s 20 --drain-strategy immediate
}

# run COMMAND… prints a command as the README has it, and runs it.
run() {
  echo "\$ $*"
  local args=() a
  for a in "$@"; do args+=("$(swap "$a")"); done
  (cd "$work/documents" && "${args[@]}")
}

# want TEXT COMMAND… repeats a command until its output has a text in it, and
# prints the last.
want() {
  local text=$1 i out
  shift
  echo "\$ $*"
  local args=() a
  for a in "$@"; do args+=("$(swap "$a")"); done
  for i in $(seq 150); do
    out=$(cd "$work/documents" && "${args[@]}" 2>&1) || true
    case $out in *"$text"*)
      echo "$out"
      return 0
      ;;
    esac
    sleep 0.1
  done
  printf '%s\n' "$out" "wanted: $text" >&2
  return 1
}

mkdir "$work/documents"
for f in "$example"/*.yaml; do swap "$(cat "$f")" >"$work/documents/$(basename "$f")"; done
