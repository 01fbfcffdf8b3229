"""The schema, as a list of steps. Append a step to change it; never edit one that has shipped."""

from __future__ import annotations

_1_FIRST = (
    """CREATE TABLE audit (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        entry TEXT NOT NULL,
        leaf TEXT NOT NULL
    )""",
    """CREATE TABLE jobs (
        id TEXT PRIMARY KEY,
        kind TEXT NOT NULL,
        title TEXT NOT NULL,
        who TEXT NOT NULL,
        created TEXT NOT NULL,
        pid INTEGER,
        pid_started REAL
    )""",
    """CREATE TABLE datasets (
        name TEXT NOT NULL,
        version INTEGER NOT NULL,
        created TEXT NOT NULL,
        job TEXT NOT NULL,
        sha256 TEXT NOT NULL,
        facts TEXT NOT NULL,
        PRIMARY KEY (name, version)
    )""",
    """CREATE TABLE models (
        name TEXT PRIMARY KEY,
        kind TEXT NOT NULL,
        created TEXT NOT NULL,
        job TEXT NOT NULL,
        parent TEXT,
        dataset TEXT,
        path TEXT NOT NULL,
        sha256 TEXT NOT NULL,
        size INTEGER NOT NULL,
        facts TEXT NOT NULL
    )""",
    """CREATE TABLE reports (
        model TEXT NOT NULL,
        dataset TEXT NOT NULL,
        created TEXT NOT NULL,
        job TEXT NOT NULL,
        passed INTEGER NOT NULL,
        path TEXT NOT NULL,
        PRIMARY KEY (model, dataset, job)
    )""",
    """CREATE TABLE budgets (
        dataset TEXT PRIMARY KEY,
        unit TEXT NOT NULL,
        epsilon_limit REAL NOT NULL,
        delta REAL NOT NULL
    )""",
    """CREATE TABLE ledger (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        dataset TEXT NOT NULL,
        job TEXT NOT NULL,
        created TEXT NOT NULL,
        noise_multiplier REAL NOT NULL,
        sample_rate REAL NOT NULL,
        steps INTEGER NOT NULL,
        facts TEXT NOT NULL
    )""",
    "CREATE INDEX ledger_dataset ON ledger (dataset, seq)",
    """CREATE TABLE api_keys (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        sha256 TEXT NOT NULL,
        created TEXT NOT NULL,
        revoked TEXT
    )""",
)

# How often a unit can enter one step: more than once where records are sampled.
_2_DRAWS = ("ALTER TABLE ledger ADD COLUMN draws INTEGER NOT NULL DEFAULT 1",)

# Plans, which charges and claims are checked against; and what was learnt without a charge.
_3_PLANS = (
    "CREATE TABLE plans (job TEXT PRIMARY KEY, plan TEXT NOT NULL)",
    """CREATE TABLE uncharged (
        dataset TEXT NOT NULL,
        job TEXT NOT NULL,
        kind TEXT NOT NULL,
        who TEXT NOT NULL,
        created TEXT NOT NULL,
        PRIMARY KEY (dataset, job, kind)
    )""",
)

# What a key may do (JSON lists; an empty list of models means all), what it has used, what people
# said of answers (their words are files, not here), and which model an alias leads to.
_4_SERVING = (
    "ALTER TABLE api_keys ADD COLUMN models TEXT NOT NULL DEFAULT '[]'",
    "ALTER TABLE api_keys ADD COLUMN collections TEXT NOT NULL DEFAULT '[]'",
    "ALTER TABLE api_keys ADD COLUMN expires TEXT",
    "ALTER TABLE api_keys ADD COLUMN requests_per_minute INTEGER",
    "ALTER TABLE api_keys ADD COLUMN tokens_per_day INTEGER",
    "ALTER TABLE api_keys ADD COLUMN open_requests INTEGER",
    """CREATE TABLE key_usage (
        key TEXT NOT NULL,
        day TEXT NOT NULL,
        requests INTEGER NOT NULL,
        prompt_tokens INTEGER NOT NULL,
        completion_tokens INTEGER NOT NULL,
        PRIMARY KEY (key, day)
    )""",
    """CREATE TABLE feedback (
        id TEXT PRIMARY KEY,
        created TEXT NOT NULL,
        key TEXT NOT NULL,
        model TEXT NOT NULL,
        answer TEXT NOT NULL,
        thumb INTEGER,
        ratings TEXT NOT NULL DEFAULT '{}',
        corrected INTEGER NOT NULL DEFAULT 0,
        state TEXT NOT NULL DEFAULT 'new'
    )""",
    """CREATE TABLE routes (
        name TEXT PRIMARY KEY,
        kind TEXT NOT NULL,
        created TEXT NOT NULL,
        who TEXT NOT NULL,
        facts TEXT NOT NULL
    )""",
    """CREATE TABLE route_counts (
        route TEXT NOT NULL,
        model TEXT NOT NULL,
        what TEXT NOT NULL,
        count INTEGER NOT NULL,
        PRIMARY KEY (route, model, what)
    )""",
)

# Reports on a part of the test split, or on another split: a look, never a verdict.
_5_PARTIAL = ("ALTER TABLE reports ADD COLUMN partial INTEGER NOT NULL DEFAULT 0",)

LOG_TRIGGERS = {
    f"{table}_no_{verb}": f"CREATE TRIGGER {table}_no_{verb} BEFORE {verb} ON {table}"
    " BEGIN SELECT RAISE(ABORT, 'the audit log is only appended to'); END"
    for table in ("audit", "audit_tree")
    for verb in ("UPDATE", "DELETE")
}
"""Taken away and put back when a damaged log is set aside (security/log/renewal.py)."""

