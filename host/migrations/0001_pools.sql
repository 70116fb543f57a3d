-- Understood by SQLite and PostgreSQL alike: TEXT and BIGINT only, times in milliseconds since 1970-01-01T00:00:00Z.

CREATE TABLE settings (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE pools (
    name TEXT PRIMARY KEY,
    hostnames TEXT NOT NULL,
    macs TEXT,
    nics BIGINT NOT NULL
);

CREATE TABLE entries (
    id TEXT PRIMARY KEY,
    pool TEXT NOT NULL REFERENCES pools (name),
    hostname TEXT NOT NULL,
    macs TEXT NOT NULL,
    machine_sid TEXT NOT NULL,
    state TEXT NOT NULL,
    since_ms BIGINT NOT NULL,
    -- Whose it is, or was before its quarantine.
    host TEXT,
    host_name TEXT,
    child TEXT,
    instance TEXT,
    cid BIGINT,
    -- The computer account; objectSid, kvno and dc are known once it was made.
    realm TEXT,
    workgroup TEXT,
    account TEXT,
    dn TEXT,
    account_sid TEXT,
    kvno BIGINT,
    dc TEXT,
    persistent BIGINT NOT NULL DEFAULT 0,
    -- The sealed password; none while the account is in use.
    password TEXT
);

-- What is retired is free to be made again.
CREATE UNIQUE INDEX entries_hostname ON entries (lower(hostname)) WHERE state <> 'retired';
CREATE UNIQUE INDEX entries_machine_sid ON entries (machine_sid) WHERE state <> 'retired';
CREATE UNIQUE INDEX entries_account ON entries (realm, account) WHERE state <> 'retired';
-- Nobody has two.
CREATE UNIQUE INDEX entries_instance ON entries (instance) WHERE state IN ('leased', 'handed', 'in_use');
-- In this order they are leased.
CREATE INDEX entries_order ON entries (pool, state, since_ms, hostname);

CREATE TABLE macs (
    mac TEXT PRIMARY KEY,
    entry TEXT NOT NULL REFERENCES entries (id) ON DELETE CASCADE
);
CREATE INDEX macs_entry ON macs (entry);

-- Survives the entries that it tells of.
CREATE TABLE history (
    entry TEXT NOT NULL,
    hostname TEXT NOT NULL,
    at_ms BIGINT NOT NULL,
    from_state TEXT,
    to_state TEXT NOT NULL,
    host TEXT NOT NULL,
    host_name TEXT NOT NULL,
    child TEXT,
    instance TEXT,
    reason TEXT NOT NULL
);
CREATE INDEX history_hostname ON history (lower(hostname), at_ms);
