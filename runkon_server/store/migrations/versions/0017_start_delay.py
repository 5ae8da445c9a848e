"""`runkon.start_run()` names the delay that no run can have, as it does its other arguments."""

from __future__ import annotations

from alembic import op
from sqlalchemy import text

revision = "0017"
down_revision: str | None = "0016"
branch_labels: str | None = None
depends_on: str | None = None

# The limits are those of StartRun, and far from where microseconds leave 64 bits. They are compared
# as intervals first, since an infinite one has no number of seconds.
DELAY = """
CREATE FUNCTION runkon.delay_us_of(given interval) RETURNS bigint LANGUAGE plpgsql IMMUTABLE
SET search_path = {schema}, pg_temp AS $$
BEGIN
    IF given < interval '0' OR given > interval '90 days' THEN
        RAISE EXCEPTION 'start_delay must be 0 to 90 days, not %', given
            USING ERRCODE = 'invalid_parameter_value', DETAIL = 'INVALID_ARGUMENT';
    END IF;
    RETURN coalesce(extract(epoch FROM given) * 1000000, 0)::bigint;
END $$;
"""

# As in 0011, but for the delay.
START_RUN = """
CREATE OR REPLACE FUNCTION runkon.start_run(
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
        'start_delay_us', runkon.delay_us_of(start_run.start_delay),
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

# By default everybody may call a new function.
NOBODY = "REVOKE ALL ON FUNCTION runkon.delay_us_of(interval) FROM PUBLIC"


def upgrade() -> None:
    """Add the check, and have the function make it; who may call it may still."""
    bind = op.get_bind()
    schema = bind.execute(text("SELECT quote_ident(current_schema())")).scalar_one()
    for part in (DELAY, START_RUN):
        bind.exec_driver_sql(part.format(schema=schema), execution_options={"no_parameters": True})
    op.execute(NOBODY)
