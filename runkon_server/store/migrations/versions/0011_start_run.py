"""`runkon.start_run()`: runs asked for inside a caller's own transaction."""

from __future__ import annotations

from alembic import op
from sqlalchemy import text

revision = "0011"
down_revision: str | None = "0010"
branch_labels: str | None = None
depends_on: str | None = None

# What is still to be created; the answer that the request id has is in `requests`, from the same
# transaction on.
INBOX = """
CREATE TABLE start_requests (
    namespace     text        COLLATE "C" NOT NULL,
    request_id    text        COLLATE "C" NOT NULL,
    run_id        text        COLLATE "C" NOT NULL,
    digest        text        COLLATE "C" NOT NULL,
    version       bigint      NOT NULL,
    payload       jsonb       NOT NULL,
    started_by    text        NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    claimed_until timestamptz,
    PRIMARY KEY (namespace, request_id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX start_requests_by_age ON start_requests (created_at);
"""

# `CREATE SCHEMA IF NOT EXISTS` asks for the right to create schemas even where there is one.
SCHEMA = """
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'runkon') THEN
        CREATE SCHEMA runkon;
    END IF;
END $$;
"""

# 48 bits of time and 80 of chance in Crockford's base 32, as `runtime.ambient.encode_ulid`.
NEW_ULID = """
CREATE FUNCTION runkon.new_ulid() RETURNS text LANGUAGE sql VOLATILE
SET search_path = {schema}, pg_temp AS $$
    SELECT string_agg(substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', digit + 1, 1), '' ORDER BY place)
    FROM (
        SELECT place, ((ms >> (45 - 5 * place)) & 31)::int AS digit
        FROM (SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS ms) AS clock,
             generate_series(0, 9) AS place
        UNION ALL
        SELECT 10 + place, get_byte(chance, place) & 31
        FROM (SELECT sha256(uuid_send(gen_random_uuid())) AS chance) AS dice,
             generate_series(0, 15) AS place
    ) AS digits
$$;
"""

CHECKS = """
CREATE FUNCTION runkon.texts_of(given jsonb, what text) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE
SET search_path = {schema}, pg_temp AS $$
DECLARE
    found jsonb;
BEGIN
    IF given IS NULL THEN
        RETURN '{{}}';
    END IF;
    IF jsonb_typeof(given) <> 'object' THEN
        RAISE EXCEPTION '% must be a JSON object', what
            USING ERRCODE = 'invalid_parameter_value', DETAIL = 'INVALID_ARGUMENT';
    END IF;
    SELECT coalesce(jsonb_object_agg(key, value), '{{}}') INTO found FROM jsonb_each_text(given);
    IF jsonb_path_exists(given, '$.* ? (@ == null)') THEN
        RAISE EXCEPTION '% must not hold null', what
            USING ERRCODE = 'invalid_parameter_value', DETAIL = 'INVALID_ARGUMENT';
    END IF;
    RETURN found;
END $$;

CREATE FUNCTION runkon.version_of(in_namespace text, workflow text) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path = {schema}, pg_temp AS $$
DECLARE
    wanted text[] := regexp_match(workflow, '^([^@]+)(?:@([1-9][0-9]{{0,17}}))?$');
    found  bigint;
BEGIN
    SELECT w.version INTO found FROM workflows w
    WHERE w.namespace = in_namespace AND w.name = wanted[1]
      AND (wanted[2] IS NULL OR w.version = wanted[2]::bigint)
    ORDER BY w.version DESC LIMIT 1;
    IF found IS NULL THEN
        RAISE EXCEPTION 'workflow "%" not found', workflow
            USING ERRCODE = 'undefined_object', DETAIL = 'WORKFLOW_NOT_FOUND';
    END IF;
    RETURN found;
END $$;
"""

