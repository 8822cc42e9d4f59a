#!/bin/sh
# Fetches Debian's redis_exporter and Prometheus into .servers/monitoring, without installing or starting them.
set -eu
cd "$(dirname "$0")/.."
into=.servers/monitoring
[ -x "$into/usr/bin/prometheus" ] && [ -x "$into/usr/bin/prometheus-redis-exporter" ] && exit 0
mkdir -p "$into/debs"
(cd "$into/debs" && apt-get download -q prometheus prometheus-redis-exporter)
for package in "$into"/debs/*.deb; do
    dpkg -x "$package" "$into"
done
