-- Roles for Runkon, for databases in which a replica should not own its tables.
--
--   runkon_migrator  owns the schema; `runkon-server migrate` connects as it
--   runkon_app       reads and writes rows, nothing else; `runkon-server serve` connects as it
--   runkon_ro        reads; for people, dashboards and backups by dump
--
-- Run once as an administrator, in Runkon's database and before its first migration:
--
--   psql -v ON_ERROR_STOP=1 -d runkon -f roles.sql
--
-- then give the roles passwords. Running it again does no harm, and repairs what was granted.

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['runkon_migrator', 'runkon_app', 'runkon_ro'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS', name);
        END IF;
    END LOOP;
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO runkon_migrator, runkon_app, runkon_ro',
                   current_database());
END
$$;

REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO runkon_migrator;
GRANT USAGE ON SCHEMA public TO runkon_app, runkon_ro;

-- For the functions that others may be allowed to call, such as runkon.start_run().
CREATE SCHEMA IF NOT EXISTS runkon AUTHORIZATION runkon_migrator;

-- What the migrator will make …
ALTER DEFAULT PRIVILEGES FOR ROLE runkon_migrator IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO runkon_app;
ALTER DEFAULT PRIVILEGES FOR ROLE runkon_migrator IN SCHEMA public
    GRANT USAGE, SELECT ON SEQUENCES TO runkon_app;
ALTER DEFAULT PRIVILEGES FOR ROLE runkon_migrator IN SCHEMA public
    GRANT SELECT ON TABLES TO runkon_ro;

-- … and what is there already.
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO runkon_app;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO runkon_app;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO runkon_ro;
