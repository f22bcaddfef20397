"""What is said about each kind of mistake. In the texts here ``#!`` marks the line to be named."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from broker.config import parse_config
from broker.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

PATH = Path("/nowhere/config.toml")

Case = tuple[str, str, str]
"""What is wrong, the key it is reported for, and parts of what is said, between bars."""


def table(header: str, *lines: str) -> Callable[..., str]:
    """A good table, to be changed: give a line in place of the one with its key, ``-key`` to
    leave that one out, ``#!`` to mark the header."""

    def changed(*changes: str) -> str:
        keys = {line.split(" = ")[0]: line for line in lines}
        for change in changes:
            if change.startswith("-"):
                del keys[change[1:]]
            elif change != "#!":
                keys[change.split(" = ")[0]] = change
        mark = " #!" if "#!" in changes else ""
        return "\n".join([header + mark, *keys.values()]) + "\n"

    return changed


broker = table("[broker]", 'issuer = "https://broker.example"')
redis = table("[redis]", 'url = "redis://127.0.0.1/0"')
vault = table(
    "[vault]",
    'address = "https://vault.example"',
    'auth = "token_file"',
    f'token_file = "{Path(__file__).as_posix()}"',
)
issuer = table(
    "[[identity.issuers]]",
    'name = "ci"',
    'issuer = "https://ci.example"',
    'audience = "broker"',
    'jwks_url = "https://ci.example/jwks"',
)
principal = table(
    "[[principals]]",
    'name = "agent-1"',
    'role = "agent"',
    'owner = "team@example.com"',
    'identity = { issuer = "ci", subject = "agent/1" }',
)
database = table(
    "[[capabilities]]",
    'name = "orders"',
    'power = "read"',
    'backend = "vault"',
    'path = "database/creds/orders"',
)
token = table(
    "[[capabilities]]",
    'name = "comment"',
    'power = "operate"',
    'backend = "token"',
    'resource = "https://tickets.example"',
)
RS = 'role = "resource_server"'

SECTIONS: list[Case] = [
    ("[tsks] #!", "tsks", 'unknown section | did you mean "tasks"?'),
    ("[zzzzz] #!", "zzzzz", "unknown section | allowed here: broker, redis, vault, policy, "),
    ("[tasks]\nmaxttl = 1 #!", "tasks.maxttl", 'unknown key | did you mean "max_ttl"?'),
    ('[tasks]\n"odd key" = 1 #!', 'tasks."odd key"', "unknown key | allowed here: max_ttl, def"),
    ('[tasks]\nmax_depth = "5" #!', "tasks.max_depth", "must be an integer, not a string"),
    ("[tasks]\nmax_depth = true #!", "tasks.max_depth", "must be an integer, not a boolean"),
    ("[tasks]\nmax_depth = 0 #!", "tasks.max_depth", "must be from 1 to 32"),
    ("[tasks]\nmax_ttl = 90 #!", "tasks.max_ttl", "in quotes, not an integer | write a number and"),
    ('[tasks]\nmax_ttl = "a day" #!', "tasks.max_ttl", "'a day' is not a duration: write"),
    (f'[tasks]\nmax_ttl = "{"9" * 90}" #!', "tasks.max_ttl", "9…' is not a duration"),
    ('[tasks]\nmax_ttl = "0s" #!', "tasks.max_ttl", "'0s' is out of range"),
    ('[tasks]\ndefault_ttl = "25h" #!', "tasks.default_ttl", "is 1d1h, longer than max_ttl, 1d"),
    ('[tasks] #!\nmax_ttl = "1m"', "tasks.default_ttl", "is 15m, longer than max_ttl, 1m"),
    ('[revocation]\nbackoff = "1m" #!', "revocation.backoff", "longer than max_backoff, 30s"),
    ("[retention]\ntasks = 1979-05-27 #!", "retention.tasks", "not a date or time"),
    ('[policy]\ndir = "nope" #!', "policy.dir", "there is no folder /nowhere/nope | relative"),
    ('[policy]\ndir = "/dev/null" #!', "policy.dir", "/dev/null is not a folder"),
    ("[[policy]] #!", "policy", "must be a table, not an array | write [policy] on a line"),
    (
        '[identity]\nissuers = ["x"] #!',
        "identity.issuers[0]",
        "not a string | [[identity.issuers]]",
    ),
    ("[principals] #!", "principals", "must be an array, not a table | as [[principals]]"),
]

