-- The tables of schema.sql as PostgreSQL has them. What is stored is sealed or hashed and can not be
-- compressed; trying costs a third of a write.

CREATE TABLE records (
    id         bytea  NOT NULL PRIMARY KEY,
    generation bigint NOT NULL,
    sealed     bytea  NOT NULL
);
ALTER TABLE records ALTER COLUMN sealed SET STORAGE EXTERNAL;

CREATE TABLE bucket_members (
    bucket  bigint NOT NULL PRIMARY KEY,
    members bytea  NOT NULL
);
ALTER TABLE bucket_members ALTER COLUMN members SET STORAGE EXTERNAL;

CREATE TABLE bucket_digests (
    bucket bigint NOT NULL PRIMARY KEY,
    digest bytea  NOT NULL,
    seq    bigint NOT NULL
) WITH (fillfactor = 80);

-- One row, written by every commit: most of its page is left for the row's next version.
CREATE TABLE head (
    one  bigint NOT NULL PRIMARY KEY CHECK (one = 1),
    seq  bigint NOT NULL,
    body bytea  NOT NULL,
    mac  bytea  NOT NULL
) WITH (fillfactor = 20);

CREATE TABLE log_entries (
    idx  bigint NOT NULL PRIMARY KEY,
    leaf bytea  NOT NULL
);

CREATE TABLE log_bodies (
    idx  bigint NOT NULL PRIMARY KEY,
    salt bytea  NOT NULL,
    body bytea  NOT NULL
);
ALTER TABLE log_bodies ALTER COLUMN body SET STORAGE EXTERNAL;

CREATE TABLE log_tiles (
    level bigint NOT NULL,
    idx   bigint NOT NULL,
    data  bytea  NOT NULL,
    PRIMARY KEY (level, idx)
);
ALTER TABLE log_tiles ALTER COLUMN data SET STORAGE EXTERNAL;