# The audit log's Merkle tree (security/log): a row for each complete subtree; `older` entries were there
# before it and are taken in at the first use. Checkpoints that the site signed, and checkpoints that came
# from outside. What was asked of the endpoint: ids and counts, prompts as HMAC under the key of their day.
_6_LOG = (
    """CREATE TABLE audit_tree (
        level INTEGER NOT NULL,
        place INTEGER NOT NULL,
        hash BLOB NOT NULL,
        PRIMARY KEY (level, place)
    ) WITHOUT ROWID""",
    """CREATE TABLE audit_head (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        size INTEGER NOT NULL,
        older INTEGER NOT NULL
    )""",
    "INSERT INTO audit_head (one, size, older) SELECT 1, 0, COALESCE(MAX(seq), 0) FROM audit",
    *LOG_TRIGGERS.values(),
    """CREATE TABLE checkpoints (
        size INTEGER NOT NULL,
        root TEXT NOT NULL,
        created TEXT NOT NULL,
        note TEXT NOT NULL,
        PRIMARY KEY (size, root)
    )""",
    """CREATE TABLE witnesses (
        origin TEXT NOT NULL,
        size INTEGER NOT NULL,
        root TEXT NOT NULL,
        created TEXT NOT NULL,
        source TEXT NOT NULL,
        note TEXT NOT NULL,
        PRIMARY KEY (origin, size, root)
    )""",
    "CREATE TABLE request_days (day TEXT PRIMARY KEY, key BLOB NOT NULL)",
    """CREATE TABLE request_log (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        request TEXT NOT NULL,
        kind TEXT NOT NULL,
        at TEXT NOT NULL,
        key TEXT NOT NULL,
        model TEXT NOT NULL,
        route TEXT NOT NULL,
        prompt_tokens INTEGER NOT NULL,
        completion_tokens INTEGER NOT NULL,
        prompt TEXT NOT NULL
    )""",
)

# Whom this site trusts, up to which number it has taken each signer's bundles (a number never comes
# twice, nor a lower one), and what came in and went out. `trust_clock` has one row: the newest time that
# a trusted signer has vouched for, and the audit entry after which the machine's own times count.
_7_BUNDLES = (
    """CREATE TABLE trust_documents (
        version INTEGER PRIMARY KEY,
        document TEXT NOT NULL,
        taken TEXT NOT NULL,
        who TEXT NOT NULL
    )""",
    """CREATE TABLE trust_pins (
        key TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        card TEXT NOT NULL,
        kinds TEXT NOT NULL,
        compared_by TEXT NOT NULL,
        pinned TEXT NOT NULL,
        who TEXT NOT NULL,
        revoked TEXT
    )""",
    """CREATE TABLE trust_floors (
        signer TEXT NOT NULL,
        key_epoch INTEGER NOT NULL,
        line TEXT NOT NULL,
        seq INTEGER NOT NULL,
        PRIMARY KEY (signer, key_epoch, line)
    )""",
    """CREATE TABLE trust_clock (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        newest INTEGER NOT NULL,
        audit_seq INTEGER NOT NULL
    )""",
    "INSERT INTO trust_clock (id, newest, audit_seq) VALUES (1, 0, 0)",
    """CREATE TABLE bundles_in (
        digest TEXT PRIMARY KEY,
        signer TEXT NOT NULL,
        kind TEXT NOT NULL,
        line TEXT NOT NULL,
        seq INTEGER NOT NULL,
        key_epoch INTEGER NOT NULL,
        created INTEGER NOT NULL,
        expires INTEGER NOT NULL,
        state TEXT NOT NULL,
        taken TEXT NOT NULL,
        who TEXT NOT NULL,
        entered TEXT
    )""",
    """CREATE TABLE bundles_out (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        request TEXT NOT NULL,
        kind TEXT NOT NULL,
        line TEXT NOT NULL,
        recipients TEXT NOT NULL,
        approved_by TEXT NOT NULL,
        state TEXT NOT NULL,
        begun TEXT NOT NULL,
        who TEXT NOT NULL,
        digest TEXT
    )""",
)

# The signed lists of people, each with its warrant; their sealed keys and wrong passphrases; what two people
# are asked, what they answered, what it was used for; and who acted in an emergency.
_8_PEOPLE = (
    """CREATE TABLE rosters (
        version INTEGER PRIMARY KEY,
        content TEXT NOT NULL,
        warrant TEXT NOT NULL
    )""",
    """CREATE TABLE people (
        name TEXT PRIMARY KEY,
        sealed TEXT NOT NULL,
        failed INTEGER NOT NULL DEFAULT 0,
        locked_until TEXT
    )""",
    """CREATE TABLE requests (
        id TEXT PRIMARY KEY,
        request TEXT NOT NULL,
        payload TEXT NOT NULL DEFAULT '',
        used TEXT,
        used_for TEXT
    )""",
    """CREATE TABLE approvals (
        request TEXT NOT NULL,
        person TEXT NOT NULL,
        vote TEXT NOT NULL,
        signature TEXT NOT NULL,
        PRIMARY KEY (request, person)
    )""",
    """CREATE TABLE emergencies (
        id TEXT PRIMARY KEY,
        statement TEXT NOT NULL,
        signature TEXT NOT NULL,
        ended TEXT,
        review TEXT,
        review_signature TEXT
    )""",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    _1_FIRST,
    _2_DRAWS,
    _3_PLANS,
    _4_SERVING,
    _5_PARTIAL,
    _6_LOG,
    _7_BUNDLES,
    _8_PEOPLE,
)
