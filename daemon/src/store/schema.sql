-- The whole database. Every table but the caches is believed only after the ledger has
-- verified its rows; no column holds an account, an app or a factor in clear.

CREATE TABLE records (
    id         BLOB    NOT NULL PRIMARY KEY,
    generation INTEGER NOT NULL,
    sealed     BLOB    NOT NULL
) STRICT;

CREATE TABLE bucket_members (
    bucket  INTEGER NOT NULL PRIMARY KEY,
    members BLOB    NOT NULL
) STRICT;

CREATE TABLE bucket_digests (
    bucket INTEGER NOT NULL PRIMARY KEY,
    digest BLOB    NOT NULL,
    seq    INTEGER NOT NULL
) STRICT;

CREATE TABLE head (
    one  INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    seq  INTEGER NOT NULL,
    body BLOB    NOT NULL,
    mac  BLOB    NOT NULL
) STRICT;

CREATE TABLE log_entries (
    idx  INTEGER NOT NULL PRIMARY KEY,
    leaf BLOB    NOT NULL
) STRICT;

CREATE TABLE log_bodies (
    idx  INTEGER NOT NULL PRIMARY KEY,
    salt BLOB    NOT NULL,
    body BLOB    NOT NULL
) STRICT;

CREATE TABLE log_tiles (
    level INTEGER NOT NULL,
    idx   INTEGER NOT NULL,
    data  BLOB    NOT NULL,
    PRIMARY KEY (level, idx)
) STRICT;
