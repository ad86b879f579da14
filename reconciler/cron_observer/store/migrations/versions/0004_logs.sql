-- Logs of a million lines: how many lines of each level a chunk has, so that a filter pages without looking at them;
-- small chunks that are packed into larger ones; and what was dropped from the middle of a log beyond its cap.

ALTER TABLE log_chunks
    ADD COLUMN debugs INTEGER,
    ADD COLUMN infos INTEGER,
    ADD COLUMN warns INTEGER,
    ADD COLUMN errors INTEGER,
    DROP CONSTRAINT a_codec_is_known,
    ADD CONSTRAINT a_codec_is_known CHECK (codec IN ('zlib', 'lines')),
    -- It is compressed already.
    ALTER COLUMN data SET STORAGE EXTERNAL;

ALTER TABLE attempts
    ADD COLUMN log_stream BIGINT DEFAULT 0 NOT NULL,
    ADD COLUMN log_loose INTEGER DEFAULT 0 NOT NULL,
    ADD COLUMN log_packed INTEGER DEFAULT 0 NOT NULL,
    ADD COLUMN log_cut_from INTEGER,
    ADD COLUMN log_cut_to INTEGER,
    ADD COLUMN log_cut_bytes BIGINT DEFAULT 0 NOT NULL,
    ADD CONSTRAINT a_cut_has_two_ends CHECK ((log_cut_from IS NULL) = (log_cut_to IS NULL));

GRANT DELETE ON log_chunks TO cron_observer_api;