# The unique key of `requests` is what makes one of two callers the first, whichever way they came.
# The digest is that of the text which PostgreSQL writes for the object; `api.digests` makes the
# same text of a StartRunRequest.
START_RUN = """
CREATE FUNCTION runkon.start_run(
    workflow        text,
    inputs          jsonb    DEFAULT '{{}}',
    request_id      text     DEFAULT NULL,
    key             text     DEFAULT NULL,
    conflict_policy text     DEFAULT 'fail',
    labels          jsonb    DEFAULT '{{}}',
    priority        integer  DEFAULT 0,
    dry_run         boolean  DEFAULT false,
    trigger         text     DEFAULT '',
    parent_run_id   text     DEFAULT '',
    start_delay     interval DEFAULT '0',
    fail_fast       boolean  DEFAULT true,
    namespace       text     DEFAULT 'default'
) RETURNS text LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = {schema}, pg_temp AS $$
#variable_conflict use_column
DECLARE
    new_id   text := runkon.new_ulid();
    space    text := coalesce(nullif(start_run.namespace, ''), 'default');
    asked    text := coalesce(nullif(start_run.request_id, ''), new_id);
    wanted   bigint := runkon.version_of(space, start_run.workflow);
    payload  jsonb := jsonb_build_object(
        'workflow', start_run.workflow,
        'inputs', runkon.texts_of(start_run.inputs, 'inputs'),
        'key', coalesce(start_run.key, ''),
        'conflict_policy', lower(start_run.conflict_policy),
        'labels', runkon.texts_of(start_run.labels, 'labels'),
        'priority', start_run.priority,
        'dry_run', start_run.dry_run,
        'trigger', coalesce(start_run.trigger, ''),
        'parent_run_id', coalesce(start_run.parent_run_id, ''),
        'start_delay_us',
            (extract(epoch FROM coalesce(start_run.start_delay, '0')) * 1000000)::bigint,
        'fail_fast', start_run.fail_fast
    );
    hash     text := 'sql:' || encode(sha256(convert_to(payload::text, 'UTF8')), 'hex');
    earlier  record;
BEGIN
    IF asked !~ '^[ -~]{{1,128}}$' OR space !~ '^[a-z0-9-]{{1,63}}$' THEN
        RAISE EXCEPTION 'request_id must be 1 to 128 printable ASCII characters,'
            ' namespace 1 to 63 of a-z 0-9 -'
            USING ERRCODE = 'invalid_parameter_value', DETAIL = 'INVALID_ARGUMENT';
    END IF;
    IF payload ->> 'conflict_policy' IS NULL
       OR payload ->> 'conflict_policy' NOT IN ('fail', 'use_existing', 'cancel_existing') THEN
        RAISE EXCEPTION 'conflict_policy must be fail, use_existing or cancel_existing'
            USING ERRCODE = 'invalid_parameter_value', DETAIL = 'INVALID_ARGUMENT';
    END IF;
    IF start_run.priority IS NULL OR start_run.dry_run IS NULL OR start_run.fail_fast IS NULL THEN
        RAISE EXCEPTION 'priority, dry_run and fail_fast must not be null'
            USING ERRCODE = 'invalid_parameter_value', DETAIL = 'INVALID_ARGUMENT';
    END IF;
    INSERT INTO requests (namespace, request_id, method, digest, response)
    VALUES (space, asked, 'StartRun', hash,
            jsonb_build_object('run_id', new_id, 'started', true, 'pending', true))
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        SELECT r.method, r.digest, r.response INTO earlier FROM requests r
        WHERE r.namespace = space AND r.request_id = asked;
        IF earlier.method IS DISTINCT FROM 'StartRun'
           OR hash NOT IN (earlier.digest, coalesce(earlier.response ->> 'payload', hash))
           OR (earlier.digest LIKE 'sql:%' AND earlier.digest <> hash) THEN
            RAISE EXCEPTION 'request id "%" was used before with another payload', asked
                USING ERRCODE = 'unique_violation', DETAIL = 'REQUEST_ID_REUSED';
        END IF;
        RETURN earlier.response ->> 'run_id';
    END IF;
    -- A hint for the replicas, who look anyway. It makes commits queue, so none for a backlog.
    IF NOT EXISTS (SELECT FROM start_requests) THEN
        PERFORM pg_notify('runkon', '{{"s":"sql","q":1}}');
    END IF;
    INSERT INTO start_requests (namespace, request_id, run_id, digest, version, payload, started_by)
    VALUES (space, asked, new_id, hash, wanted, payload, 'sql:' || session_user);
    RETURN new_id;
END $$;
"""

OUTCOME = """
CREATE FUNCTION runkon.start_outcome(request_id text, namespace text DEFAULT 'default')
RETURNS TABLE (state text, run_id text, reason text, message text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
    SELECT CASE WHEN r.response ? 'pending' THEN 'pending'
                WHEN r.response ? 'error' THEN 'refused'
                WHEN (r.response ->> 'started')::boolean THEN 'started'
                ELSE 'existing' END,
           r.response ->> 'run_id', r.response #>> '{{error,reason}}',
           r.response #>> '{{error,message}}'
    FROM requests r
    WHERE r.namespace = start_outcome.namespace AND r.request_id = start_outcome.request_id
      AND r.method = 'StartRun'
$$;
"""

# By default everybody may call a new function.
NOBODY = "REVOKE ALL ON ALL FUNCTIONS IN SCHEMA runkon FROM PUBLIC"


def upgrade() -> None:
    """Add the inbox and the functions, which look only at the schema that the tables are in."""
    bind = op.get_bind()
    schema = bind.execute(text("SELECT quote_ident(current_schema())")).scalar_one()
    for part in (INBOX, SCHEMA):
        op.execute(part)
    for part in (NEW_ULID, CHECKS, START_RUN, OUTCOME):
        bind.exec_driver_sql(part.format(schema=schema), execution_options={"no_parameters": True})
    op.execute(NOBODY)
