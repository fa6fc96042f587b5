-- Version 1. See docs/data-model.md. STRICT: a value of the wrong type is refused, not kept.

CREATE TABLE credentials (
    realm       TEXT NOT NULL,
    username    TEXT NOT NULL,
    md5         BLOB NOT NULL CHECK (length(md5) = 16),
    sha256      BLOB NOT NULL CHECK (length(sha256) = 32),
    sha512_256  BLOB NOT NULL CHECK (length(sha512_256) = 32),
    PRIMARY KEY (realm, username)
) STRICT, WITHOUT ROWID;

-- The rows of one address-of-record lie together, as in a partition of Cassandra.
CREATE TABLE location (
    aor         BLOB NOT NULL,      -- unescaped user, '@', lower-case domain
    id          BLOB NOT NULL CHECK (length(id) = 16),
    contact     BLOB NOT NULL,
    path        BLOB NOT NULL,      -- each value after its length (4 bytes, big-endian)
    received    TEXT,               -- address:port
    q           INTEGER NOT NULL CHECK (q BETWEEN 0 AND 1000),
    call_id     BLOB NOT NULL,
    cseq        INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,   -- milliseconds since 1970, UTC
    updated_at  INTEGER NOT NULL,   -- the write's timestamp; of two writes the later one stands
    user_agent  BLOB NOT NULL,
    instance    BLOB,
    reg_id      INTEGER,
    direct      INTEGER NOT NULL CHECK (direct IN (0, 1)),
    PRIMARY KEY (aor, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX location_by_expiry ON location (expires_at);