BROKERS: list[Case] = [
    (broker("-issuer", "#!"), "issuer", 'is missing | add issuer = "https://broker.example.com"'),
    (broker('isuer = "x" #!'), "isuer", 'unknown key | did you mean "issuer"?'),
    *(
        (broker(f'issuer = "{url}" #!'), "issuer", words)
        for url, words in [
            ("broker.example", 'is not an http or https URL | such as "https://broker'),
            ("ftp://b.example", "is not an http or https URL"),
            ("https://b.example:port", "is not an http or https URL"),
            ("https://[::1", "is not an http or https URL"),
            ("https://b.exam\\nple", "is not an http or https URL"),
            ("https://-b-", "has a host that is no host name"),
            ("https://b.example/", "must not end with a slash"),
            ("https://b.example?", "must not hold a query or a fragment"),
            ("https://b.example#x", "must not hold a query or a fragment"),
            ("https://u:hunter2@b.example", "must not hold a user name or password"),
            ("http://b.example", "uses http | use https; http is for 127.0.0.1"),
        ]
    ),
    *(
        (broker(f'listen = "{address}" #!'), "listen", "is not an address | write host:port, such")
        for address in ["8700", ":8700", "::1:8700", "[x]:8700", "[:::]:8700", "h:65536", "h:0"]
    ),
    (broker('state_dir = "/dev/null" #!'), "state_dir", "'/dev/null' is not a folder"),
    (broker('state_dir = "" #!'), "state_dir", "is empty"),
    (broker("state_dir = 1 #!"), "state_dir", "must be a path in quotes, not an integer"),
    (broker('token_ttl = "25h" #!'), "token_ttl", '1d1h is too long | write "24h" or less'),
    (broker('token_ttl = "500ms" #!'), "token_ttl", "500ms is not a whole number of seconds"),
    (broker('max_body = "64KB" #!'), "max_body", 'is not a size | write "64KiB", "1MiB"'),
    (broker("max_body = 64.5 #!"), "max_body", "is not a size"),
    (broker("max_body = 1 #!"), "max_body", "must be from 1024 to"),
    (broker('log_format = "jsno" #!'), "log_format", 'mean "json"? (one of: text, json)'),
    (broker("log_format = [] #!"), "log_format", "must be a string, not an array | one of: text"),
]

REDISES: list[Case] = [
    (redis("-url", "#!"), "url", 'is missing | add url = "redis://127.0.0.1:6379/0"'),
    *(
        (redis(f'url = "{url}" #!'), "url", words)
        for url, words in [
            ("redis://:hunter2@r.example", "put the password into a file | password_file"),
            ("redis://:hunter2#@r.example", "put the password into a file | password_file"),
            ("unix:///s.sock?password=hunter2", "put the password into a file | password_file"),
            ("redis://r.example?p%61ssword=hunter2", "put the password into | password_file"),
            ("redis://user@r.example", "the user name goes into username"),
            ("http://r.example", 'is not a Redis URL | such as "rediss://'),
            ("redis+sentinel://s1,s2", "is not a Redis URL"),
            ("redis+sentinel://s1,,s2/orders", "is not a Redis URL"),
            ("redis+cluster://n1,n2/1", "is not a Redis URL"),
            ("redis+cluster://n1,n2?db=1", "names a database, and a cluster has only one"),
            ("redis+proxy://n1", "is not a Redis URL"),
            ("redis://a,b", "is not a Redis URL"),
            ("redis:///0", "is not a Redis URL"),
            ("redis://[::1", "is not a Redis URL"),
            ("unix:/s.sock", "is not a Redis URL"),
            ("redis://r.example/zero", "is not a Redis URL"),
            ("redis://r.example?decode_responses=1", "'decode_responses' | allowed here: db, "),
        ]
    ),
    (redis('password = "hunter2" #!'), "password", 'unknown key | mean "password_file"?'),
    (redis("password_file = ['hunter2'] #!"), "password_file", "a path in quotes, not an array"),
    (redis('password_file = "pw" #!'), "password_file", "no file /nowhere/pw | relative paths are"),
    (redis("shards = 257 #!"), "shards", "must be from 1 to 256"),
    (redis('allow_data_loss = "yes" #!'), "allow_data_loss", "must be true or false, not a string"),
]

