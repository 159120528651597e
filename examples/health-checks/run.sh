#!/usr/bin/env bash
. "$(dirname "$0")/../lib.sh"
backends one=127.0.0.1:10041 two=127.0.0.1:10042
control_plane
run wellspring apply -f shop.yaml
proxy
want "HTTP/1.1" curl -s http://127.0.0.1:10040/
want "HTTP/2.0" curl -s http://127.0.0.1:10040/grpc
want "failed_active_health_check" wellspring health by-tcp
run curl -s -X POST "http://127.0.0.1:10041/_fault?health=503"
want "failed_active_health_check" wellspring health by-http
want "no healthy upstream" curl -s http://127.0.0.1:10040/grpc
run curl -s -X POST "http://127.0.0.1:10041/_fault?health="
want "HTTP/2.0" curl -s http://127.0.0.1:10040/grpc
