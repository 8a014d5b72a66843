# PostgreSQL from its wheel: its data directory is made whole or not at all, then the server runs in the foreground.
set -eu
data=/var/lib/easel/data
if [ ! -e "$data/PG_VERSION" ]; then
    rm -rf "$data.new"
    initdb -D "$data.new" -U easel_admin --auth=scram-sha-256 --pwfile=/var/lib/easel/keys/admin.password \
        --encoding=UTF8 --locale=C.UTF-8 --no-instructions
    echo "host all all all scram-sha-256" >> "$data.new/pg_hba.conf"
    echo "include '/opt/postgres/postgresql.conf'" >> "$data.new/postgresql.conf"
    mv "$data.new" "$data"
fi
exec postgres -D "$data"