VAULTS: list[Case] = [
    (vault("-auth", "-token_file", "#!"), "auth", 'is missing | add auth = "approle"'),
    (vault('auth = "aprole" #!'), "auth", '"approle"? (one of: approle, jwt, kubernetes, token_f'),
    (vault("-token_file", "#!"), "token_file", 'with auth = "token_file" | add token_file = '),
    (vault('role = "x" #!'), "role", 'no use | it goes with auth = "jwt" or "kubernetes"'),
    (vault('auth_mount = "x" #!'), "auth_mount", 'has no use with auth = "token_file" | remove'),
    (vault('ca_file = "/" #!'), "ca_file", "/ is not a file"),
    (vault(f'ca_file = "{"x" * 300}" #!'), "ca_file", "xxx"),
    (vault('ca_file = "\\u001b[31m" #!'), "ca_file", "\\x1b[31m"),
    (vault('policy_prefix = "a b" #!'), "policy_prefix", "can't be used in a Vault path"),
    (vault('address = "http://v.example" #!'), "address", "http | set allow_plaintext = true"),
    (vault('address = "https://v.example/" #!'), "address", "must not end with a slash"),
    (vault("issue_concurrency = 0 #!"), "issue_concurrency", "must be from 1 to 1000"),
]

SECOND = issuer('name = "ci-2"', 'issuer = "https://ci-2.example"')
ISSUERS: list[Case] = [
    (issuer('algorithms = ["HS256"] #!'), "[0].algorithms[0]", 'mean "RS256"? (one of: ES256,'),
    (issuer("algorithms = [] #!"), "[0].algorithms", "names no algorithm"),
    (issuer("-jwks_url", "#!"), "[0].discovery", "needs exactly one of jwks_url, jwks_file"),
    (issuer("discovery = true #!"), "[0].discovery", "needs exactly one of jwks_url, jwks_file"),
    (issuer('jwks_url = "http://x.example" #!'), "[0].jwks_url", "uses http"),
    (issuer('jwks_file = "x" #!', "-jwks_url"), "[0].jwks_file", "there is no file /nowhere/x"),
    (
        issuer('issuer = "http://x.example"', "-jwks_url", "discovery = true #!"),
        "[0].discovery",
        "would fetch keys from an http URL | use an https issuer",
    ),
    (issuer('issuer = "x" #!'), "[0].issuer", "is not an http or https URL"),
    (issuer('issuer = "https://broker.example" #!'), "[0].issuer", "is the broker's own issuer"),
    (issuer('leeway = "6m" #!'), "[0].leeway", 'write "5m" or less'),
    (issuer('refresh = "2d" #!'), "[0].refresh", "longer than max_stale"),
    (
        issuer() + issuer('name = "ci" #!', 'issuer = "https://x.example"'),
        "[1].name",
        "identity.issuers[0] has the same name | each of them needs its own",
    ),
    (
        issuer() + issuer('name = "ci-2"', 'issuer = "https://ci.example" #!'),
        "[1].issuer",
        "identity.issuers[0] has the same issuer",
    ),
]

