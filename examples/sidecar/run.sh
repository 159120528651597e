#!/usr/bin/env bash
. "$(dirname "$0")/../lib.sh"
backends catalog=127.0.0.1:10041
CONSUL_HTTP_ADDR=$(swap 127.0.0.1:10045)
export CONSUL_HTTP_ADDR
background consul consul agent -dev -bind 127.0.0.1 -http-port "${CONSUL_HTTP_ADDR#*:}" -dns-port -1 -grpc-port -1 -grpc-tls-port -1 \
  -server-port "$(swap :10046 | tr -d :)" -serf-lan-port "$(swap :10047 | tr -d :)" -serf-wan-port -1
until_ok consul members
echo "sources: [{name: consul, import: all, consul: {address: '$CONSUL_HTTP_ADDR'}}]" >"$work/wellspring.yaml"
control_plane -c "$work/wellspring.yaml"
cp "$example/drain.sh" "$work/documents"
run wellspring apply -f sidecars.yaml

# start: the sidecar, the application, the registry
proxy catalog-1 catalog 127.0.0.1:10048
proxy shop-1 shop 127.0.0.1:10049
want "LIVE" curl -s http://127.0.0.1:10048/ready
want "HTTP/1.1 /" curl -s http://127.0.0.1:10042/
run consul services register -name catalog -id catalog-1 -address 127.0.0.1 -port "$(swap :10042 | tr -d :)"
want "HTTP/1.1 /" curl -s -x http://127.0.0.1:10043 http://catalog.svc.local/
want "healthy" wellspring health
want "404" curl -s -o /dev/null -w '%{http_code}\n' -x http://127.0.0.1:10043 http://catalog-app.svc.local/

# stop: the registry, the connections, what is under way; the application can go then
run ./drain.sh 127.0.0.1:10048 catalog-in catalog-1
want "maintenance: stopping" wellspring health catalog
run curl -s -X POST http://127.0.0.1:10048/quitquitquit
want "upstream connect error" curl -s -x http://127.0.0.1:10043 http://catalog.svc.local/

# and back
proxy catalog-1 catalog 127.0.0.1:10048
want "LIVE" curl -s http://127.0.0.1:10048/ready
run consul maint -disable -service catalog-1
want "HTTP/1.1 /" curl -s -x http://127.0.0.1:10043 http://catalog.svc.local/
