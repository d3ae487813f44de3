#!/bin/sh
# Run once, before the server listens to anybody: for each URL in a variable DATABASE_*, its role and its database, to
# which no other role can connect.
set -eu

for url in $(env | sed -n 's/^DATABASE_[A-Z]*=//p'); do
  credentials=${url#*://}
  credentials=${credentials%%@*}
  psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
    --set role="${credentials%%:*}" --set password="${credentials#*:}" --set database="${url##*/}" <<'SQL'
CREATE ROLE :"role" LOGIN PASSWORD :'password';
CREATE DATABASE :"database" OWNER :"role" TEMPLATE template0 ENCODING 'UTF8';
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
SQL
done