PRINCIPALS: list[Case] = [
    (principal("-owner", "#!"), "[0].owner", "no owner, no issuance | add owner ="),
    (principal('owner = " " #!'), "[0].owner", "no owner, no issuance | add owner ="),
    (principal('role = "agnet" #!'), "[0].role", 'mean "agent"? (one of: orchestrator, agent, '),
    (principal('name = "Agent" #!'), "[0].name", "'Agent' is not a name | use 1 to 64 of a-z"),
    (principal('name = "a\\n" #!'), "[0].name", r"'a\n' is not a name"),
    (principal('capabilities = ["coment"] #!'), "[0].capabilities[0]", 'mean "comment"?'),
    (principal('capabilities = ["zz"] #!'), "[0].capabilities[0]", "no capability 'zz' | comment"),
    (principal('capabilities = [ #!\n"zz"]'), "[0].capabilities[0]", "names of [[capabilities]]:"),
    (principal('identity = "ci" #!'), "[0].identity", "must be a table, not a string"),
    (principal("-identity", "#!"), "[0].identity", 'add identity = { issuer = "ci", subject ='),
    (
        principal('identity = { issuer = "cii", subject = "x" } #!'),
        "[0].identity.issuer",
        "there is no issuer 'cii' | did you mean \"ci\"?",
    ),
    (
        principal("-identity", 'identity.issuer = "ci"', 'identity.subject = "" #!'),
        "[0].identity.subject",
        "is not a rule",
    ),
    (
        principal("-identity") + '[principals.identity] #!\nissuer = "ci"\n',
        "[0].identity.subject",
        'is missing | add subject = "agent/report-writer"',
    ),
    (principal('resource = "urn:x" #!'), "[0].resource", 'it goes with role = "resource_server"'),
    (principal(RS, "#!"), "[0].resource", 'is needed with role = "resource_server" | add resource'),
    (principal(RS, 'resource = "x" #!'), "[0].resource", "is not an absolute URI"),
    (principal(RS, 'resource = "urn:x#y" #!'), "[0].resource", "is not an absolute URI"),
    (
        principal(RS, 'resource = "https://broker.example" #!'),
        "[0].resource",
        "is the broker's own issuer URL",
    ),
    (
        principal(RS, 'resource = "urn:x"', 'capabilities = ["comment"] #!'),
        "[0].capabilities",
        'has no use with role = "resource_server" | remove it: it goes with role = "agent"',
    ),
    (
        principal()
        + principal('name = "b"', 'identity = { issuer = "ci", subject = "agent/1" } #!'),
        "[1].identity.subject",
        "principals[0] has the same identity.subject and identity.issuer",
    ),
    (
        principal(RS, 'resource = "urn:x"')
        + principal(
            RS,
            'name = "b"',
            'identity = { issuer = "ci", subject = "2" }',
            'resource = "urn:x" #!',
        ),
        "[1].resource",
        "principals[0] has the same resource",
    ),
]

CAPABILITIES: list[Case] = [
    (database("-path", "#!"), "path", 'is needed with backend = "vault" | add path = "database/'),
    (token("-resource", "#!"), "resource", 'is needed with backend = "token"'),
    (token('backend = "aws" #!'), "backend", "'aws' is not known here | one of: vault, token"),
    (token('power = "oprate" #!'), "power", 'did you mean "operate"?'),
    (token('path = "database/x" #!'), "path", 'no use | it goes with backend = "vault"'),
    (token('ttl = "16m" #!'), "ttl", "is 16m, longer than max_ttl, 15m"),
    (token('effects = ["orders"] #!'), "effects[0]", 'write verb:object, such as "reads:orders"'),
    (token('effects = "reads:orders" #!'), "effects", "must be an array, not a string"),
    (token('revocability = "maybe" #!'), "revocability", "one of: instant, ttl_only, never"),
    (database('renewable_for = "14m" #!'), "renewable_for", "is 14m, shorter than max_ttl, 15m"),
    (token('renewable_for = "1h" #!'), "renewable_for", 'it goes with backend = "vault"'),
    (token("max_live = 0 #!"), "max_live", "must be from 1 to"),
    *(
        (database(f'path = "{path}" #!'), "path", "is not a path of a secrets engine | such as")
        for path in ["/db/x", "db/../sys/x", "db/./x", "db//x", "db/x/", "db/x y", "db/x\\n", ""]
    ),
    *(
        (database(f'path = "{path}" #!'), "path", "is a path of Vault's own")
        for path in ["sys/policies/acl/x", "auth/token/create", "identity/entity", "cubbyhole/x"]
    ),
    *(
        (database(f'rotate = "{path}" #!'), "rotate", said)
        for path, said in [
            ("db/../sys/rotate-root/x", "is not a path of a secrets engine"),
            ("db/rotate-root/+", "is not a path of a secrets engine"),
            ("db/rotate-root/*", "is not a path of a secrets engine"),
            ("sys/rotate-root/x", "is a path of Vault's own"),
            ("auth/jwt/rotate-root", "is a path of Vault's own"),
            ("database/config/orders", "doesn't rotate anything | name a rotate-root"),
            ("database/creds/orders-read", "doesn't rotate anything"),
            ("database/rotate-roots/orders", "doesn't rotate anything"),
            ("rotate-root/orders", "doesn't rotate anything"),
        ]
    ),
    (token('rotate = "db/rotate-root/x" #!'), "rotate", 'it goes with backend = "vault"'),
    (token('krl_file = "a.krl" #!'), "krl_file", 'it goes with backend = "vault"'),
    (
        database('path = "ssh/sign/x"', 'krl_file = "/" #!'),
        "krl_file",
        "is not a file | it may not exist yet",
    ),
    *(
        (database(f'dsn = "{dsn}" #!'), "dsn", "the placeholders {username} and {password}")
        for dsn in [
            "postgresql://user:hunter2@db",
            "postgresql://{username}:{password}@db/{database}",
            "postgresql://{username}:{password!r}@db",
            "postgresql://{username.__class__}:{password}@db",
            "postgresql://{{username}}:{password}@db",
            "postgresql://{username}:{password}@db/}",
        ]
    ),
]

