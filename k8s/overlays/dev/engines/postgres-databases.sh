#!/bin/sh
# Run once, before the server listens to anybody: for each PASSWORD_<NAME>, the role polymart_<name> and its database,
# to which no other role can connect.
set -eu

env | sed -n 's/^PASSWORD_\([A-Z]*\)=\(.*\)/\1 \2/p' | while read -r name password; do
  psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
    --set owner="polymart_$(echo "$name" | tr '[:upper:]' '[:lower:]')" --set password="$password" <<'SQL'
CREATE ROLE :"owner" LOGIN PASSWORD :'password';
CREATE DATABASE :"owner" OWNER :"owner" TEMPLATE template0 ENCODING 'UTF8';
REVOKE ALL ON DATABASE :"owner" FROM PUBLIC;
SQL
done