ENGINES: list[tuple[str, str]] = [
    (database('path = "pki/root/generate"', "#!"), "'pki' gives no credential at | vault.md"),
    (
        database('path = "ssh/sign/x"', 'parameters = { ttl = "9h" }', "#!"),
        "'ttl' is not a parameter",
    ),
    (database('krl_file = "a.krl"', "#!"), "krl_file: has no use here | paths of engine ssh"),
    (
        database('path = "kv/data/x"', 'revocability = "ttl_only"', "#!"),
        'without a lease it can\'t be ttl_only | write "never"',
    ),
    (
        database('path = "gcp/roleset/x/token"', 'revocability = "instant"', "#!"),
        'without a lease it can\'t be instant | write "ttl_only"',
    ),
    (
        database('path = "ssh/sign/x"', 'revocability = "instant"', "#!"),
        'without krl_file it can\'t be instant | write "ttl_only"',
    ),
]

CASES: list[Case] = [
    *((broker() + redis() + text, key, said) for text, key, said in SECTIONS),
    *((text + redis(), f"broker.{key}", said) for text, key, said in BROKERS),
    *((broker() + text, f"redis.{key}", said) for text, key, said in REDISES),
    *((broker() + redis() + text, f"vault.{key}", said) for text, key, said in VAULTS),
    *((broker() + redis() + text, f"identity.issuers{key}", said) for text, key, said in ISSUERS),
    *(
        (broker() + redis() + issuer() + token() + text, f"principals{key}", said)
        for text, key, said in PRINCIPALS
    ),
    *(
        (broker() + redis() + vault() + text, f"capabilities[0].{key}", said)
        for text, key, said in CAPABILITIES
    ),
    *((broker() + redis() + vault() + text, "capabilities[0]", said) for text, said in ENGINES),
    (
        broker() + redis() + database('backend = "vault" #!'),
        "capabilities[0].backend",
        "needs a [vault] section | add [vault] with address and auth",
    ),
]


@pytest.mark.parametrize(
    ("text", "key", "said"), CASES, ids=(f"{n}-{case[1]}" for n, case in enumerate(CASES))
)
def test_place_reason_and_suggestion(text: str, key: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, PATH)
    (problem,) = cast("list[dict[str, Any]]", caught.value.extra["problems"])
    assert problem["key"] == key
    assert [problem["line"]] == [n for n, line in enumerate(text.split("\n"), 1) if "#!" in line]
    for part in said.split(" | "):
        assert part in problem["reason"] + "\n" + problem["suggestion"]
    assert f"{PATH}:{problem['line']}: {key}: {problem['reason']}" in caught.value.detail
    assert "hunter2" not in caught.value.detail
